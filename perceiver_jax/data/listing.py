"""What a user names -> examples: files, folders, patterns, lists of them, lines of texts, tables.

Nothing is decoded here. What is wrong with one name is an error in the place of its example.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
import contextlib
import csv
import functools
import glob
import json
import os
import pathlib
from typing import Any

import numpy as np

from perceiver_jax import config
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.data import inference, raw
from perceiver_jax.data.fields import array as array_field

LIST = "-"  # Stands for names that come in by standard input.
TABLES = (".jsonl", ".ndjson", ".csv", ".tsv")
_NAME = "name"  # Of an example, in a table.
_BOM = "\ufeff"


def find(
    words: Sequence[str],
    fields: Mapping[str, fields_lib.Field],
    *,
    lines: bool = False,
    stdin: Iterable[bytes] | None = None,
    note: Callable[[str], None] = print,
) -> Iterator[inference.Example]:
    """Returns the examples that a user names, in their order; those of a folder sorted.

    - A file is an example, whatever it is called; of an `.npy` file with one axis more than the
      model's arrays have, each row is.
    - Of a folder, all files below it are of the kinds that the model reads; hidden ones are left
      out. Links are followed.
    - A pattern stands for what it matches: `**` for folders in folders.
    - `-` stands for names, a line each, that come by standard input.
    - Of frames, each file and the next one are a pair; in a folder, those whose names say so are
      (`NAME_img1.png`, `NAME_img2.png`), or else each picture and the next one.

    Args:
        words: what the user names.
        fields: those of the model, by name.
        lines: whether each line of a file is a text; `-` then stands for lines of text.
        stdin: standard input.
        note: is told what is left out.

    Raises:
        config.UserError: the model has inputs of several kinds, of which a file has but one; or
            other ones than texts, and lines are wanted. At once.
    """
    kind, inputs = _kind(fields)
    if kind is None:
        raise config.UserError(
            f"The model reads {inputs}, which no single file has; expected --examples=FILE.jsonl "
            f"with a line for each example, such as {_example(fields)}. Write one."
        )
    if lines and kind != "text":
        raise config.UserError(
            f"Got --lines for a model that reads {inputs}; expected one that reads text. Leave it "
            "out."
        )
    suffixes = _suffixes(kind)
    sources = _sources(words, None if lines else stdin)
    if kind == "frames":
        return _pairs(sources, suffixes, note)
    if lines:
        return _lines(sources, suffixes, stdin, note)
    (field, *_) = (x for x in fields.values() if not x.is_target)
    files = _files(sources, suffixes, note)
    return _rows(files, field) if kind == "array" else (_file(path) for path in files)


def read_table(
    path: pathlib.Path, fields: Mapping[str, fields_lib.Field]
) -> Iterator[inference.Example]:
    """Yields the examples of a table, which has a value for each input of the model.

    JSON Lines (`.jsonl`), an object for each example: `{"image": "a.jpg", "text": "a cat"}`; or
    columns called as the inputs (`.csv`, `.tsv`), two of the same name for the two frames of a
    pair. Values are paths, from the table's own folder; of `text` they are the texts themselves. An
    array may be numbers. What is null or empty is lacking. `name`, if no input is called so, names
    the example; else its line does.

    Args:
        path: of the table.
        fields: those of the model, by name.

    Raises:
        config.UserError: there is no such table, or one of other columns. At once.
    """
    if path.suffix.lower() not in TABLES:
        raise config.UserError(
            f"Got --examples={path}; expected a file {', '.join(TABLES)}. Rename it, or name files "
            "without --examples."
        )
    with raw.refusing(str(path), "table"):
        raw.existing(path)
    inputs = {name: field for name, field in fields.items() if not field.is_target}
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return _of_rows(path, _json_lines(path), inputs)
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    with _opened(path) as file:
        header = next(csv.reader(file, delimiter=separator), [])
    known = [*inputs, *([] if _NAME in inputs else [_NAME])]
    for column in header:
        config.check_known(f"column of {path}", column, known)
    return _of_rows(path, _columns(path, header, separator), inputs)


def _kind(fields: Mapping[str, fields_lib.Field]) -> tuple[str | None, list[str]]:
    """What a file has to hold: a feature, or 'clip'; None: one alone can't. And the inputs."""
    inputs = {name: field for name, field in fields.items() if not field.is_target}
    names = [n for n in inputs if n.removesuffix(array_field.MASK) not in inputs.keys() - {n}]
    features = {inputs[name].feature for name in names}
    if features <= {"audio", "video"}:
        return "clip", names
    (*_, last) = sorted(features)
    shared = len(names) == 1 or (len(features) == 1 and last in ("image", "points"))
    return (last if shared else None), names


def _suffixes(kind: str) -> Collection[str]:
    """Which files of a folder are taken."""
    # Here, for they import TFDS.
    from perceiver_jax.data.builders import image_folder, text_files
    from perceiver_jax.data.builders.clips import builder
    from perceiver_jax.data.builders.shapes import mesh

    known = {
        "array": (".npy",),
        "clip": builder.SUFFIXES,
        "frames": image_folder.SUFFIXES,
        "image": image_folder.SUFFIXES,
        "points": (*mesh.SUFFIXES, ".npy"),
        "text": text_files.SUFFIXES,
    }
    return known.get(kind, ())


def _example(fields: Mapping[str, fields_lib.Field]) -> str:
    """A line of a table."""
    shown = {"array": "x.npy", "audio": "sound.wav", "frames": ["1.png", "2.png"]}
    shown |= {"image": "picture.jpg", "points": "mesh.off", "text": "a text", "video": "film.mp4"}
    _, names = _kind(fields)
    return json.dumps({name: shown.get(fields[name].feature, "...") for name in names})


def _sources(words: Iterable[str], stdin: Iterable[bytes] | None) -> Iterator[str]:
    """Yields paths, and a pattern that matches nothing as it is."""
    for word in words:
        if word == LIST and stdin is not None:
            names = (os.fsdecode(line).removesuffix("\n").removesuffix("\r") for line in stdin)
            yield from _sources((x for x in names if x.strip()), None)
        elif word != LIST and not os.path.lexists(word) and glob.has_magic(word):
            yield from sorted(_matching(word)) or [word]
        else:
            yield word


def _matching(pattern: str) -> Iterator[str]:
    """Yields what a pattern matches; not what `**` finds by a link to a folder above it."""

    @functools.cache
    def leads_up(folder: pathlib.PurePath) -> bool:
        is_link = os.path.islink(folder)
        return is_link and pathlib.Path(os.path.realpath(folder.parent)).is_relative_to(
            os.path.realpath(folder)
        )

    for path in glob.iglob(pattern, recursive=True):
        if "**" not in pattern or not any(map(leads_up, pathlib.PurePath(path).parents)):
            yield path


def _files(
    sources: Iterable[str], suffixes: Collection[str], note: Callable[[str], None]
) -> Iterator[str | inference.Example]:
    """Yields paths of files, and what is in a folder and can't be read."""
    for path in sources:
        if os.path.isdir(path):
            files, refused = _below(path, suffixes, note)
            yield from (os.path.join(path, *parts) for parts in files)
            yield from refused
        else:
            yield path


def _below(
    folder: str, suffixes: Collection[str], note: Callable[[str], None]
) -> tuple[list[tuple[str, ...]], list[inference.Example]]:
    """Returns the files below a folder as parts of their paths, and what of it can't be read."""
    from perceiver_jax.data.builders import report, tree

    found = tree.walk(pathlib.Path(folder), suffixes)
    others = [row.file for row in found.skipped if row.cause == report.OTHER_KIND]
    if others:
        told = tree.count_suffixes([(file,) for file in others])
        note(f"Left out of {folder}, for they are of other kinds: {told}.")
    files, refused = list(found.files), []
    for row in found.skipped:
        parts = tuple(row.file.split("/"))
        is_taken = tree.suffix(parts) in suffixes
        if row.cause == "name is not UTF-8":  # Which nothing here minds.
            files += [parts] * is_taken
        elif row.cause in ("a link to a folder above it", "there twice"):
            note(f"Left out of {folder}: {row.file}, {row.cause}.")
        elif row.cause != report.OTHER_KIND and (is_taken or row.cause == "can't be read"):
            path = os.path.join(folder, row.file)
            why = f"{row.cause}: {row.detail}" if row.detail else row.cause
            error = config.UserError(
                f"Can't read {path}: {config.said(why)}. Correct it, or leave it out."
            )
            refused.append(inference.Example(path, error))
    if not files and not refused:
        note(f"There are no files {', '.join(sorted(suffixes))} in {folder}.")
    return sorted(files), refused


def _file(path: str | inference.Example) -> inference.Example:
    if isinstance(path, inference.Example):
        return path
    if not os.path.lexists(path) and glob.has_magic(path):
        refused = config.MissingFileError(
            f"Nothing is called, or matches, {path}; expected files. Correct it."
        )
        return inference.Example(path, refused)
    return inference.Example(path, pathlib.Path(path))


def _pairs(
    sources: Iterable[str], suffixes: Collection[str], note: Callable[[str], None]
) -> Iterator[inference.Example]:
    from perceiver_jax.data.builders import flow_folder

    before, is_paired = "", True
    for path in sources:
        if os.path.isdir(path):
            yield from _alone(before, is_paired)
            before, is_paired = "", True
            files, refused = _below(path, suffixes, note)
            for pair in flow_folder.pair_up(files):
                yield _pair(*(os.path.join(path, *parts) for parts in pair))
            yield from refused
        else:
            if before:
                yield _pair(before, path)
            before, is_paired = path, bool(before)
    yield from _alone(before, is_paired)


def _pair(first: str, second: str) -> inference.Example:
    return inference.Example(f"{first} -> {second}", (pathlib.Path(first), pathlib.Path(second)))


def _alone(path: str, is_paired: bool) -> Iterator[inference.Example]:
    if not is_paired:
        yield inference.Example(
            path, config.UserError(f"Got {path} alone; expected a pair of pictures. Add the other.")
        )


def _rows(
    files: Iterable[str | inference.Example], field: array_field.Array
) -> Iterator[inference.Example]:
    """Yields what is in files of arrays: an example, or one in each row."""
    for path in files:
        shape = ()
        if isinstance(path, str):
            with contextlib.suppress(Exception):  # Is said when it is read.
                shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
        if len(shape) == len(field.shape) + 1 and shape[1:] == field.shape:
            for i in range(shape[0]):
                yield inference.Example(f"{path}[{i}]", raw.Row(path, i))
        else:
            yield _file(path)


def _lines(
    sources: Iterable[str],
    suffixes: Collection[str],
    stdin: Iterable[bytes] | None,
    note: Callable[[str], None],
) -> Iterator[inference.Example]:
    for path in _files(sources, suffixes, note):
        if isinstance(path, inference.Example):
            yield path
            continue
        if path == LIST and stdin is not None:
            yield from _texts(LIST, stdin)
            continue
        try:
            with raw.refusing(path, "text"):
                file = open(raw.existing(path), "rb")
        except config.UserError as error:
            yield inference.Example(path, error)
            continue
        with file:
            yield from _texts(path, file)


def _texts(path: str, file: Iterable[bytes]) -> Iterator[inference.Example]:
    """Yields the lines of a file that have letters; as `prepare_data text_files --lines` does."""
    for number, line in enumerate(file, start=1):
        text = line.decode(errors="surrogateescape").removeprefix(_BOM).strip()
        if text:
            yield inference.Example(f"{path}:{number}", text)


def _opened(path: pathlib.Path) -> Any:
    return open(path, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _json_lines(path: pathlib.Path) -> Iterator[tuple[int, Any]]:
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                row = config.UserError(
                    f"{path}:{number} is no JSON: {config.said(error)}. Correct it."
                )
            if not isinstance(row, dict | config.UserError):
                row = config.UserError(
                    f"{path}:{number} is {line[:60].strip()}; expected an object with a value for "
                    "each input. Correct it."
                )
            yield number, row


def _columns(
    path: pathlib.Path, header: Sequence[str], separator: str
) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(2**31 - 1)  # Texts are long; 2^31 is more than C has on some systems.
    with _opened(path) as file:
        reader = csv.reader(file, delimiter=separator)
        next(reader, None)
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:  # Where the next row begins is not known.
                problem = f"{path}:{number}: {config.said(error)}. Correct it."
                yield number, config.UserError(problem)
                return
            if len(cells) == len(header):
                row: dict[str, Any] = {}
                for column, cell in zip(header, cells, strict=True):
                    pair = header.count(column) > 1
                    row[column] = [*row.get(column, []), cell] if pair else cell
                yield number, row
            elif cells:
                got = f"{path}:{number} has {len(cells)} columns"
                yield number, config.UserError(f"{got}; expected {len(header)}. Correct it.")


def _of_rows(
    path: pathlib.Path,
    rows: Iterable[tuple[int, Any]],
    inputs: Mapping[str, fields_lib.Field],
) -> Iterator[inference.Example]:
    for number, row in rows:
        name = f"{path}:{number}"
        if isinstance(row, config.UserError):
            yield inference.Example(name, row)
            continue
        if _NAME not in inputs:
            name = str(row.pop(_NAME, "") or name)
        yield inference.Example(
            name,
            {
                key: _value(value, getattr(inputs.get(key), "feature", ""), path.parent)
                for key, value in row.items()
                if value is not None and value != ""
            },
        )


def _value(given: Any, feature: str, folder: pathlib.Path) -> Any:
    """A value of a table as `prepare` takes it."""
    if feature == "text":
        return given
    if feature == "frames" and isinstance(given, list):
        return tuple(_value(one, "", folder) for one in given)
    return folder / given if isinstance(given, str) else given
