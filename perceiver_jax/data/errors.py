"""Errors that say what was got, what is allowed, and what to do."""

from collections.abc import Iterable
import difflib
import pathlib
import traceback

_PACKAGE = pathlib.Path(__file__).parents[1]


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


class AugmentError(ValueError):
    """An `augment` that raised an error, or returned what can't take the example's place."""


def means_broken_program(error: Exception) -> bool:
    """Whether an error tells of a broken program or installation, and not of a bad file.

    A call that a library doesn't take (an argument or a name that its version lacks) fails where it
    is made, so that the traceback ends in this package. Parsers raise the same types, deep inside,
    for damaged files.
    """
    if isinstance(error, ImportError):
        return True
    if not isinstance(error, AttributeError | NameError | TypeError):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return pathlib.Path(frame.f_code.co_filename).is_relative_to(_PACKAGE)


def check_known(what: str, name: str, known: Iterable[str]) -> None:
    """Raises a ValueError that lists what is known and suggests the nearest, if `name` is not."""
    known = sorted(known)
    if name in known:
        return
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"Unknown {what} {name!r}; expected one of {known}.{hint}")
