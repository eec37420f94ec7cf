"""Errors that say what was got, what is allowed, and what to do."""

from collections.abc import Iterable
import difflib


class DatasetNotFoundError(FileNotFoundError):
    """A data set that can't be made from what is installed is not on disk."""


def check_known(what: str, name: str, known: Iterable[str]) -> None:
    """Raises a ValueError that lists what is known and suggests the nearest, if `name` is not."""
    known = sorted(known)
    if name in known:
        return
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"Unknown {what} {name!r}; expected one of {known}.{hint}")
