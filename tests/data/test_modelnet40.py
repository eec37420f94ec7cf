"""ModelNet40 from small files in each of the forms that its users have."""

import os
import zipfile

import h5py
import numpy as np
import pytest

from perceiver_jax.data.builders import modelnet40
from perceiver_jax.data.builders.shapes import reading
from tests.data import shape_files

FILES = {
    "chair/train/chair_0001.off": shape_files.box_off((2, 3, 7)),
    "chair/train/chair_0002.off": shape_files.box_off((2, 3, 7), "OFF"),
    "table/train/table_0001.off": b"OFF\n3 1000000000 0\n0 0 0\n",
    "table/train/table_0002.off": shape_files.box_off((2, float("nan"), 7)),
    "table/train/table_0003.off": shape_files.box_off((5, 5, 1), "OFF"),
    "xbox/test/xbox_0104.off": shape_files.box_off((1, 1, 1)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return shape_files.write_files(tmp_path_factory.mktemp("meshes") / "ModelNet40", FILES).parent


@pytest.fixture(scope="module")
def from_folder(folder):
    built = modelnet40.Modelnet40(folder, folder / "tfds", num_points=53)
    return built, shape_files.build(built)


def test_each_mesh_becomes_points_with_its_class_in_its_split(from_folder):
    _, records = from_folder
    labels = {name: record["label"] for name, record in records["train"].items()}
    assert labels == {
        "chair/train/chair_0001.off": 8,
        "chair/train/chair_0002.off": 8,
        "table/train/table_0003.off": 33,
    }
    assert records["test"]["xbox/test/xbox_0104.off"]["label"] == 39
    assert records["test"]["xbox/test/xbox_0104.off"]["points"].shape == (53, 3)


def test_meshes_are_turned_so_that_y_is_up(from_folder):
    _, records = from_folder
    for name, upright in {"chair/train/chair_0001": True, "table/train/table_0003": False}.items():
        x, y, z = np.ptp(records["train"][f"{name}.off"]["points"], axis=0)
        assert (y > 1.5 * max(x, z)) == upright


def test_damaged_meshes_are_left_out_and_counted(from_folder):
    built, _ = from_folder
    assert built.found == {"train": 5, "test": 1}
    assert [(one.name, one.cause) for one in built.skipped] == [
        ("table/train/table_0001.off", "incomplete"),
        ("table/train/table_0002.off", "not finite"),
    ]


def test_an_archive_of_fewer_meshes_gives_the_same_points(from_folder, tmp_path):
    _, expected = from_folder
    names = {"table/train/table_0003.off", "chair/train/chair_0002.off"}
    with zipfile.ZipFile(tmp_path / "ModelNet40.zip", "w") as archive:
        for name in names:
            archive.writestr(f"ModelNet40/{name}", FILES[name])
            archive.writestr(f"__MACOSX/ModelNet40/{name}", b"")
    built = modelnet40.Modelnet40(tmp_path, tmp_path / "tfds", num_points=53)
    records = shape_files.build(built)
    assert set(records) == {"train"}
    assert set(records["train"]) == names
    for name in names:
        points = records["train"][name]["points"]
        np.testing.assert_array_equal(points, expected["train"][name]["points"])


def test_meshes_of_any_name_are_found_or_told(tmp_path):
    shape_files.write_files(tmp_path, {"sofa/train/sofa_0001.OFF": b"OFF\n"})
    with open(os.fsencode(tmp_path) + b"/sofa/train/caf\xe9.off", "wb"):
        pass
    built = modelnet40.Modelnet40(tmp_path, tmp_path / "tfds")
    assert [(one.name, one.cause) for one in built.skipped] == [
        ("sofa/train/caf\udce9.off", "name is not UTF-8")
    ]
    with pytest.raises(ValueError, match="unreadable, such as sofa/train/sofa_0001.OFF: no header"):
        shape_files.build(built)


@pytest.fixture
def clouds(rng):
    return rng.normal(size=(7, 61, 3)).astype(np.float32)


def test_the_hdf5_release_is_read_without_turning(tmp_path, clouds):
    clouds[4, 5, 2] = np.nan
    with h5py.File(tmp_path / "ply_data_test0.h5", "w") as file:
        file.create_dataset("data", data=clouds, compression="gzip")
        file["label"] = np.array([[8], [8], [33], [40], [0], [39], [1]], np.uint8)
    (tmp_path / "shape_names.txt").write_text("\n".join(modelnet40.CLASSES) + "\n")
    built = modelnet40.Modelnet40(tmp_path, tmp_path / "tfds", num_points=61)
    records = shape_files.build(built)["test"]
    labels = {int(name[-5:]): record["label"] for name, record in records.items()}
    assert labels == {0: 8, 1: 8, 2: 33, 5: 39, 6: 1}
    centred = clouds[2] - clouds[2].mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1).max()
    np.testing.assert_allclose(records["ply_data_test0.h5/00002"]["points"], centred, atol=1e-6)
    causes = {one.name[-5:]: one.cause for one in built.skipped}
    assert causes == {"00003": "label out of range", "00004": "not finite"}


def test_npz_clouds_are_turned_and_keep_their_number_of_points(tmp_path, clouds):
    points = (clouds / np.abs(clouds).max() * 32_767).astype(np.int16)
    names = np.array(modelnet40.CLASSES)
    np.savez(tmp_path / "train_a.npz", points=points, label=np.arange(7), class_names=names)
    built = modelnet40.Modelnet40(tmp_path, tmp_path / "tfds")
    records = shape_files.build(built)["train"]
    assert [records[f"train_a.npz/0000{i}"]["label"] for i in range(7)] == list(range(7))
    x, y, z = records["train_a.npz/00003"]["points"].T
    stored = points[3] - points[3].mean(axis=0)
    for turned, original in ((x, stored[:, 0]), (y, stored[:, 2]), (z, -stored[:, 1])):
        assert np.corrcoef(turned, original)[0, 1] > 0.9999


def test_npz_clouds_of_other_classes_are_refused(tmp_path, clouds):
    names = np.array(["mug", *modelnet40.CLASSES[1:]])
    np.savez(tmp_path / "train.npz", points=clouds, label=np.arange(7), class_names=names)
    with pytest.raises(ValueError, match=r"unknown class, such as train.npz: \['mug'\] among"):
        shape_files.build(modelnet40.Modelnet40(tmp_path, tmp_path / "tfds"))


@pytest.mark.parametrize(
    "files, message",
    [
        ([], "Found nothing of ModelNet40 .* no files"),
        (["airplane/1.txt", "airplane/2.txt", "README"], r"but 2 x .txt, 1 x \(no suffix\)"),
        (["ply_data_train0.h5", "train.npz"], "several times"),
        (["ply_data_train0.h5"], "Found no .*shape_names.txt"),
        (["mug/train/a.off"], "the class 'mug'.*kind mesh_folder"),
        (["train.npz"], "can't be read"),
        (["ModelNet40.zip"], "Download it again"),
    ],
)
def test_other_sources_are_refused_with_what_is_expected(files, message, tmp_path):
    shape_files.write_files(tmp_path, dict.fromkeys(files, b"x"))
    with pytest.raises(ValueError, match=message):
        modelnet40.Modelnet40(tmp_path, tmp_path / "tfds")


def test_a_split_without_a_usable_mesh_ends_the_build(tmp_path):
    shape_files.write_files(tmp_path, {"sofa/train/sofa_0001.off": b"OFF\n"})
    built = modelnet40.Modelnet40(tmp_path, tmp_path / "tfds")
    with pytest.raises(
        ValueError, match="None of the 1 shapes .*unreadable, .*0001.off: no header"
    ):
        shape_files.build(built)


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    shape_files.write_files(tmp_path, {"sofa/train/sofa_0001.off": b"OFF\n"})
    monkeypatch.setattr(reading.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install perceiver-haiku\[meshes\]"):
        modelnet40.Modelnet40(tmp_path, tmp_path / "tfds")
