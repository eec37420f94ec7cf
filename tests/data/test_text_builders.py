"""Tables and files of texts become data sets; what is wrong is told by its line."""

import json
import re

import pytest

from experiments import prepare_data
from perceiver_jax.data import datasets, sources
from perceiver_jax.data.builders import text_files
from tests.data import printed

ROWS = [("good film", "pos"), ("bad film", "neg"), ('with "quotes", and\ntwo lines', "pos")]


def csv(rows, header="text,label"):
    quoted = [",".join(f'"{x.replace(chr(34), 2 * chr(34))}"' for x in row) for row in rows]
    return "\n".join([header, *quoted]) + "\n"


def prepare(kind, source, data_dir, *more):
    prepare_data.main([kind, f"--source={source}", f"--data_dir={data_dir}", *more])


def rows(data_dir, name, split):
    builder = datasets.prepared_builder(name, str(data_dir))
    names = tuple(builder.info.features)
    records = sources.TfdsRecords(str(builder.data_dir), split, names)
    return {r["file_name"].decode(): r for r in (records[i] for i in range(len(records)))}


def test_a_table_becomes_texts_with_classes_and_the_command_that_trains(tmp_path, capsys):
    folder = tmp_path / "Reviews"
    folder.mkdir()
    (folder / "train.csv").write_text(csv(ROWS))
    (folder / "test.tsv").write_text("text\tlabel\nfine\tpos\n")
    prepare("text_table", folder, tmp_path / "data")
    train, test = (rows(tmp_path / "data", "reviews", split) for split in ("train", "test"))
    assert {place: (row["text"].decode(), row["label"]) for place, row in train.items()} == {
        "train.csv, line 2": ("good film", 1),
        "train.csv, line 3": ("bad film", 0),
        "train.csv, line 4": (ROWS[2][0], 1),
    }
    assert list(test) == ["test.tsv, line 2"]
    out = capsys.readouterr().out
    assert "2 classes: neg, pos" in out
    assert "The texts have 8 bytes at the median and 28 at most; 0.0% have more than" in out
    config = printed.config(out)
    assert (config.data.fields.text.max_length, config.model.outputs.label.size) == (28, 2)


def test_json_lines_have_columns_of_any_name_and_other_classes_than_texts(tmp_path):
    path = tmp_path / "films.jsonl"
    lines = [{"review": f"film {i % 30}", "stars": i % 2} for i in range(60)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    prepare("text_table", path, tmp_path / "data", "--text=review", "--label=stars")
    train, test = (rows(tmp_path / "data", "films", split) for split in ("train", "test"))
    assert len(train) + len(test) == 60
    # The same text is never in both.
    assert not {r["text"] for r in train.values()} & {r["text"] for r in test.values()}


def test_lines_before_the_columns_names_may_be_empty(tmp_path):
    (tmp_path / "a.csv").write_text("\n\n" + csv([(f"text {i}", str(i % 2)) for i in range(20)]))
    prepare("text_table", tmp_path / "a.csv", tmp_path / "data")
    assert "a.csv, line 4" in rows(tmp_path / "data", "a", "train") | rows(
        tmp_path / "data", "a", "test"
    )


def test_without_classes_the_command_fills_gaps(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("text\n" + "\n".join(f"text {i}" for i in range(30)))
    prepare("text_table", tmp_path / "a.csv", tmp_path / "data", "--label=")
    out = capsys.readouterr().out
    assert "configs/masked_text.py:mini --config.data.dataset=a" in out
    assert "reads the first 192 bytes of each text, see --max_length" in out
    assert "What was left out" not in out


def test_lines_that_can_t_be_used_are_left_out_and_told(tmp_path, capsys):
    path = tmp_path / "some.csv"
    good = csv([(f"text {i}", str(i % 2)) for i in range(20)])
    path.write_text(good + "one column\n,0\nlast,\n")
    prepare("text_table", path, tmp_path / "data")
    builder = datasets.prepared_builder("some", str(tmp_path / "data"))
    report = (builder.data_path / "report.csv").read_text()
    assert re.search(r'"some.csv, line 22",.*wrong count,False,1 columns; expected 2', report)
    assert re.search(r'"some.csv, line 23",.*empty text,False,nothing in \'text\'', report)
    assert re.search(r'"some.csv, line 24",.*no label,False,nothing in \'label\'', report)
    assert f"What was left out, or is odd: {builder.data_path}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "flags", "message"),
    [
        ("a.csv", "text;label\nx;1\n", [], "no column 'text'.*give --separator"),
        ("a.csv", "txt,label\nx,1\n", [], "no column 'text'; expected one of.*mean 'txt'"),
        ("a.csv", "text,kind\nx,1\n", [], "no column 'label'.*give --label=''"),
        ("a.csv", "", [], "a.csv is empty; expected the columns' names"),
        ("a.csv", "text,text,label\nx,y,1\n", [], "has 2 columns 'text'; expected one"),
        ("a.csv", 'text,label\nx,1\n"y,1\nz,0\n', [], "line 3: a quotation mark is not closed"),
        ("a.csv", b"text,label\nx,1\ncaf\xe9,0\n", [], "line 3: byte 0xe9 .*--encoding=cp1252"),
        ("a.csv", b"text,label\nx,1\ncaf\xe9,0\n", [], "is not in the encoding utf-8; expected"),
        ("a.csv", "text,label\nx,1\n".encode("utf-16"), [], "--encoding=utf-16"),
        ("a.csv", "text,label\nx,1\n", ["--encoding=utf9"], "one that Python knows"),
        ("a.csv", "text,label\n", [], "There are no lines in the files of"),
        ("a.csv", "text,label\n ,1\n", [], "None of the 1 lines.*1 x empty text, such as a.csv, l"),
        ("a.csv", csv([("x", "1")]), [], "None of the 1 texts is to test on"),
        ("a.csv", csv([(f"{i}", f"{i}") for i in range(20)]), [], "20 different values in 20"),
        ("a.json", '[{"text": "x", "label": 1}]', [], "is no table.*ends in .csv, .tsv, .jsonl"),
        ("a.jsonl", '{"text": "x", "label": 1}\n', ["--separator=;"], "expected none, for"),
        ("a.jsonl", '{"text": "x"\n[1]\n', [], "2 x not JSON.*line 1: .*; a.jsonl, line 2"),
        ("a.jsonl", '{"text": 3, "label": 1}\n', [], "1 x no text, such as.*'text' is 3"),
        ("a.jsonl", '{"text": "\\ud800", "label": 1}\n', [], "1 x not UTF-8"),
        ("a.csv", csv([("x", "1")]), ["--test_fraction=2"], "test_fraction=2; expected a number"),
        ("a.csv", csv([("x", "1")]), ["--separator=::"], "separator='::'; expected one char"),
    ],
)
def test_a_table_that_can_t_be_used_says_why(tmp_path, capsys, name, content, flags, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SystemExit):
        prepare("text_table", path, tmp_path / "data", *flags)
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "There are no files .csv, .tsv"),
        (["test.csv"], "no file called train in .*, only .'test'."),
        (["train.csv", "more.csv"], "others are not: more.csv; expected all or none"),
    ],
)
def test_a_folder_that_can_t_be_understood_says_why(tmp_path, capsys, names, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in names:
        (folder / name).write_text(csv(ROWS))
    with pytest.raises(SystemExit):
        prepare("text_table", folder, tmp_path / "data")
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_a_class_to_test_on_alone_is_refused(tmp_path, capsys):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "train.csv").write_text(csv(ROWS))
    (folder / "test.csv").write_text(csv([("x", "new")]))
    with pytest.raises(SystemExit):
        prepare("text_table", folder, tmp_path / "data")
    assert "Classes ['new'] have texts in the test split only" in capsys.readouterr().err


def test_one_class_is_told(tmp_path, capsys):
    path = tmp_path / "one.csv"
    path.write_text(csv([(f"text {i}", "same") for i in range(20)]))
    prepare("text_table", path, tmp_path / "data")
    assert "There is one class, same" in capsys.readouterr().out


def test_files_are_cut_between_words(tmp_path):
    folder = tmp_path / "Books"
    folder.mkdir()
    words = [f"wörd{i}" for i in range(400)]
    (folder / "one.txt").write_text(" ".join(words), encoding="utf-8")
    (folder / "empty.txt").write_text("\n")
    prepare("text_files", folder, tmp_path / "data", "--max_length=64")
    found = {}
    for split in ("train", "test"):
        found |= rows(tmp_path / "data", "books", split)
    texts = [found[f"one.txt, part {i}"]["text"].decode() for i in range(1, len(found) + 1)]
    assert " ".join(texts).split() == words
    assert max(len(text.encode()) for text in texts) <= 64
    assert "test" in datasets.prepared_builder("books", str(tmp_path / "data")).info.splits


def test_each_line_may_be_an_example(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"line {i}\n" for i in range(30)) + "\n")
    prepare("text_files", path, tmp_path / "data", "--lines")
    found = rows(tmp_path / "data", "lines", "train") | rows(tmp_path / "data", "lines", "test")
    assert len(found) == 30
    assert found["lines.txt, line 7"]["text"] == b"line 6"


@pytest.mark.parametrize("max_length", [1, 2, 3, 7])
def test_pieces_hold_all_letters_whatever_their_length(max_length):
    value = "aé 漢字漢字 b"
    got = list(text_files.pieces(value, max_length))
    assert all(0 < len(piece.encode()) <= max_length for piece in got)
    if max_length >= 3:
        assert "".join(got).replace(" ", "") == value.replace(" ", "")
