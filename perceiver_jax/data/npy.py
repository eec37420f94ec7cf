"""Files `.npy` of a user: arrays of numbers, and nothing that is executed."""

import contextlib
import io
import pathlib
import re
from typing import Any

import numpy as np

from perceiver_jax.data import errors

BEGIN = b"\x93NUMPY"


@errors.of_bad_data()
def load(file: pathlib.Path | io.BytesIO, mmap_mode: Any = None) -> np.ndarray:
    """Returns the array of a `.npy` file; pickled objects are never unpacked.

    Raises:
        errors.BadDataError: it is none of numbers, or can't be read.
    """
    opened = contextlib.nullcontext(file) if isinstance(file, io.BytesIO) else file.open("rb")
    with opened as stream:
        begin = stream.read(len(BEGIN))
        stream.seek(0)
    if begin != BEGIN:  # Which NumPy takes for a pickle, and advises to load.
        raise errors.BadDataError("no .npy file of numbers", f"it begins with {begin!r}")
    try:
        return np.load(file, mmap_mode, allow_pickle=False)
    except ValueError as error:
        if not re.search("pickle|objects", str(error)):
            raise
        raise errors.BadDataError("no .npy file of numbers", "Python objects") from error
