"""What a build kept and what it left out, and why: report.json and report.txt beside the data."""

import collections
from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import json
import pathlib
import re

NAME = "report.json"
OTHER_KIND = "another kind of file"  # The detail is the suffix.

_SHOWN = 3  # Of what was left out, in a message.


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
    files = [
        {field: printable(text) for field, text in dataclasses.asdict(one).items()}
        for one in skipped
    ]
    whole = {
        "kept": dict(kept),
        "skipped": count_causes(skipped),
        "other_suffixes": _count_suffixes(skipped),
        "files": files,
    }
    (directory / NAME).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    lines = [table(kept, skipped), ""]
    lines += [f"{one['name']}: {one['cause']}: {one['detail']}".removesuffix(": ") for one in files]
    text = "\n".join(lines).rstrip() + "\n"
    (directory / NAME).with_suffix(".txt").write_text(text, encoding="utf-8")


def count_causes(skipped: Iterable[Skipped]) -> dict[str, int]:
    """Returns how often each cause occurs, the most frequent first."""
    return dict(collections.Counter(one.cause for one in skipped).most_common())


def table(kept: Mapping[str, int], skipped: Sequence[Skipped]) -> str:
    """Returns what `write` counts as lines of text.

    Args:
        kept: number of examples of each split.
        skipped: all that was left out.
    """
    rows = [(f"kept, {split}", count) for split, count in kept.items()]
    for cause, count in count_causes(skipped).items():
        rows.append((f"left out, {cause}", count))
        if cause == OTHER_KIND:
            rows += [(f"  {suffix}", n) for suffix, n in _count_suffixes(skipped).items()]
    if not skipped:
        rows.append(("left out", 0))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{printable(name):{width}} {count:>12,}" for name, count in rows)


def check_any(num_kept: int, what: str, where: str, left_out: Sequence[Skipped]) -> None:
    """Refuses a set, or a split of one, of which all was left out.

    Args:
        num_kept: number of examples.
        what: they are made of, such as 'pictures'.
        where: what there is none in, such as 'the test split'.
        left_out: what is not kept.

    Raises:
        ValueError: nothing is kept; it says what of, how often, and the first of them.
    """
    if num_kept:
        return
    counts = ", ".join(f"{cause} ({n:,})" for cause, n in count_causes(left_out).items())
    first = "; ".join(
        f"{one.name}: {one.cause}: {one.detail}".removesuffix(": ") for one in left_out[:_SHOWN]
    )
    raise ValueError(
        printable(
            f"None of the {len(left_out):,} {what} of {where} can be used: {counts}. "
            f"The first are: {first}. Correct the files or the settings."
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


def _count_suffixes(skipped: Iterable[Skipped]) -> dict[str, int]:
    others = (one.detail for one in skipped if one.cause == OTHER_KIND)
    return dict(collections.Counter(others).most_common())
