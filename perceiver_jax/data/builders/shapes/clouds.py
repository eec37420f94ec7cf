"""Arrays of points: what every form of file has in common, the checks among it."""

import hashlib
import math
import pathlib

import numpy as np

from perceiver_jax.data import errors, npy

NUM_POINTS = 2_048  # Of meshes, which have no number of their own. Paper: "about 2000".
MAX_BYTES = 256 * 2**20  # Of one file.
_ROUNDING = 2**-15  # Of coordinates in [-1, 1] that were stored in 16 bits.


def seed_of(name: str) -> int:
    """Returns a number that depends on a shape's name alone, and so do the points that it gets."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def stored(points: np.ndarray, z_up: bool) -> np.ndarray:
    """Returns [P, 3] points as they are stored: centred, in the unit ball, y up, float32.

    Args:
        points: of a file, in its units.
        z_up: whether the file's z axis points up, and is turned.

    Raises:
        errors.BadDataError: as of `normalise`.
    """
    if z_up:
        points = np.stack([points[:, 0], points[:, 2], -points[:, 1]], axis=1)
    return normalise(points)


def normalise(points: np.ndarray) -> np.ndarray:
    """Centres [P, 3] points at their mean and scales them into the unit ball, float32.

    Points that are so already, but for what 16 bits round, stay as they are: those of a data set,
    written to a file, are what they were.

    Raises:
        errors.BadDataError: a coordinate is not a finite number, or all points are the same.
    """
    points = points.astype(np.float64)
    check_finite(points)
    mean = points.mean(axis=0)
    centred = points - mean
    radius = np.sqrt((centred**2).sum(axis=1).max())
    if not 0 < radius < math.inf:
        raise errors.BadDataError(
            "no extent", f"the distance from the mean to a point is at most {radius}"
        )
    if max(np.abs(mean).max(), abs(radius - 1)) <= _ROUNDING:
        return points.astype(np.float32)
    return (centred / radius).astype(np.float32)


def choose(points: np.ndarray, num_points: int, seed: int) -> np.ndarray:
    """Takes a random subset of [P, 3] points; all of them in their order if there are no more."""
    if len(points) <= num_points:
        return points
    return points[np.random.default_rng(seed).choice(len(points), num_points, replace=False)]


def check_count(points: np.ndarray, num_points: int) -> None:
    """Raises an errors.BadDataError if there are fewer points than that."""
    if len(points) < num_points:
        raise errors.BadDataError(
            "too few points", f"{len(points)} points; expected {num_points} or more"
        )


def read_cloud(path: pathlib.Path, num_points: int, seed: int) -> np.ndarray:
    """Reads a subset of a `.npy` cloud.

    Raises:
        errors.BadDataError: it is too large, no `.npy` file, or as of `subset`.
    """
    check_size(path.stat().st_size)
    # Mapped, so that an array that claims more than the file holds is refused at once.
    return subset(npy.load(path, mmap_mode="r"), num_points, seed)


def subset(points: np.ndarray, num_points: int, seed: int) -> np.ndarray:
    """Returns what `choose` takes of an array of shape [P, 3 or more].

    Raises:
        errors.BadDataError: it is no such array of finite numbers.
    """
    if not isinstance(points, np.ndarray) or points.ndim != 2 or points.shape[1] < 3:
        found = getattr(points, "shape", "several arrays")
        raise errors.BadDataError("wrong shape", f"{found}; expected [points, 3 or more]")
    if points.dtype.kind not in "fiu":
        raise errors.BadDataError("wrong type", f"{points.dtype}; expected numbers")
    check_finite(points[:, :3])
    return choose(points[:, :3], num_points, seed)


def check_finite(points: np.ndarray) -> None:
    """Raises an errors.BadDataError unless all coordinates of [P, 3] points are finite."""
    bad = len(points) - int(np.isfinite(points).all(axis=1).sum())
    if bad:
        raise errors.BadDataError(
            "not finite", f"{bad} of {len(points)} points are NaN or infinite"
        )


def check_size(num_bytes: int) -> None:
    """Raises an errors.BadDataError if a file has more than `MAX_BYTES`."""
    if num_bytes > MAX_BYTES:
        raise errors.BadDataError(
            "too large", f"{num_bytes:,} bytes; expected {MAX_BYTES:,} at the most"
        )
