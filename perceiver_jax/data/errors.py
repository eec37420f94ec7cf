"""What data sets and files can be refused for."""

from collections.abc import Iterator
import contextlib
import pathlib
import traceback

from perceiver_jax import config

_PACKAGE = pathlib.Path(__file__).parents[1]


class DatasetNotFoundError(config.MissingFileError):
    """A data set that can't be made from what is installed is not on disk."""


class BadDataError(config.UserError):
    """A record or a file that can't be decoded.

    Attributes:
        cause: one of few, to be counted, such as 'truncated'.
        detail: what the decoder said.
    """

    def __init__(self, cause: str, detail: str = ""):
        """Keeps cause and detail."""
        self.cause = cause
        self.detail = detail.rstrip(". \n")
        super().__init__(f"{cause}: {self.detail}" if detail else cause)

    def __reduce__(self):
        """Lets it travel between processes."""
        return type(self), (self.cause, self.detail)


@contextlib.contextmanager
def of_bad_data() -> Iterator[None]:
    """Makes a BadDataError of what decoders raise, which is whatever they stumble over.

    Raises:
        BadDataError: a value can't be decoded.
        config.UserError: what else the user has to change, as it was raised.
    """
    try:
        yield
    except (config.UserError, MemoryError):
        raise
    except Exception as error:
        if means_broken_program(error):
            raise
        raise BadDataError(type(error).__name__, str(error)) from error


class AugmentError(config.UserError):
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
