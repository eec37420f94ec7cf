"""Folders of pairs and flow become data sets; synthetic pairs have the flow that they say."""

import re

import numpy as np
import pytest

from experiments import prepare_data
from perceiver_jax import data as data_lib
from perceiver_jax.data import datasets, sources
from perceiver_jax.data.builders import mnist5k, moving_digits
from tests.data.test_flow import flo, kitti, png

FRAME = png(np.zeros((11, 13, 3), np.uint8))
FLOW = flo(np.ones((11, 13, 2), np.float32))


def prepare(source, data_dir, *more):
    prepare_data.main(["flow_folder", f"--source={source}", f"--data_dir={data_dir}", *more])


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def names(data_dir, split="train"):
    builder = datasets.prepared_builder("pairs", str(data_dir))
    records = sources.TfdsRecords(str(builder.data_dir), split, ("file_name",))
    return sorted(records[i]["file_name"].decode() for i in range(len(records)))


def numbered(pattern, numbers, content):
    return {pattern.format(i): content for i in numbers}


LAYOUTS = {
    "chairs": {
        **numbered("{:05d}_img1.ppm", range(4), FRAME),
        **numbered("{:05d}_img2.ppm", range(4), FRAME),
        **numbered("{:05d}_flow.flo", range(4), FLOW),
    },
    "sintel": {
        **numbered("training/clean/alley/frame_{:04d}.png", range(1, 6), FRAME),
        **numbered("training/final/alley/frame_{:04d}.png", range(1, 6), FRAME),
        **numbered("training/flow/alley/frame_{:04d}.flo", range(1, 5), FLOW),
    },
    "kitti": {
        **numbered("training/image_2/{:06d}_10.png", range(4), FRAME),
        **numbered("training/image_2/{:06d}_11.png", range(4), FRAME),
        **numbered(
            "training/flow_occ/{:06d}_10.png",
            range(4),
            kitti(np.ones((11, 13, 2)), np.ones((11, 13), bool)),
        ),
    },
    "own": {
        **numbered("frames/{}.png", range(5), FRAME),
        **numbered("flow/{}.flo", range(4), FLOW),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_its_four_pairs(layout, tmp_path, capsys):
    write(tmp_path / "pairs", LAYOUTS[layout])
    prepare(tmp_path / "pairs", tmp_path / "data", "--test_fraction=0.3")
    found = names(tmp_path / "data") + names(tmp_path / "data", "test")
    assert len(found) == 4
    printed = capsys.readouterr().out
    assert "configs/flow.py:mini --config.data.dataset=pairs" in printed
    data = data_lib.build_data(
        dataset="pairs",
        data_dir=str(tmp_path / "data"),
        train_split="train",
        test_split="test",
        batch_size=1,
        num_workers=0,
        fields={name: {"kind": name, "image_size": (5, 7)} for name in ("frames", "flow")},
    )
    batch = data.read_train([0], 0, augmented=True)
    np.testing.assert_array_equal(batch["flow"], np.ones((1, 5, 7, 2)))
    assert batch["frames"].shape == (1, 2, 5, 7, 3)


def test_pairs_that_can_t_be_used_are_left_out_and_told(tmp_path):
    files = LAYOUTS["own"] | {
        "flow/1.flo": FLOW[:50],
        "flow/7.flo": FLOW,
        "frames/3.png": png(np.zeros((11, 14, 3), np.uint8)),
    }
    write(tmp_path / "pairs", files)
    write(tmp_path / "pairs", numbered("frames/a{}.png", range(3), FRAME))
    write(tmp_path / "pairs", numbered("flow/a{}.flo", range(2), FLOW))
    prepare(tmp_path / "pairs", tmp_path / "data", "--test_fraction=0.4")
    builder = datasets.prepared_builder("pairs", str(tmp_path / "data"))
    report = (builder.data_path / "report.csv").read_text()
    assert re.search("flow/1.flo,truncated,False", report)
    assert re.search("flow/7.flo,no pictures,False", report)
    assert re.search("flow/2.flo,of several sizes,False.*13 x 11, 14 x 11, 13 x 11", report)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.png": FRAME, "b.png": FRAME}, "no flows with their pictures .* 0 flows and 2 pict"),
        ({"a_img1.png": FRAME, "a_flow.flo": FLOW}, "no flows with .* 1 flows and 1 pictures"),
        (numbered("frames/{}.png", range(2), FRAME) | {"flow/0.flo": FLOW}, "None of the 1 pairs"),
    ],
)
def test_a_folder_without_pairs_says_what_is_expected(files, message, tmp_path, capsys):
    write(tmp_path / "pairs", files)
    with pytest.raises(SystemExit):
        prepare(tmp_path / "pairs", tmp_path / "data")
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_synthetic_frames_move_as_their_flow_says():
    digits = mnist5k.images("train")
    right = total = 0
    for seed in range(5):
        pair, flow = moving_digits.draw(np.random.default_rng(seed), digits)
        rows, columns = np.mgrid[: moving_digits.SIDE, : moving_digits.SIDE]
        there = rows + flow[..., 1], columns + flow[..., 0]
        inside = np.all([(0 <= x) & (x < moving_digits.SIDE) for x in there], axis=0)
        same = (pair[1][there[0][inside], there[1][inside]] == pair[0][inside]).all(axis=-1)
        right, total = right + same.sum(), total + inside.sum()
    assert right / total > 0.85  # The rest is covered in the second frame.
