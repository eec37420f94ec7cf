"""Folders as people have them: which are splits, which are classes, and what can't be told."""

import os

import pytest

from experiments import prepare_data
from perceiver_jax.data.builders import class_folders, folder_names
from perceiver_jax.data.builders.audioset import segments
from tests.data import media


def find(root, *names, test_fraction=0.2):
    for name in names:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "wb").close()
    return class_folders.find(root, {".jpg"}, test_fraction)


def below(*folders):
    return [f"{folder}/{label}/{i}.jpg" for folder in folders for label in "ab" for i in range(3)]


@pytest.mark.parametrize(
    "name, split",
    [
        ("Training", "train"),
        ("TRAIN", "train"),
        ("training_set", "train"),
        ("train-images", "train"),
        ("Train Data", "train"),
        ("TrainSet", "train"),
        ("val2017", "validation"),
        ("devel", "validation"),
        ("Testing", "test"),
        ("test1", "test"),
        ("trains", ""),
        ("valid", "validation"),
        ("invalid", ""),
    ],
)
def test_splits_are_told_by_all_usual_names(name, split):
    assert folder_names.meaning(name) == (split, ())


@pytest.mark.parametrize(
    "folders, expected",
    [
        (["Training", "Testing"], {"train", "test"}),
        (["train", "eval"], {"train", "test"}),
        (["train", "test", "eval"], {"train", "test", "validation"}),
        (["seg_train/seg_train", "seg_test/seg_test"], {"train", "test"}),
        (["set/set/train", "set/set/dev"], {"train", "validation"}),
    ],
)
def test_folders_of_splits_hold_the_classes(tmp_path, folders, expected):
    files = find(tmp_path, *below(*folders))
    assert files.classes == ("a", "b") and set(files.splits) == expected
    assert {len(pairs) for pairs in files.splits.values()} == {6}


def test_a_class_may_hold_its_splits(tmp_path):
    names = [f"{c}/{s}/{i}.jpg" for c in ("chair", "bed") for s in ("train", "test") for i in "12"]
    files = find(tmp_path, *names)
    assert files.classes == ("bed", "chair") and len(files.splits["test"]) == 4


def test_a_class_called_train_is_one(tmp_path):
    files = find(tmp_path, *(f"{c}/{i}.jpg" for c in ("bus", "car", "train") for i in "123"))
    assert files.classes == ("bus", "car", "train")


def test_what_lies_beside_splits_is_counted(tmp_path):
    files = find(tmp_path, *below("train", "test"), "unlabelled/1.jpg", "extra/a/2.jpg")
    assert {(one.name, one.cause) for one in files.skipped} == {
        ("unlabelled/1.jpg", "not in the folder of a split"),
        ("extra/a/2.jpg", "not in the folder of a split"),
    }


@pytest.mark.parametrize(
    "names, message",
    [
        (below("train", "Training"), "each of Training, train would be the train split"),
        (below("lernen", "test"), "test is the test split .* beside it there is lernen"),
        (["train/1.jpg", "test/1.jpg"], "test, train: called as splits"),
        ([*below("train"), "test/1.jpg"], "The folder test .* has no files in folders of classes"),
        (below("fold1", "fold2"), "called as folds"),
        (["a/1.jpg", "b/1.jpg"], "None of the files .* is for the test split"),
        (["a/1.avi", "b/2.avi"], "Found 2 x .avi"),
        (["1.jpg"], "give the folder above it"),
        (["a/1.jpg", "a /2.jpg"], "differ in white space alone"),
    ],
)
def test_folders_that_can_not_be_understood_are_refused_with_what_was_found(
    tmp_path, names, message
):
    with pytest.raises(ValueError, match=message):
        find(tmp_path, *names)


@pytest.mark.parametrize("kind", ["image_folder", "sound_folder", "video_folder", "mesh_folder"])
@pytest.mark.parametrize("fraction", ["-1", "2", "nan", "1"])
def test_an_impossible_test_fraction_is_explained_by_every_kind(tmp_path, capsys, kind, fraction):
    with pytest.raises(SystemExit) as exit_:
        prepare_data.main([kind, f"--source={tmp_path}", f"--test_fraction={fraction}"])
    assert exit_.value.code == 2
    assert "expected a number between 0 and 1" in capsys.readouterr().err


def test_links_are_followed_once_and_broken_ones_are_told(tmp_path):
    find(tmp_path / "store", *below("x"))
    root = tmp_path / "set"
    root.mkdir()
    (root / "a").symlink_to(tmp_path / "store/x/a")
    (root / "b").symlink_to(tmp_path / "store/x/b")
    (root / "again").symlink_to(tmp_path / "store/x/b")
    (root / "gone").symlink_to(tmp_path / "nothing")
    (tmp_path / "store/x/a/loop").symlink_to(tmp_path)
    files = find(root)
    assert files.classes == ("a", "again")  # Of two names the first.
    causes = [one.cause for one in files.skipped]
    assert sorted(set(causes)) == ["a broken link", "a link to a folder above it", "there twice"]
    assert causes.count("there twice") == 3


def test_names_that_are_not_utf8_are_left_out_and_told(tmp_path):
    files = find(tmp_path, *below("."), b"caf\xe9/1.jpg", b"a/\xe9.jpg")
    assert files.classes == ("a", "b")
    assert [one.cause for one in files.skipped] == ["name is not UTF-8"] * 2


def test_lists_may_begin_with_a_byte_order_mark(tmp_path):
    classes = [f"{i},/m/{i},name {i}\r\n" for i in range(segments.NUM_CLASSES)]
    text = "".join(["index,mid,display_name\r\n", *classes])
    (tmp_path / segments.CLASSES).write_text(text, "utf-8-sig")
    line = '--PJHxphWEs, 30.000, 40.000, "/m/1,/m/2"\r\n'
    (tmp_path / segments.LISTS["eval"]).write_text(line, "utf-8-sig")
    (segment,) = segments.read_lists(tmp_path, segments.read_classes(tmp_path))
    assert segment.labels == (1, 2)


def test_brackets_in_names_are_printed_as_they_are(tmp_path, capsys):
    source, data_dir = tmp_path / "x [/old]", tmp_path / "[old] sets"
    for name in ("[red] car/1", "[red] car/2", "b/1"):
        media.write_clip(source / f"{name}.wav", seconds=0.2)
    prepare_data.main(["sound_folder", f"--source={source}", f"--data_dir={data_dir}"])
    told = capsys.readouterr()
    assert "classes: [red] car, b\n" in told.out
    assert f"'--config.data.data_dir={data_dir}'" in told.out
    assert f"Looking for clips in {source}\n" in told.err


def test_a_file_as_source_is_explained(tmp_path, capsys):
    (tmp_path / "set.zip").write_bytes(b"")
    with pytest.raises(SystemExit) as exit_:
        prepare_data.main(["image_folder", f"--source={tmp_path / 'set.zip'}"])
    assert exit_.value.code == 2
    assert "a directory with a folder for each class" in capsys.readouterr().err
