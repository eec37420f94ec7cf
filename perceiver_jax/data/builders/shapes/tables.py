"""Files of many clouds, HDF5 and .npz -> arrays, unless they claim more than they can hold."""

import math
import pathlib
import zipfile

import numpy as np

from perceiver_jax import config
from perceiver_jax.data import errors
from perceiver_jax.data.builders.shapes import clouds

_MAX_EXPANSION = 8  # Coordinates of real shapes compress to no less than a half.


def read_hdf5(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads the data sets `data`, numbers [n, P, 3], and `label`, integers [n] or [n, 1].

    Raises:
        errors.BadDataError: they are not there, of another shape, or claim more than the file
            can hold.
    """
    import h5py

    clouds.check_size(path.stat().st_size)
    arrays = []
    with h5py.File(path, "r") as file:
        for name in ("data", "label"):
            link = file.get(name, getlink=True)
            array = file.get(name) if isinstance(link, h5py.HardLink) else None
            if not isinstance(array, h5py.Dataset) or array.external or array.is_virtual:
                raise errors.BadDataError("unreadable", f"no data set {name!r} inside the file")
            if array.dtype.kind not in "fiu" or array.shape is None:
                raise errors.BadDataError(
                    "wrong type", f"{name!r} is {array.dtype}; expected numbers"
                )
            items = max(math.prod(array.shape), math.prod(array.chunks or ()))
            _check_expansion(name, items * array.dtype.itemsize, path)
            arrays.append(array[()])
    return _checked_table(*arrays)


def read_npz(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Reads `points`, numbers [n, P, 3], `label`, integers [n], and `class_names`.

    Raises:
        errors.BadDataError: they are not there, of another shape, or claim more than the file
            can hold.
    """
    clouds.check_size(path.stat().st_size)
    arrays = []
    with zipfile.ZipFile(path) as archive:
        for name in ("points", "label", "class_names"):
            shape, dtype = _npy_header(archive, name)
            _check_expansion(name, math.prod(shape) * dtype.itemsize, path)
            with archive.open(f"{name}.npy") as file:
                arrays.append(np.lib.format.read_array(file, allow_pickle=False))
    points, labels, class_names = arrays
    if class_names.dtype.kind != "U" or class_names.ndim != 1:
        raise errors.BadDataError(
            "wrong type", f"'class_names' is {class_names.dtype}; expected text"
        )
    return *_checked_table(points, labels), class_names.tolist()


def npz_num_points(path: pathlib.Path) -> int:
    """Returns the number of points P of the clouds that an `.npz` file claims to hold.

    Raises:
        UserError: it is no such file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            shape, _ = _npy_header(archive, "points")
            return shape[1]
    except (zipfile.BadZipFile, KeyError, IndexError, ValueError) as error:
        raise config.UserError(
            f"Got {path}, which can't be read ({error}); expected the arrays points [n, P, 3], "
            "label [n] and class_names. Replace the file."
        ) from error


def _npy_header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(f"{name}.npy") as file:
        if np.lib.format.read_magic(file) == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype


def _check_expansion(name: str, num_bytes: int, path: pathlib.Path) -> None:
    size = path.stat().st_size
    if num_bytes > _MAX_EXPANSION * size:
        found = f"{name!r} claims {num_bytes:,} bytes in a file of {size:,}"
        raise errors.BadDataError("incomplete", found)


def _checked_table(points: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if points.dtype.kind not in "fiu" or labels.dtype.kind not in "iu":
        raise errors.BadDataError("wrong type", f"points {points.dtype}, labels {labels.dtype}")
    if points.ndim != 3 or points.shape[2] != 3 or labels.size != len(points):
        raise errors.BadDataError("wrong shape", f"points {points.shape}, labels {labels.shape}")
    return points, labels.reshape(-1)
