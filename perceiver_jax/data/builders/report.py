"""What a build kept and what it left out, and why: as JSON, as CSV and as a table."""

import collections
from collections.abc import Iterable, Mapping, Sequence
import csv
import io
import json
import pathlib
import re
from typing import NamedTuple

import rich.box
import rich.console
import rich.table

from perceiver_jax import config

CSV = "report.csv"
OTHER_KIND = "another kind of file"  # The detail is the suffix.
# Of clips, where a word alone does not say it. What is left out has one cause, the rest may have
# several.
MEANINGS = {
    OTHER_KIND: "its suffix is none of those that are taken",
    "missing": "listed, but there is no file of it",
    "unlisted": "a file that matches no line of the lists",
    "duplicate": "another file, or line, of a clip that is taken already",
    "undecodable": "neither video nor audio can be decoded",
    "truncated": "the file ends before the end that it claims",
    "crashed": "the process that read it crashed",
    "refused": "claims too large a frame or other impossible things",
    "no_video": "audio alone",
    "no_audio": "video alone",
    "silent": "audio below -80 dB: taken as without; left out if there is no video either",
    "long": "longer than its segment, or than 60 s: the beginning is taken",
    "short": "shorter than a window of 1.28 s; filled up in training",
    "opposite_channels": "channels that cancel each other: one is taken, not their mean",
    "beyond_full_scale": "audio far beyond full scale: made quieter, to full scale",
    "damaged": "some of it could not be decoded",
    "variable_frame_rate": "shown at its times in 25 frames a second",
    "unusual_sample_rate": "resampled to 48 kHz",
}

_SHOWN = 3  # Of what was left out for one cause, in a message.


class Row(NamedTuple):
    """A cause of an example, or of a file that is none.

    Attributes:
        group: list of examples that it is in; '' if it belongs to none.
        name: of the example.
        file: its path in the source folder; '' if there is none.
        cause: one of few, to be counted, such as 'truncated'.
        kept: whether the example is in the data set.
        detail: such as the decoder's message.
    """

    group: str
    name: str
    file: str
    cause: str
    kept: bool
    detail: str


def left_out(file: str, cause: str, detail: str = "") -> Row:
    """Returns the row of a file that is not taken."""
    return Row("", file, file, cause, False, detail)


def write(
    directory: pathlib.Path, counts: Mapping[str, Mapping[str, int]], rows: Iterable[Row]
) -> None:
    """Writes `report.json` and `report.txt`, numbers by split and cause; `report.csv`, all rows.

    What `report.txt` holds is printed.

    Args:
        directory: of the data set.
        counts: of each split the same numbers, by what they count.
        rows: all of them.
    """
    rows = sorted(Row(*(x if isinstance(x, bool) else printable(x) for x in row)) for row in rows)
    causes: dict[str, dict[str, int]] = {}
    for cause, kept in ((row.cause, row.kept) for row in rows):
        causes.setdefault(cause, {"kept": 0, "left_out": 0})["kept" if kept else "left_out"] += 1
    others = collections.Counter(row.detail for row in rows if row.cause == OTHER_KIND)
    whole = {
        "splits": counts,
        "causes": {
            cause: {"meaning": MEANINGS.get(cause, "")} | numbers
            for cause, numbers in causes.items()
        },
        "other_suffixes": dict(others.most_common()),
    }
    (directory / "report.json").write_text(json.dumps(whole, indent=2) + "\n")
    with open(directory / CSV, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(rows)
    text = _tables(counts, causes)
    if others:
        told = ", ".join(f"{number:,} {suffix}" for suffix, number in others.most_common())
        text += f"Files of other kinds, which are not taken: {told}\n"
    (directory / "report.txt").write_text(text, encoding="utf-8")
    rich.console.Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def check_any(num_kept: int, what: str, where: str, rows: Sequence[Row]) -> None:
    """Refuses a set, or a split of one, of which all was left out.

    Args:
        num_kept: number of examples.
        what: they are made of, such as 'images'.
        where: what there is none in, such as 'the test split'.
        rows: of what was found in it.

    Raises:
        UserError: nothing is kept; it says for which causes, how often, and the first of each.
    """
    if num_kept:
        return
    by_cause = collections.defaultdict(list)
    for row in rows:
        if not row.kept:
            by_cause[row.cause].append(f"{row.file}: {row.detail}".removesuffix(": "))
    if not by_cause:
        raise config.UserError(
            printable(f"There are no {what} in {where}; expected one or more. Add some.")
        )
    told = []
    for cause, found in sorted(by_cause.items(), key=lambda item: -len(item[1])):
        meaning = f" ({MEANINGS[cause]})" if cause in MEANINGS else ""
        first = "; ".join(found[:_SHOWN])
        told.append(f"{len(found):,} x {cause.replace('_', ' ')}{meaning}, such as {first}")
    raise config.UserError(
        printable(
            f"None of the {sum(map(len, by_cause.values())):,} {what} of {where} can be used: "
            f"{'. '.join(told)}. Correct the files or the settings."
        )
    )


def is_utf8(name: str) -> bool:
    """Whether a file's name can be stored as text."""
    return name.isascii() or not re.search("[\ud800-\udfff]", name)


def printable(name: str) -> str:
    r"""Returns a name on one line, and bytes in it that are not UTF-8 as `\xe9`."""
    if name.isascii() and name.isprintable():
        return name
    name = re.sub("[\udc80-\udcff]", lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", name)
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda c: repr(c[0])[1:-1], name)


def _tables(
    counts: Mapping[str, Mapping[str, int]], causes: Mapping[str, Mapping[str, int]]
) -> str:
    columns = list(next(iter(counts.values()), ()))
    splits = rich.table.Table("split", box=rich.box.ASCII2)
    for column in columns:
        splits.add_column(column.replace("_", " "), justify="right")
    for split, numbers in counts.items():
        splits.add_row(split, *(f"{numbers[column]:,}" for column in columns))
    found = rich.table.Table("cause", "kept", "left out", "meaning", box=rich.box.ASCII2)
    for cause, numbers in causes.items():
        kept, skipped = f"{numbers['kept']:,}", f"{numbers['left_out']:,}"
        found.add_row(cause.replace("_", " "), kept, skipped, MEANINGS.get(cause, ""))
    with io.StringIO() as text:
        console = rich.console.Console(file=text, width=100)
        console.print(splits, *([found] if found.rows else []), markup=False)
        return text.getvalue()
