"""Folders as people have them: which are splits, which are classes, and what can't be told."""

import argparse
import os
import re
import resource

import pytest

from experiments import prepare_data
from perceiver_jax.data.builders import class_folders, folder_names
from perceiver_jax.data.builders.audioset import segments
from tests.data import media, photographs


def find(root, *names, test_fraction=0.2):
    for name in names:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if not path.endswith(b"/"):
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
        (["a/1.jpg", "a /2.jpg"], "differ in white space or spelling"),
        (["e\u0301/1.jpg", "\u00e9/2.jpg"], "differ in white space or spelling of accents"),
        (["jpg/1.jpg", "jpg/2.jpg"], "jpg: says what kind of files there are"),
        ([*below(".", "set")], "set has in it what is beside it, too: a, b"),
        (["images/1.jpg", "images/2.jpg", "labels/masks/1.jpg"], "images, labels: says what kind"),
    ],
)
def test_folders_that_can_not_be_understood_are_refused_with_what_was_found(
    tmp_path, names, message
):
    with pytest.raises(ValueError, match=message):
        find(tmp_path, *names)


def test_what_systems_leave_among_files_is_passed_over(tmp_path):
    junk = ["__MACOSX/set/train/a/1.jpg", "$RECYCLE.BIN/1.jpg", "a/Thumbs.db", "a/desktop.ini"]
    junk += ["a/@eaDir/1.jpg/SYNO_THUMB.jpg", "lost+found/x/1.jpg", "a/.DS_Store", "Icon\r"]
    files = find(tmp_path, *below("."), *junk)
    assert files.classes == ("a", "b") and not files.skipped
    assert sum(map(len, files.splits.values())) == 6


def test_archives_made_on_a_mac_have_the_same_classes(tmp_path):
    names = [f"train/caf\u00e9/{i}.jpg" for i in "12"] + ["test/cafe\u0301/3.jpg"]
    assert find(tmp_path, *names).classes == ("caf\u00e9",)


@pytest.mark.parametrize(
    "names, note",
    [
        ([f"{label}/{i}.jpg" for label in ("a", "test") for i in "12"], "like the others: test,"),
        ([*below("."), "c/"], "Empty, and so no classes: c."),
        ([*below("train", "test"), "train/c/"], "Empty, and so no classes: train/c."),
        (below("data/pets", "pets"), "Taken for classes: data, pets; each of them has .* a, b"),
        (
            [f"{c}/{kind}/{i}.jpg" for c in "ab" for kind in ("images", "masks") for i in "12"],
            "files in the folders images, masks are all taken",
        ),
        (below("amazon/images", "dslr/images"), "Taken for classes: amazon, dslr; .* folders a, b"),
    ],
)
def test_what_may_be_a_mistake_is_told(tmp_path, names, note):
    assert re.search(note, find(tmp_path, *names).note)


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


def test_a_set_is_called_as_the_link_to_it(tmp_path):
    (tmp_path / "My Birds").symlink_to(tmp_path)
    flags = argparse.Namespace(name=None, source=tmp_path / "store" / ".." / "My Birds")
    assert class_folders.choose_name(flags) == "my_birds"


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
    assert f"own_data.py:old,data_dir={data_dir}' --workdir" in told.out
    assert f"Looking for clips in {source}\n" in told.err


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--source="], "There is no --source=''; expected a directory"),
        (["--source=.", "--data_dir=gs://bucket/sets"], "expected a directory of this machine"),
    ],
)
def test_what_is_no_directory_is_explained(capsys, flags, message):
    with pytest.raises(SystemExit) as exit_:
        prepare_data.main(["image_folder", *flags])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--source={}/other/set"], "made with source .*; got .*other/set"),
        (["--source={}/set", "--test_fraction=0.5"], "made with test_fraction 0.1; got 0.5"),
    ],
)
def test_a_set_of_that_name_from_elsewhere_is_not_taken_for_this_one(
    tmp_path, capsys, flags, message
):
    for folder in ("set", "other/set"):
        for name in ("a/1", "a/2", "b/1"):
            path = tmp_path / folder / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photographs.photograph(1))
    data_dir = f"--data_dir={tmp_path / 'sets'}"
    prepare_data.main(["image_folder", f"--source={tmp_path / 'set'}", data_dir])
    with pytest.raises(SystemExit) as exit_:
        prepare_data.main(["image_folder", data_dir, *(flag.format(tmp_path) for flag in flags)])
    assert exit_.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_full_disk_is_explained(tmp_path, capsys):
    for name in ("a/1", "a/2", "b/1"):
        path = tmp_path / f"set/{name}.ppm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"P6 199 199 255 " + os.urandom(3 * 199 * 199))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(SystemExit) as exit_:
            data_dir = f"--data_dir={tmp_path / 'sets'}"
            prepare_data.main(["image_folder", f"--source={tmp_path / 'set'}", data_dir])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert exit_.value.code == 2
    assert "File too large. Make room, or choose" in capsys.readouterr().err


def test_a_file_as_source_is_explained(tmp_path, capsys):
    (tmp_path / "set.zip").write_bytes(b"")
    with pytest.raises(SystemExit) as exit_:
        prepare_data.main(["image_folder", f"--source={tmp_path / 'set.zip'}"])
    assert exit_.value.code == 2
    assert "a directory with a folder for each class" in capsys.readouterr().err
