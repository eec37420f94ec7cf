"""`python -m experiments.benchmarks.data`; nothing here depends on how fast anything is."""

import io
import json

import numpy as np
import PIL.Image
import pytest

from experiments.benchmarks import data, records

FULL = "--config=experiments/configs/imagenet.py"


@pytest.fixture(scope="module")
def photo():
    """A small photograph of a user."""
    return PIL.Image.fromarray(np.full((31, 37, 3), 99, np.uint8))


def test_examples_are_decoded_and_augmented(photo, tmp_path, capsys):
    photo.save(tmp_path / "0.JPEG")
    path = tmp_path / "figures.json"
    flags = ["--examples=3", "--repeats=1", f"--source={tmp_path}"]
    data.main([FULL, *flags, f"--json={path}"])
    figures = json.loads(path.read_text())
    assert list(figures) == ["decoded, a core", "augmented, a core"]
    assert all(speed > 0 for _, speed in figures.values())
    assert "augmented, a core" in capsys.readouterr().out


def test_images_without_a_source_are_photographs_of_imagenets_usual_size():
    images = [PIL.Image.open(io.BytesIO(value)) for value in records.images(None)]
    assert {image.size for image in images} == {(500, 375)}
    assert min(np.asarray(image).std() for image in images[:5]) > 20


def test_a_clip_is_ten_seconds_of_moving_images_and_audio(photo):
    frames, audio = records.clip(np.random.default_rng(0), photo)
    assert (len(frames), frames[0].size, len(audio)) == (250, (340, 256), 480_000)
    assert np.abs(audio).max() <= 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([FULL, "--source=/nowhere"], "Found no JPEG files in /nowhere"),
        (["--config=experiments/configs/modelnet40.py"], "reads ['points']; expected one of"),
    ],
)
def test_a_mistake_ends_with_code_2(capsys, flags, message):
    with pytest.raises(SystemExit) as exit_:
        data.main(flags)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
