"""`python -m experiments.benchmark_data`; nothing here depends on how fast anything is."""

import io
import json
import sys

import numpy as np
import PIL.Image
import pytest

from experiments import benchmark_data, benchmark_records

FULL = "--config=experiments/configs/imagenet.py"
pytestmark = pytest.mark.xdist_group("benchmark_data")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of two small photographs of a user."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(2):
        pixels = np.full((31, 37, 3), 99 * i, np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{i}.JPEG")
    return folder


@pytest.fixture(scope="module")
def measured(photos, tmp_path_factory):
    """The figures of a run with a peer that is not installed."""
    path = tmp_path_factory.mktemp("out") / "figures.json"
    quick = ["--examples=3", "--rounds=1", "--workers=0", f"--source={photos}"]
    peers = ["--peers=tf.data", f"--peer_python={sys.executable}"]
    benchmark_data.main([FULL, *quick, *peers, f"--json={path}"])
    return json.loads(path.read_text())[0]


def test_examples_are_decoded_augmented_and_read_by_workers(measured):
    assert measured["ms"]["decoded"] > 0 and measured["ms"]["augmented"] > 0
    assert measured["workers"]["0"] > 0


def test_a_peer_that_is_not_there_is_named(measured):
    assert measured["peers"]["tf.data"] == {
        "missing": "not installed: No module named 'tensorflow'"
    }


def test_pictures_without_a_source_are_photographs_of_imagenets_usual_size():
    pictures = [PIL.Image.open(io.BytesIO(value)) for value in benchmark_records.pictures(None)]
    assert {picture.size for picture in pictures} == {(500, 375)}
    assert min(np.asarray(picture).std() for picture in pictures[:5]) > 20


def test_a_clip_is_ten_seconds_of_moving_pictures_and_sound(photos):
    (clip,) = benchmark_records.clips(photos, 1)
    frames, sound = clip
    assert (len(frames), frames[0].size, len(sound)) == (250, (340, 256), 480_000)
    assert np.abs(sound).max() <= 1


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--peers=pil", "Unknown --peers 'pil'; expected some of torchvision"),
        ("--workers=-1", "Unknown --workers '-1'"),
        ("--rounds=0", "Got --rounds=0; expected 1 or more"),
        ("--source=/nowhere", "Found no JPEG files in /nowhere"),
    ],
)
def test_a_mistake_ends_with_code_2(capsys, flag, message):
    with pytest.raises(SystemExit) as exit_:
        benchmark_data.main([FULL, flag])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
