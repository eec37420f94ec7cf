"""Texts in a table: CSV, TSV or JSON Lines, with a class in another column or without."""

import argparse
from collections.abc import Iterator
import csv
import io
import itertools
import json
import pathlib
from typing import Any

from perceiver_jax import config
from perceiver_jax.data.builders import class_folders, report, texts

_JSON = (".jsonl", ".ndjson")
SUFFIXES = (".csv", ".tsv", *_JSON)
_MOST_PER_CLASS = 2  # With fewer texts a class than this, on average, it is no column of classes.
_FEW = 10  # Texts that may all be of different classes.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this kind."""
    texts.add_arguments(parser, "a .csv, .tsv or .jsonl file, or a folder of train and test files")
    parser.add_argument("--text", default="text", help="column of the texts (default: text)")
    parser.add_argument(
        "--label", default="label", help="column of the classes; '' if there are none"
    )
    parser.add_argument(
        "--separator", help="of a CSV's columns; default: a comma, or of .tsv a tab"
    )


def from_flags(flags: argparse.Namespace, data_dir: pathlib.Path) -> tuple[texts.TextBuilder, None]:
    """Returns the builder, and nothing that TFDS has to download.

    Raises:
        UserError: a file can't be read, or lacks a column, or nothing in it can be used.
    """
    name = class_folders.choose_name(flags)
    files, skipped = texts.find(flags.source, SUFFIXES), []
    suffixes = {path.suffix.lower() for paths in files.values() for path in paths}
    if suffixes - set(SUFFIXES):
        raise config.UserError(
            f"{flags.source} is no table that can be read; expected a file that ends in "
            f"{', '.join(SUFFIXES)}. Convert it, or rename it if it is one."
        )
    if flags.separator and not suffixes - set(_JSON):
        raise config.UserError(
            f"Got --separator={flags.separator!r}; expected none, for {flags.source} is "
            "JSON Lines, which have none. Drop it."
        )
    splits = {
        split: [text for path in paths for text in _read(path, flags, skipped)]
        for split, paths in files.items()
    }
    for split, found in splits.items():
        report.check_any(len(found), "lines", f"the files of {split or flags.source}", skipped)
    every = [text for found in splits.values() for text in found]
    classes = {text.label for text in every}
    if len(every) > _FEW and len(classes) * _MOST_PER_CLASS > len(every):
        some = ", ".join(map(repr, sorted(classes)[:3]))
        raise config.UserError(
            f"The column {flags.label!r} has {len(classes)} different values in {len(every)} "
            f"lines, such as {some}; expected classes, which repeat. Name another with --label, "
            "or none: --label=''"
        )
    splits = texts.divide(splits, flags.test_fraction)
    return texts.TextBuilder(name, data_dir, splits, skipped), None


def _read(
    path: pathlib.Path, flags: argparse.Namespace, skipped: list[report.Row]
) -> Iterator[texts.Text]:
    """Yields the texts of a file; what can't be used is told, by its line."""
    rows = _json_lines if path.suffix.lower() in _JSON else _table
    shown = texts.shown(path, flags.source)
    for line, row in rows(path, flags):
        place = f"{shown}, line {line}"
        problem = row if isinstance(row, tuple) else _problem(row, flags)
        if problem:
            skipped.append(report.left_out(place, *problem))
        else:
            label = " ".join(_as_text(row[flags.label]).split()) if flags.label else ""
            yield texts.Text(place, row[flags.text], label)


def _problem(row: Any, flags: argparse.Namespace) -> tuple[str, str] | None:
    """Says what is wrong with a line: cause and detail."""
    text = row.get(flags.text)
    if text is None or (isinstance(text, str) and not text.strip()):
        return "empty text", f"nothing in {flags.text!r}"
    if not isinstance(text, str):
        return "no text", f"{flags.text!r} is {json.dumps(text)[:60]}"
    if not report.is_utf8(text):
        return "not UTF-8", f"{flags.text!r} has half of a letter"
    if not flags.label:
        return None
    label = row.get(flags.label)
    if label is None or not _as_text(label).strip():
        return "no label", f"nothing in {flags.label!r}"
    if isinstance(label, list | dict | float):
        return "no label", f"{flags.label!r} is {json.dumps(label)[:60]}; expected one class"
    return None


def _as_text(label: Any) -> str:
    return label if isinstance(label, str) else json.dumps(label)


def _json_lines(path: pathlib.Path, flags: argparse.Namespace) -> Iterator[tuple[int, Any]]:
    known: set[str] = set()
    # Not splitlines(), which also ends lines where JSON's texts may have a mark of their own.
    for line, content in enumerate(texts.read(path, flags.encoding).split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            yield line, ("not JSON", str(error))
            continue
        if not isinstance(row, dict):
            yield line, ("not JSON", f"{content[:60]}; expected an object with {flags.text!r}")
            continue
        known |= row.keys()
        yield line, row
    if known:
        _check_columns(path, sorted(known), flags)


def _table(path: pathlib.Path, flags: argparse.Namespace) -> Iterator[tuple[int, Any]]:
    separator = flags.separator or ("\t" if path.suffix.lower() == ".tsv" else ",")
    separator = "\t" if separator == "\\t" else separator
    if len(separator) != 1:
        raise config.UserError(
            f"Got --separator={separator!r}; expected one character, such as ';'. Correct it."
        )
    csv.field_size_limit(2**31 - 1)  # Texts are long; 2^31 is more than C has on some systems.
    content = texts.read(path, flags.encoding)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator)
    line, begin = 1, 1
    try:
        header = next(filter(None, reader), [])  # Lines before it may be empty.
        _check_columns(path, header, flags)
        begin = reader.line_num + 1
        for row in reader:
            line, begin = begin, reader.line_num + 1
            if len(row) == len(header):
                yield line, dict(zip(header, row, strict=True))
            elif row:
                yield line, ("wrong count", f"{len(row)} columns; expected {len(header)}")
    except csv.Error as error:
        raise config.UserError(
            f"{path}, line {reader.line_num}: {config.said(error)}. Expected a table of "
            f"columns between {separator!r}; correct the line."
        ) from error
    # The reader takes all that follows such a mark for one text.
    last = itertools.islice(io.StringIO(content, newline=""), line - 1, None)
    try:
        for _ in csv.reader(last, delimiter=separator, strict=True):
            pass
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise config.UserError(
                f"{path}, line {line}: a quotation mark is not closed; expected "
                'another one, and "" where a text has one. Correct the line.'
            ) from error


def _check_columns(path: pathlib.Path, columns: list[str], flags: argparse.Namespace) -> None:
    if not columns:
        raise config.UserError(
            f"{path} is empty; expected the columns' names in the first line, and texts below."
        )
    for flag, name in (("text", flags.text), ("label", flags.label)):
        if columns.count(name) > 1:
            raise config.UserError(
                f"{path} has {columns.count(name)} columns {name!r}; expected one. Rename "
                "the others."
            )
        if name and name not in columns:
            hint = config.did_you_mean(name, columns)
            if len(columns) == 1 and any(x in columns[0] for x in ";\t|"):
                hint = " If columns are separated by another character, give --separator."
            elif flag == "label" and not hint:
                hint = " If there are no classes, give --label=''."
            raise config.UserError(
                f"{path} has no column {name!r}; expected one of {columns}. Name it with "
                f"--{flag}.{hint}"
            )
