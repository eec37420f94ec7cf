"""Errors that say what was got, what is allowed, and what to do."""

from collections.abc import Iterable
import difflib


class DatasetNotFoundError(FileNotFoundError):
    """A data set that can't be made from what is installed is not on disk."""


class BadDataError(ValueError):
    """A record or a file that can't be decoded.

    Attributes:
        cause: one of few, to be counted, such as 'truncated'.
        detail: what the decoder said.
    """

    def __init__(self, cause: str, detail: str = ""):
        """Keeps cause and detail."""
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause = cause
        self.detail = detail

    def __reduce__(self):
        """Lets it travel between processes."""
        return type(self), (self.cause, self.detail)


def check_known(what: str, name: str, known: Iterable[str]) -> None:
    """Raises a ValueError that lists what is known and suggests the nearest, if `name` is not."""
    known = sorted(known)
    if name in known:
        return
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"Unknown {what} {name!r}; expected one of {known}.{hint}")
