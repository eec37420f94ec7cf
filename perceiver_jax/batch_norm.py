"""Batch norm, whose moving averages are leaves of the parameters that no gradient changes."""

from collections.abc import Iterator
import contextlib

AVERAGES = ("mean", "variance")  # Names of the leaves.


@contextlib.contextmanager
def training(axis_name: str | None = None) -> Iterator[None]:
    """Within it batch norms train; `axis_name` is the mapped axis that a batch is divided over."""
    del axis_name
    yield
