"""A folder per class becomes a data set; what can't be read is left out and listed."""

import csv
import json
import re
import sys

import pytest

from experiments import prepare_data
from perceiver_jax.data import datasets, sources
from perceiver_jax.data.builders import class_folders
from perceiver_jax.data.fields import image
from tests.data import printed
from tests.data.photographs import photograph

IMAGE = {"image": {"kind": "image", "image_size": 31}}


def write(folder, names):
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(photograph(i))


def prepare(folder, data_dir, *more):
    prepare_data.main(["image_folder", f"--source={folder}", f"--data_dir={data_dir}", *more])


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """Two classes, three good pictures to train on and two to test, and five that are not good."""
    folder = tmp_path_factory.mktemp("folder") / "My pets"
    write(folder, ["train/cat/1.jpg", "train/cat/old/2.JPEG", "train/dog/1.jpg"])
    write(folder, ["val/cat/9.jpg", "val/dog/9.jpg"])
    (folder / "train/dog/half.jpg").write_bytes(photograph(1)[:700])
    (folder / "train/dog/text.png").write_bytes(b"not a picture at all")
    (folder / "train/dog/empty.gif").write_bytes(b"")
    (folder / "train/dog/notes.txt").write_bytes(b"a dog")
    (folder / "train/loose.jpg").write_bytes(photograph(2))
    (folder / "train/dog/.hidden.jpg").write_bytes(b"")
    data_dir = tmp_path_factory.mktemp("prepared")
    prepare(folder, data_dir)
    return data_dir


def rows(data_dir, split):
    builder = datasets.prepared_builder("my_pets", str(data_dir))
    records = sources.TfdsRecords(str(builder.data_dir), split, ("file_name", "image", "label"))
    found = [records[i] for i in range(len(records))]
    return {row["file_name"].decode(): (row["image"], int(row["label"])) for row in found}


def test_pictures_are_stored_as_encoded_with_the_class_of_their_folder(pets):
    assert rows(pets, "train") == {
        "train/cat/1.jpg": (photograph(0), 0),
        "train/cat/old/2.JPEG": (photograph(1), 0),
        "train/dog/1.jpg": (photograph(2), 1),
    }
    assert sorted(rows(pets, "validation")) == ["val/cat/9.jpg", "val/dog/9.jpg"]


def test_what_is_left_out_is_listed_with_its_cause(pets):
    folder = pets / "my_pets/1.0.0"
    report = json.loads((folder / "report.json").read_text())
    assert report["splits"] == {"train": {"kept": 3}, "validation": {"kept": 2}}
    with open(folder / "report.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"]: row["cause"] for row in rows} == {
        "train/dog/half.jpg": "truncated",
        "train/dog/text.png": "not an image",
        "train/dog/empty.gif": "empty",
        "train/dog/notes.txt": "another kind of file",
        "train/loose.jpg": "not in the folder of a class",
    }
    assert sum(numbers["left_out"] for numbers in report["causes"].values()) == 5
    assert "truncated" in (folder / "report.txt").read_text()


def test_it_is_used_by_its_name(make_data, pets):
    known = make_data("my_pets", data_dir=str(pets), test_split="validation", fields=IMAGE)
    assert known.class_names("label") == ("cat", "dog")
    assert next(known.train_batches(seed=0))["image"].shape == (6, 31, 31, 3)


def test_the_last_line_is_the_command_that_trains_on_it(pets, tmp_path, capsys):
    prepare(pets.parent / "folder0" / "My pets", pets)
    out, err = capsys.readouterr()
    assert "is there already; delete it" in err
    config = printed.config(out)
    assert (config.data.dataset, config.data.test_split) == ("my_pets", "validation")
    assert config.model.outputs.label.size == 2


def test_without_folders_of_splits_a_hash_of_the_name_decides(tmp_path):
    for i in range(50):
        write(tmp_path, [f"cat/{i}.jpg", f"dog/{i}.jpg"])
    before = class_folders.find(tmp_path, {".jpg"}, 0.2).splits
    assert len(before["train"]) + len(before["test"]) == 100
    assert 10 <= len(before["test"]) <= 30
    write(tmp_path, ["cat/new.jpg"])
    after = class_folders.find(tmp_path, {".jpg"}, 0.2).splits
    assert set(before["test"]) <= set(after["test"])
    assert set(before["train"]) <= set(after["train"])


@pytest.mark.parametrize("test_fraction", [0.01, 0.99])
def test_small_folders_leave_something_to_test_and_each_class_to_train_on(tmp_path, test_fraction):
    write(tmp_path, [f"{label}/{i}.jpg" for label in ("cat", "dog") for i in range(3)])
    splits = class_folders.find(tmp_path, {".jpg"}, test_fraction).splits
    assert {label for _, label in splits["train"]} == {"cat", "dog"}
    assert len(splits["test"]) == (1 if test_fraction < 0.5 else 4)


@pytest.mark.parametrize(
    ("files", "more", "message"),
    [
        (["readme.md"], [], "expected a folder for each class"),
        (["train/cat/1.jpg", "test/dog/1.jpg"], [], r"\['dog'\] have files in the test split only"),
        (["cat/1.jpg"], ["--name=My pets"], "'My pets' can't be the name"),
    ],
)
def test_folders_that_make_no_data_set_are_explained(tmp_path, capsys, files, more, message):
    write(tmp_path / "source", files)
    with pytest.raises(SystemExit) as exit_:
        prepare(tmp_path / "source", tmp_path, *more)
    assert exit_.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_heic_picture_without_its_package_ends_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    image._register_heic.cache_clear()  # Another test may have registered it.
    write(tmp_path / "source", ["cat/1.jpg", "cat/2.jpg"])
    (tmp_path / "source/cat/3.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(SystemExit) as exit_:
        prepare(tmp_path / "source", tmp_path)
    assert exit_.value.code == 2
    assert "cat/3.jpg: Got a HEIC image" in capsys.readouterr().err


def test_a_source_that_is_not_there_is_explained(tmp_path, capsys):
    with pytest.raises(SystemExit):
        prepare(tmp_path / "nothing", tmp_path)
    assert "Correct --source" in capsys.readouterr().err
