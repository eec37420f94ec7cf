"""What a user names -> examples."""

import io
import json
import os
import pathlib

import numpy as np
import pytest

from perceiver_jax import config
from perceiver_jax.data import listing, raw
from perceiver_jax.data.fields import array, audio, frames, image, label, point_cloud, text, video
from tests.data.photographs import photograph

LABEL = label.Label(3, multi_label=False)
IMAGE = {"image": image.Image(7), "label": LABEL}
TEXT = {"text": text.Text(23)}
FRAMES = {"frames": frames.Frames((5, 7))}
ARRAY = {"x": array.Array("x", (2, 3), np.dtype(np.float32))}
BOTH = {"image": image.Image(7), "text": text.Text(23), "label": LABEL}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files of several kinds, below the current directory."""
    for name in ("b/2.jpg", "b/1.PNG", "a.jpg", "b/.hidden.jpg", "b/c/3.webp", "b/notes.txt"):
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"-")
    monkeypatch.chdir(tmp_path)
    return pathlib.Path("own")


def found(words, fields=IMAGE, **options):
    """Names, and paths or what they are instead; and what was noted."""
    notes = []
    examples = list(listing.find(words, fields, note=notes.append, **options))
    return examples, notes


def names(words, fields=IMAGE, **options):
    return [one.name for one in found(words, fields, **options)[0]]


def test_a_folder_has_all_files_of_the_models_kind_sorted(folder):
    examples, notes = found(["own"])
    expected = ["own/a.jpg", "own/b/1.PNG", "own/b/2.jpg", "own/b/c/3.webp"]
    assert examples == [(name, pathlib.Path(name)) for name in expected]
    assert notes == ["Left out of own, for they are of other kinds: 1 x .txt."]
    assert names(["own/b/notes.txt", "own/b/c"]) == ["own/b/notes.txt", "own/b/c/3.webp"]


def test_a_folder_that_has_none_is_said(folder):
    pathlib.Path("own/empty").mkdir()
    examples, notes = found(["own/empty"], {"points": point_cloud.PointCloud(5)})
    assert not examples
    assert notes == ["There are no files .npy, .obj, .off, .ply, .stl in own/empty."]


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        (TEXT, [".md", ".txt"]),
        (ARRAY, [".npy"]),
        ({"sound": audio.Audio(9)}, [".mp4", ".wav"]),
        ({"audio": audio.Audio(9), "film": video.Video(2, 8)}, [".mp4", ".wav"]),
        ({"points": point_cloud.PointCloud(5)}, [".npy", ".stl"]),
    ],
)
def test_what_is_taken_depends_on_what_the_model_reads(fields, taken, tmp_path):
    for suffix in (".jpg", ".md", ".mp4", ".npy", ".stl", ".txt", ".wav"):
        (tmp_path / f"x{suffix}").write_bytes(b"-")
    assert [os.path.splitext(name)[1] for name in names([str(tmp_path)], fields)] == taken


def test_patterns_stand_for_what_they_match_and_names_with_brackets_for_themselves(folder):
    assert names(["own/**/[12].*"]) == ["own/b/1.PNG", "own/b/2.jpg"]
    pathlib.Path("own/[1].jpg").write_bytes(b"-")
    assert names(["own/[1].jpg"]) == ["own/[1].jpg"]
    (missing,) = found(["own/*.gif"])[0]
    assert isinstance(missing.value, config.MissingFileError)
    assert "Nothing is called, or matches, own/*.gif" in str(missing.value)


def test_a_pattern_follows_links_but_not_to_a_folder_above(folder):
    pathlib.Path("own/b/up").symlink_to("..")
    pathlib.Path("other").symlink_to("own/b/c")
    assert names(["own/**/*.webp", "**/*.webp"]) == [
        *("own/b/c/3.webp", "other/3.webp", "own/b/c/3.webp")
    ]
    assert names(["own/b/../*.jpg", "own/b/up/*.jpg"]) == ["own/b/../a.jpg", "own/b/up/a.jpg"]


def test_names_come_by_standard_input(folder):
    stdin = io.BytesIO(b"own/b/c\r\n\nnowhere.jpg\nown/\xff.jpg")
    expected = ["own/b/c/3.webp", "nowhere.jpg", "own/\udcff.jpg", "own/a.jpg"]
    assert names(["-", "own/a.jpg"], stdin=stdin) == expected


def test_what_of_a_folder_can_not_be_read_is_an_error_in_it(folder):
    pathlib.Path("own/broken.jpg").symlink_to("nowhere.jpg")
    pathlib.Path("own/broken.txt").symlink_to("nowhere.txt")
    pathlib.Path("own/b/up").symlink_to("..")
    pathlib.Path(os.fsdecode(b"own/\xff.jpg")).write_bytes(b"-")
    examples, notes = found(["own"])
    assert [one.name for one in examples][-2:] == ["own/\udcff.jpg", "own/broken.jpg"]
    assert "Can't read own/broken.jpg: a broken link" in str(examples[-1].value)
    assert "Left out of own: b/up, a link to a folder above it." in notes


def test_each_row_of_a_file_of_arrays_is_an_example(tmp_path):
    rows = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "one.npy", rows[2])
    (tmp_path / "broken.npy").write_bytes(b"-")
    examples, _ = found([str(tmp_path)], ARRAY)
    assert [one.name.rpartition("/")[2] for one in examples] == [
        *("broken.npy", "one.npy", "rows.npy[0]", "rows.npy[1]", "rows.npy[2]", "rows.npy[3]")
    ]
    read = [raw.read_array(one.value, ARRAY["x"], "x") for one in examples[1:]]
    np.testing.assert_array_equal(read, rows[[2, 0, 1, 2, 3]])


def test_lines_of_texts_are_examples_and_empty_ones_are_none(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes(b"\xef\xbb\xbf one \r\n\n\t\n\xfftwo\nthree")
    examples, _ = found([str(path), "-", "none.txt"], TEXT, lines=True, stdin=io.BytesIO(b"four"))
    expected = [(f"{path}:1", "one"), (f"{path}:4", "\udcfftwo"), (f"{path}:5", "three")]
    assert examples[:4] == [*expected, ("-:1", "four")]
    assert "Can't read none.txt: no such file or folder. Correct" in str(examples[4].value)


def test_pictures_that_follow_each_other_are_pairs(folder):
    pair = (
        "own/b/1.PNG -> own/b/2.jpg",
        (pathlib.Path("own/b/1.PNG"), pathlib.Path("own/b/2.jpg")),
    )
    assert found(["own"], FRAMES)[0] == [pair]
    given = ["own/a.jpg", "own/b/2.jpg", "own/b/1.PNG"]
    expected = ["own/a.jpg -> own/b/2.jpg", "own/b/2.jpg -> own/b/1.PNG"]
    assert names(given, FRAMES) == expected
    alone = found(["own/a.jpg", "own/b", "own/b/2.jpg"], FRAMES)[0]
    assert [one.name for one in alone] == ["own/a.jpg", pair[0], "own/b/2.jpg"]
    assert "Got own/a.jpg alone; expected a pair" in str(alone[0].value)


def test_pairs_are_told_by_their_names_and_flows_are_none(tmp_path):
    for name in ("1_img1.png", "1_img2.png", "1_flow.png", "2_img1.png", "3.png", "4.png"):
        (tmp_path / name).write_bytes(b"-")
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow/1.png").write_bytes(b"-")
    (tmp_path / "flow/2.png").write_bytes(b"-")
    short = [x.replace(f"{tmp_path}/", "") for x in names([str(tmp_path)], FRAMES)]
    assert short == ["1_img1.png -> 1_img2.png", "2_img1.png -> 3.png", "3.png -> 4.png"]


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        (BOTH, {}, r"reads \['image', 'text'\], which no single file has; expected --examples="),
        (BOTH, {}, r"""such as {"image": "picture.jpg", "text": "a text"}"""),
        (IMAGE, {"lines": True}, r"Got --lines for a model that reads \['image'\]"),
    ],
)
def test_what_the_model_does_not_read_is_refused_at_once(fields, options, message):
    with pytest.raises(config.UserError, match=message):
        listing.find(["a.jpg"], fields, **options)


def test_lines_of_json_have_a_value_for_each_input(tmp_path):
    path = tmp_path / "examples.jsonl"
    rows = [{"image": "a.jpg", "text": "ä\n"}, {"image": None, "text": 3, "name": "three"}, [1]]
    lines = [json.dumps(rows[0]), "", json.dumps(rows[1]), json.dumps(rows[2]), "{"]
    path.write_text("\n".join(lines), encoding="utf-8-sig")
    examples = list(listing.read_table(path, BOTH))
    expected = {"image": tmp_path / "a.jpg", "text": "ä\n"}
    assert examples[:2] == [(f"{path}:1", expected), ("three", {"text": 3})]
    assert f"{path}:4 is [1]; expected an object" in str(examples[2].value)
    assert f"{path}:5 is no JSON: " in str(examples[3].value)


def test_a_table_has_a_column_for_each_input_and_two_for_pairs(tmp_path):
    fields = FRAMES | TEXT
    path = tmp_path / "examples.csv"
    path.write_text('name,frames,text,frames\nx,1.png,"a\nb",2.png\n\ny,1.png\n,a,,/b\n')
    examples = list(listing.read_table(path, fields))
    pair = (tmp_path / "1.png", tmp_path / "2.png")
    assert examples[0] == ("x", {"frames": pair, "text": "a\nb"})
    assert f"{path}:5 has 2 columns; expected 4" in str(examples[1].value)
    alone = (tmp_path / "a", pathlib.Path("/b"))
    assert examples[2] == (f"{path}:6", {"frames": alone})
    tabs = path.with_suffix(".tsv")
    tabs.write_text("text\nx,y\n")
    assert list(listing.read_table(tabs, fields)) == [(f"{tabs}:2", {"text": "x,y"})]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "Can't read .*none.csv: no such file"),
        ("x.txt", "", "expected a file .jsonl, .ndjson, .csv, .tsv"),
        ("x.csv", "imgae,text\n", "Unknown column of .*x.csv 'imgae'.*Did you mean 'image'"),
    ],
)
def test_what_is_no_table_is_refused_at_once(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content or "-")
    with pytest.raises(config.UserError, match=message):
        listing.read_table(tmp_path / name, BOTH)


def test_pictures_of_a_table_are_read_from_its_folder(tmp_path):
    (tmp_path / "a.jpg").write_bytes(photograph(0))
    path = tmp_path / "examples.jsonl"
    path.write_text('{"image": "a.jpg", "text": "a cat"}\n{"imgae": "a.jpg"}\n')
    reader = listing.inference.make_reader(BOTH)
    first, second = listing.read_table(path, BOTH)
    (row,) = reader.read(0, first)
    assert row["image"].any() and row["text_mask"].sum() == 5
    with pytest.raises(config.UserError, match=r"Unknown input of .*examples.jsonl:2 'imgae'"):
        reader.read(1, second)
