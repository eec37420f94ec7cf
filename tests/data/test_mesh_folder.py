"""Shapes in a folder per class, from the command to records."""

import csv
import io
import json

import numpy as np
import pytest
import trimesh

from experiments import prepare_data
from experiments.configs import modelnet40
from perceiver_jax.data import datasets
from perceiver_jax.data.builders import mesh_folder
from perceiver_jax.data.builders.shapes import clouds
from tests.data import printed, shape_files


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Boxes that are long along z, and balls; shapes of all forms, and what is none."""
    ball = trimesh.creation.icosphere(subdivisions=2, radius=5)
    cloud = np.random.default_rng(0).normal(size=(101, 6))
    files = {
        "train/box/a.stl": trimesh.creation.box((1, 1, 9)).export(file_type="stl"),
        "train/box/b.off": shape_files.box_off((1, 1, 9)),
        "train/box/readme.txt": b"",
        "train/ball/deeper/a.PLY": ball.export(file_type="ply"),
        "train/ball/few.npy": npy(cloud[:10]),
        "test/ball/b.obj": ball.export(file_type="obj").encode(),
        "test/ball/c.npy": npy(cloud),
    }
    root = tmp_path_factory.mktemp("own")
    source = shape_files.write_files(root / "My shapes", files)
    command = ["mesh_folder", f"--source={source}", f"--data_dir={root}"]
    prepare_data.main([*command, "--num_points=53", "--up=z"])
    return root


@pytest.fixture(scope="module")
def records(own):
    return shape_files.read(datasets.find("my_shapes", str(own)))


def test_every_form_is_read_with_the_class_and_split_of_its_folder(records):
    labels = {s: {n: r["label"] for n, r in split.items()} for s, split in records.items()}
    assert labels == {
        "train": {"train/box/a.stl": 1, "train/box/b.off": 1, "train/ball/deeper/a.PLY": 0},
        "test": {"test/ball/b.obj": 0, "test/ball/c.npy": 0},
    }


def test_a_ball_gives_points_on_a_ball(records):
    radii = np.linalg.norm(records["test"]["test/ball/b.obj"]["points"], axis=1)
    assert radii.min() > 0.6


def test_the_vertical_axis_becomes_y(records):
    assert np.ptp(records["train"]["train/box/a.stl"]["points"], axis=0).argmax() == 1


def test_what_is_left_out_is_listed_with_its_cause(own):
    folder = own / "my_shapes/1.0.0"
    report = json.loads((folder / "report.json").read_text())
    assert report["splits"] == {"train": {"kept": 3}, "test": {"kept": 2}}
    with open(folder / "report.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"]: row["cause"] for row in rows} == {
        "train/box/readme.txt": "another kind of file",
        "train/ball/few.npy": "too few points",
    }


def test_the_command_that_trains_on_it_is_for_its_number_of_points(own, capsys):
    source = own / "My shapes"
    prepare_data.main(["mesh_folder", f"--source={source}", f"--data_dir={own}", "--up=z"])
    config = printed.config(capsys.readouterr().out)
    assert config.data.fields.points.num_points == 53 // 2
    assert config.model.outputs.label.size == 2


def test_the_usual_number_of_points_is_that_of_the_recipe():
    recipe = modelnet40.get_config()
    assert recipe.data.fields.points.num_points == clouds.NUM_POINTS


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"up": "x"}, "expected 'y' or 'z'"),
        ({"num_points": 0}, "expected 1 or more"),
        ({"test_fraction": 0.0}, "None of the shapes .* is for the test split"),
    ],
)
def test_wrong_settings_are_explained(settings, message, tmp_path):
    shape_files.write_files(tmp_path, {"a/1.off": b"", "a/2.off": b""})
    with pytest.raises(ValueError, match=message):
        mesh_folder.MeshFolder(tmp_path, "own", tmp_path, **{"test_fraction": 0.5} | settings)
