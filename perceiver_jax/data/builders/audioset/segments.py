"""AudioSet's lists of segments, and the names that downloaders give to their files."""

from collections.abc import Iterable, Iterator
import csv
import pathlib
import re
from typing import NamedTuple

from perceiver_jax import config

# The official file of each group of segments.
LISTS = {
    "balanced_train": "balanced_train_segments.csv",
    "unbalanced_train": "unbalanced_train_segments.csv",
    "eval": "eval_segments.csv",
}
CLASSES = "class_labels_indices.csv"
NUM_CLASSES = 527

_TOLERANCE = 1.0  # Seconds; some downloaders cut off the fraction.

# An ID has 11 characters, `_` and `-` among them; so counting, not splitting, finds its end. With
# and without `Y` can't both fit: after 11 characters comes `_` and a digit, or nothing.
_NAME = re.compile(
    r"Y?(?P<id>[A-Za-z0-9_-]{11})(?:_(?P<start>\d+(?:\.\d+)?)(?:_(?P<end>\d+(?:\.\d+)?))?)?"
)


class Segment(NamedTuple):
    """A line of a list: `start` and `end` in seconds, `labels` as class indices."""

    group: str
    youtube_id: str
    start: float
    end: float
    labels: tuple[int, ...]

    @property
    def name(self) -> str:
        """Unique among segments; start in milliseconds."""
        return f"{self.youtube_id}_{round(self.start * 1000)}"


class Name(NamedTuple):
    """What a file's name says; the numbers are seconds or milliseconds."""

    youtube_id: str
    start: float | None
    end: float | None


def parse_name(stem: str) -> Name | None:
    """Parses a file's name without its suffix; None if it names no AudioSet clip."""
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    start, end = (None if match[part] is None else float(match[part]) for part in ("start", "end"))
    return Name(match["id"], start, end)


def find_segment(name: Name, segments: Iterable[Segment]) -> Segment | None:
    """Returns which of the segments of its recording a file holds.

    Args:
        name: of the file.
        segments: those of its YouTube ID. A file without a start has to be of the only one.
    """
    segments = list(segments)
    if name.start is None:
        return segments[0] if len(segments) == 1 else None
    for unit in (1, 1000):
        for segment in segments:
            end = segment.end if name.end is None else name.end / unit
            if _near(name.start / unit, segment.start) and _near(end, segment.end):
                return segment
    return None


def read_classes(source: pathlib.Path) -> dict[str, str]:
    """Reads the names of the classes by their ID (such as /m/09x0r), in order of their index.

    Raises:
        UserError: the file is not there, or not AudioSet's.
    """
    path = source / CLASSES
    if not path.is_file():
        raise config.UserError(
            f"There is no {path}; expected AudioSet's list of classes. Put AudioSet's CSV files "
            "into the folder of the clips."
        )
    rows = list(csv.DictReader(_lines(path)))
    columns = {"index", "mid", "display_name"}
    if not rows or not columns <= rows[0].keys() or len(rows) != NUM_CLASSES:
        raise config.UserError(
            f"{path} has {len(rows)} lines of {sorted(rows[0]) if rows else 'no columns'}; "
            f"expected {NUM_CLASSES} of {sorted(columns)}. Download it again."
        )
    if {row["index"] for row in rows} != set(map(str, range(NUM_CLASSES))):
        raise config.UserError(
            f"{path} has other indices than 0 to {NUM_CLASSES - 1}. Download it again."
        )
    rows.sort(key=lambda row: int(row["index"]))
    return {row["mid"]: row["display_name"] for row in rows}


def read_lists(source: pathlib.Path, class_ids: Iterable[str]) -> list[Segment]:
    """Reads the lists of segments that are there.

    Raises:
        UserError: none is there, or a line is not as AudioSet's.
    """
    index = {class_id: i for i, class_id in enumerate(class_ids)}
    there = {group: source / name for group, name in LISTS.items() if (source / name).is_file()}
    if not there:
        raise config.UserError(
            f"There is none of {sorted(LISTS.values())} in {source}; expected at least one. Put "
            "AudioSet's CSV files into the folder of the clips."
        )
    segments = []
    for group, path in there.items():
        reader = csv.reader(_lines(path), skipinitialspace=True)
        for row in reader:
            if row and not row[0].startswith("#"):
                segments.append(_parse_line(group, row, index, f"{path}:{reader.line_num}"))
    return segments


def _lines(path: pathlib.Path) -> Iterator[str]:
    """Yields the lines of a list; spreadsheets put a byte-order mark before the first."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        try:
            yield from file
        except UnicodeDecodeError as error:
            raise config.UserError(
                f"{path} can't be read ({error}); expected text in UTF-8. Save it so, or download "
                "it again."
            ) from None


def _parse_line(group: str, row: list[str], index: dict[str, int], where: str) -> Segment:
    try:
        youtube_id, start, end, labels = row
        segment = Segment(
            group,
            youtube_id,
            float(start),
            float(end),
            tuple(sorted({index[label] for label in labels.split(",")})),
        )
    except (ValueError, KeyError) as error:
        raise config.UserError(
            f"{where} reads {row}; expected an ID, start, end, and IDs of known classes "
            f"({type(error).__name__}: {error}). Download the file again."
        ) from None
    if not 0 < segment.end - segment.start <= 60 or not re.fullmatch(r"[\w-]{11}", youtube_id):
        raise config.UserError(
            f"{where} reads {row}; expected an ID of 11 characters and a segment of at most 60 "
            "seconds. Download the file again."
        )
    return segment


def _near(seconds: float, other: float) -> bool:
    return abs(seconds - other) < _TOLERANCE
