"""What became of every clip: counted by cause, as JSON, as CSV and as a table."""

import collections
from collections.abc import Iterable, Mapping
import csv
import io
import json
import pathlib
from typing import Any, NamedTuple

import rich.box
import rich.console
import rich.table

# What is odd about a clip, and what becomes of it. Clips that are left out have one cause, others
# may have several.
LEFT_OUT = {
    "missing": "listed, but there is no file of it",
    "unlisted": "a file that matches no line of the lists, or is in no class's folder",
    "duplicate": "another file, or line, of a clip that is taken already",
    "undecodable": "neither picture nor sound can be decoded",
    "truncated": "the file ends before the end that it claims",
    "crashed": "the decoder crashed or hung",
    "refused": "claims too large a picture or other impossible things",
}
KEPT = {
    "no_picture": "sound alone",
    "no_sound": "picture alone",
    "silent": "sound below -80 dB: taken as without sound; left out if there is no picture either",
    "long": "longer than its segment, or than 60 s: the beginning is taken",
    "short": "shorter than a window of 1.28 s; filled up in training",
    "opposite_channels": "channels that cancel each other: one is taken, not their mean",
    "beyond_full_scale": "sound far beyond full scale: made quieter, to full scale",
    "damaged": "some packets could not be decoded",
    "variable_frame_rate": "shown at its times in 25 frames a second",
    "unusual_sample_rate": "resampled to 48 kHz",
}
MEANINGS = LEFT_OUT | KEPT
OTHER_KIND = "another kind of file"  # Begins the detail of files whose suffix is not taken.
COLUMNS = ("listed", "kept", "with_picture", "with_sound")


class Row(NamedTuple):
    """A cause of a clip.

    Attributes:
        group: of the clip; '' if it belongs to none.
        clip: name of the clip.
        file: path of its file in the source folder; '' if there is none.
        cause: a key of `LEFT_OUT` or `KEPT`.
        kept: whether the clip is in the data set.
        detail: such as the decoder's message.
    """

    group: str
    clip: str
    file: str
    cause: str
    kept: bool
    detail: str


def write(
    directory: pathlib.Path, counts: Mapping[str, Mapping[str, int]], rows: Iterable[Row]
) -> str:
    """Writes `report.json` and `report.txt`, numbers by split and cause; `report.csv`, all rows.

    Args:
        directory: where to.
        counts: of each split, the numbers in `COLUMNS`.
        rows: all of them.

    Returns:
        What `report.txt` holds.
    """
    rows = sorted(rows)
    causes = {
        cause: {"meaning": meaning, "kept": 0, "left_out": 0} for cause, meaning in MEANINGS.items()
    }
    for row in rows:
        causes[row.cause]["kept" if row.kept else "left_out"] += 1
    others = collections.Counter(
        pathlib.PurePath(row.file).suffix.lower() or "(no suffix)"
        for row in rows
        if row.cause == "unlisted" and row.detail.startswith(OTHER_KIND)
    )
    whole = {"splits": counts, "causes": causes, "other_suffixes": dict(others.most_common())}
    (directory / "report.json").write_text(json.dumps(whole, indent=2) + "\n")
    names = {"encoding": "utf-8", "errors": "backslashreplace"}  # They may be in any encoding.
    with open(directory / "report.csv", "w", newline="", **names) as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(rows)
    text = _tables(counts, causes)
    if others:
        told = ", ".join(f"{number:,} {suffix}" for suffix, number in others.most_common())
        text += f"Files of other kinds, which are not taken: {told}\n"
    (directory / "report.txt").write_text(text, **names)
    return text


def _tables(
    counts: Mapping[str, Mapping[str, int]], causes: Mapping[str, Mapping[str, Any]]
) -> str:
    splits = rich.table.Table("clips", box=rich.box.ASCII2)
    for column in COLUMNS:
        splits.add_column(column.replace("_", " "), justify="right")
    for split, numbers in counts.items():
        splits.add_row(split, *(f"{numbers[column]:,}" for column in COLUMNS))
    found = rich.table.Table("cause", "kept", "left out", "meaning", box=rich.box.ASCII2)
    for cause, numbers in causes.items():
        if numbers["kept"] or numbers["left_out"]:
            kept, left_out = f"{numbers['kept']:,}", f"{numbers['left_out']:,}"
            found.add_row(cause.replace("_", " "), kept, left_out, numbers["meaning"])
    with io.StringIO() as text:
        console = rich.console.Console(file=text, width=100)
        console.print(splits, *([found] if found.rows else []))
        return text.getvalue()
