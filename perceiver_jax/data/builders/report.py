"""What a build kept and what it left out, and why: report.json and report.txt beside the data."""

import collections
from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib

NAME = "report.json"


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A file that was left out.

    Attributes:
        name: of the file, relative to the source.
        cause: one of few, such as 'truncated': what is counted.
        detail: what the library said.
    """

    name: str
    cause: str
    detail: str = ""


def write(directory: pathlib.Path, kept: Mapping[str, int], skipped: Sequence[Skipped]) -> None:
    """Writes report.json, for programs, and report.txt, for people.

    Args:
        directory: of the data set.
        kept: number of examples of each split.
        skipped: all that was left out.
    """
    whole = {
        "kept": dict(kept),
        "skipped": count_causes(skipped),
        "files": [dataclasses.asdict(one) for one in skipped],
    }
    (directory / NAME).write_text(json.dumps(whole, indent=2) + "\n")
    lines = [table(kept, count_causes(skipped)), ""]
    lines += [f"{one.name}: {one.cause}: {one.detail}".removesuffix(": ") for one in skipped]
    (directory / NAME).with_suffix(".txt").write_text("\n".join(lines).rstrip() + "\n")


def count_causes(skipped: Sequence[Skipped]) -> dict[str, int]:
    """Returns how often each cause occurs, the most frequent first."""
    return dict(collections.Counter(one.cause for one in skipped).most_common())


def table(kept: Mapping[str, int], causes: Mapping[str, int]) -> str:
    """Returns what `write` counts as lines of text.

    Args:
        kept: number of examples of each split.
        causes: number of files by why they were left out.
    """
    rows = [(f"kept, {split}", count) for split, count in kept.items()]
    rows += [(f"left out, {cause}", count) for cause, count in causes.items()] or [("left out", 0)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}} {count:>12,}" for name, count in rows)
