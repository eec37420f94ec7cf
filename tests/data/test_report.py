"""What builds tell of what they left out, whatever the set is made of."""

import csv
import json

import pytest

from perceiver_jax import config
from perceiver_jax.data.builders import report

ROWS = [
    report.left_out("b/caf\udce9\n.txt", report.OTHER_KIND, ".txt"),
    report.left_out("a/1.jpg", "truncated", "12 bytes"),
    report.Row("train", "clip", "a/2.mp4", "short", True, "0.70 s"),
    report.Row("train", "clip", "a/2.mp4", "no_audio", True, ""),
]


@pytest.fixture
def folder(tmp_path):
    report.write(
        tmp_path, {"train": {"listed": 7, "kept": 5}, "test": {"listed": 3, "kept": 2}}, ROWS
    )
    return tmp_path


def test_each_row_is_a_line_of_printable_text(folder):
    with open(folder / report.CSV, newline="", encoding="utf-8") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows == [
        ("", "a/1.jpg", "a/1.jpg", "truncated", "False", "12 bytes"),
        ("", r"b/caf\xe9\n.txt", r"b/caf\xe9\n.txt", "another kind of file", "False", ".txt"),
        ("train", "clip", "a/2.mp4", "no_audio", "True", ""),
        ("train", "clip", "a/2.mp4", "short", "True", "0.70 s"),
    ]


def test_programs_find_numbers_by_split_and_by_cause(folder):
    found = json.loads((folder / "report.json").read_text())
    assert found["splits"]["test"] == {"listed": 3, "kept": 2}
    numbers = {cause: (x["kept"], x["left_out"]) for cause, x in found["causes"].items()}
    assert numbers == {"another kind of file": (0, 1), "no_audio": (1, 0), "short": (1, 0)} | {
        "truncated": (0, 1)
    }
    assert found["other_suffixes"] == {".txt": 1}


def test_people_are_told_the_same(folder, capsys):
    report.write(folder, {"train": {"kept": 5}}, ROWS)
    told = capsys.readouterr().err
    assert told.strip() == (folder / "report.txt").read_text().strip()
    assert "no audio" in told and "video alone" in told and "not taken: 1 .txt" in told


def test_a_split_of_which_nothing_is_left_is_explained_by_the_most_frequent_cause_first():
    rows = [report.left_out(f"{i}.jpg", "truncated", "early") for i in range(5)]
    with pytest.raises(config.UserError) as error:
        report.check_any(0, "images", "the test split", [ROWS[0], *rows, ROWS[2]])
    message = str(error.value)
    assert message.startswith("None of the 6 images of the test split can be used: 5 x truncated (")
    assert "such as 0.jpg: early; 1.jpg: early; 2.jpg: early. 1 x another kind" in message


def test_a_split_of_which_something_is_left_is_fine():
    report.check_any(1, "images", "the test split", ROWS)
