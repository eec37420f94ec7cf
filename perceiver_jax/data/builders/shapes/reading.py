"""Reads files of shapes, each in a process whose time and memory are limited.

Those processes import this module: it needs neither TFDS nor JAX, which take seconds.
"""

from collections.abc import Iterator, Mapping, Sequence
import functools
import importlib.util
import logging
import math
import pathlib
from typing import Any
import warnings
import zipfile

import numpy as np

from perceiver_jax import config
from perceiver_jax.data import errors
from perceiver_jax.data.builders import isolated
from perceiver_jax.data.builders.shapes import clouds, mesh, tables

Task = Mapping[str, Any]
Result = tuple[str, str, Any]

_TASKS_PER_START = 8  # A process takes a second to start.


def check_packages() -> None:
    """Raises a config.MissingPackageError if a package that reads shapes is not installed."""
    for package in ("trimesh", "h5py"):
        if importlib.util.find_spec(package) is None:
            raise config.MissingPackageError(
                f"Reading shapes needs the package {package}, which is not installed; install "
                "it with: pip install perceiver-haiku[meshes]"
            )


def read_all(tasks: Sequence[Task], **limits: Any) -> Iterator[list[Result]]:
    """Yields what `read` returns of each task, in their order; in as many processes as cores.

    Args:
        tasks: see `read`.
        **limits: those of `isolated.run_all`.
    """
    num_processes = max(1, min(math.ceil(len(tasks) / _TASKS_PER_START), isolated.num_cores()))
    results = isolated.run_all(read, tasks, num_processes, initialise, **limits)
    for task, result in zip(tasks, results, strict=True):
        yield [(task["name"], "", result)] if isinstance(result, isolated.Ended) else result


def initialise() -> None:
    """Prepares a process in which `read` is called."""
    import h5py  # noqa: F401  Before memory is limited: a failed import can't be repeated.
    import trimesh  # noqa: F401

    warnings.simplefilter("ignore")
    # NumPy warns, and stops, where text is no number: that is damage, too.
    warnings.filterwarnings("error", message="string or file could not be read")
    np.seterr(all="ignore")  # Infinities are found by what comes out.
    logging.disable()  # All that the libraries say of damaged files is in the results.


def read(task: Task) -> list[Result]:
    """Reads the file of a task; an error that it raises is one of this program.

    Args:
        task: `path`; `name` for the report; `num_points`; `z_up`, whether the file's z axis is the
            vertical one; for a mesh or cloud also `class`, `key` (decides its points), `least`, how
            many points a cloud has at least if that is not `num_points`, and, if `path` is a zip
            archive, `member`; for a file of many clouds `class_names`: of an HDF5 file in the order
            of its labels, of an `.npz` file those that are allowed.

    Returns:
        (name, class, float32 [P, 3]) of a shape, or (name, '', (cause, detail)) of a damaged one.
    """
    return list(_read_shapes(pathlib.Path(task["path"]), task["name"], task))


def _read_shapes(path: pathlib.Path, name: str, task: Task) -> Iterator[Result]:
    try:
        if path.suffix in (".h5", ".npz"):
            yield from _clouds(path, task)
            return
        seed = clouds.seed_of(task["key"])
        if path.suffix.lower() == ".npy":
            points = clouds.read_cloud(path, task["num_points"], seed)
        else:
            data, suffix = _read(path, task.get("member"))
            points = mesh.sample_mesh(data, suffix, task["num_points"], seed)
        clouds.check_count(points, task.get("least", task["num_points"]))
        yield name, task["class"], clouds.stored(points, task["z_up"])
    except errors.BadDataError as error:
        yield name, "", (error.cause, error.detail)
    except MemoryError:
        yield name, "", ("out of memory", "reading it takes more memory than a process may use")
    except Exception as error:  # The libraries raise whatever their parsers stumble over.
        if errors.means_broken_program(error):
            raise
        yield name, "", ("unreadable", f"{type(error).__name__}: {str(error)[:200]}")


def _read(path: pathlib.Path, member: str | None) -> tuple[bytes, str]:
    if member is None:
        clouds.check_size(path.stat().st_size)
        return path.read_bytes(), path.suffix.lower()
    archive = _open_archive(path)
    clouds.check_size(archive.getinfo(member).file_size)
    return archive.read(member), pathlib.PurePosixPath(member).suffix.lower()


@functools.lru_cache(maxsize=1)
def _open_archive(path: pathlib.Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _clouds(path: pathlib.Path, task: Task) -> Iterator[Result]:
    known = task["class_names"]
    if path.suffix == ".h5":
        points, labels = tables.read_hdf5(path)
        class_names: Sequence[str] = known
    else:
        points, labels, class_names = tables.read_npz(path)
        if unknown := set(class_names) - set(known):
            raise errors.BadDataError("unknown class", f"{sorted(unknown)[:3]} among class_names")
    for i, (cloud, label) in enumerate(zip(points, labels, strict=True)):
        name = f"{task['name']}/{i:05d}"
        try:
            if not 0 <= label < len(class_names):
                found = f"label {label}; expected 0 to {len(class_names) - 1}"
                raise errors.BadDataError("label out of range", found)
            cloud = clouds.choose(cloud, task["num_points"], clouds.seed_of(name))
            clouds.check_count(cloud, task["num_points"])
            yield name, class_names[label], clouds.stored(cloud, task["z_up"])
        except errors.BadDataError as error:
            yield name, "", (error.cause, error.detail)
