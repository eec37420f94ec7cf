"""Weights from files and folders: safetensors, PyTorch's, the authors' pickles. Runs nothing."""

from collections.abc import Iterator
import contextlib
import json
import mmap
import pathlib
from typing import Any, NamedTuple
import zipfile

import numpy as np
import safetensors

from perceiver_jax import config as config_lib
from perceiver_jax.pretrained import arrays, pickles

_MAX_JSON = 2**24  # Bytes of a config or an index.
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # Of files of PyTorch before 1.6.
_TORCH_PROTOCOL = 1001
# Of a folder, the first that is there; those with an index come in parts.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_KINDS = ("safetensors", "torch", "pickle")


class Weights(NamedTuple):
    """Arrays of a file.

    Attributes:
      tensors: by name; those of pickles by names joined with '/'.
      is_pickle: whether they are from a pickle that is not PyTorch's, as the authors'.
      where: they are from, for messages.
    """

    tensors: dict[str, np.ndarray]
    is_pickle: bool
    where: str


def find(path: pathlib.Path) -> pathlib.Path:
    """Returns the file of weights that a path means: itself, or of a folder.

    Raises:
      UserError: if there is none.
    """
    if not path.exists():
        raise config_lib.MissingFileError(
            f"There is no {path}; expected a file or folder of weights. Correct the path."
        )
    if not path.is_dir():
        return path
    for name in WEIGHTS:
        if (path / name).is_file():
            return path / name
    raise config_lib.UserError(
        f"{path} has none of {', '.join(WEIGHTS)}; expected one of them, and config.json beside "
        "it. Name the file if it has another name."
    )


def read(path: pathlib.Path) -> Weights:
    """Reads a file of weights, or all files that an index names.

    Raises:
      UserError: if it can't be read, or holds anything but arrays.
    """
    if path.name.endswith(".index.json"):
        return _read_parts(path)
    _check_may_be_read(path)
    if path.suffix == ".safetensors":
        return Weights(_read_safetensors(path), False, str(path))
    try:
        with _opened(path) as data:
            if bytes(data[:4]) == b"PK\x03\x04":
                return Weights(_read_torch_zip(path), False, str(path))
            return _read_pickle(data, path)
    except arrays.RefusedError as error:
        raise _refuse(path, error) from error


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON file that holds a mapping.

    Raises:
      UserError: if it does not.
    """
    _check_may_be_read(path)
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ValueError(f"it has more than {_MAX_JSON:,} bytes")
        values = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(values, dict):
            raise ValueError(f"it holds a {type(values).__name__}")
        return values
    except (ValueError, RecursionError) as error:
        raise config_lib.UserError(
            f"{path} is damaged: {error}; expected a JSON object. Take it anew from where the "
            "weights are from."
        ) from error


def parts(path: pathlib.Path) -> dict[str, str]:
    """Returns the file that each array is in, of an index.

    Raises:
      UserError: if it names others than files beside it.
    """
    index = read_json(path).get("weight_map")
    for name in index.values() if isinstance(index, dict) else [None]:
        is_name = isinstance(name, str) and pathlib.PurePath(name).name == name
        if not is_name or not name.endswith((".safetensors", ".bin")):
            raise config_lib.UserError(
                f"{path} names the file {name!r}; expected files beside it that end in "
                ".safetensors or .bin. Take it anew."
            )
    return index


def _check_may_be_read(path: pathlib.Path) -> None:
    """Refuses a file that the system gives to somebody else, or not at all."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise config_lib.UserError(
            f"{path} can't be read: {error.strerror or error}; expected a file that you may read. "
            "Change its permissions, or copy it."
        ) from error


def _read_parts(path: pathlib.Path) -> Weights:
    index = parts(path)
    tensors = {}
    for name in dict.fromkeys(index.values()):
        part = read(find(path.parent / name))
        expected = {key for key, file in index.items() if file == name}
        if set(part.tensors) != expected:
            wrong = sorted(set(part.tensors) ^ expected)
            raise config_lib.UserError(
                f"{path} and {name} differ in {', '.join(wrong[:4])}; expected what the index "
                "names, in this file. Take all files of one model."
            )
        tensors |= part.tensors
    return Weights(tensors, False, str(path))


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError, TypeError, OverflowError) as error:
        raise _refuse(path, error) from error


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[memoryview]:
    """A file's bytes, read when they are needed: what it says of sizes allocates nothing."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise arrays.RefusedError("it is empty")
        # Arrays are views of it, which keep it open.
        yield memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _read_pickle(data: memoryview, path: pathlib.Path) -> Weights:
    if data[0] != 0x80:
        raise arrays.RefusedError("it begins as no file of weights")
    first, end = pickles.load(data)
    if type(first) is int and first == _TORCH_MAGIC:
        return Weights(_read_torch_legacy(data, end), False, str(path))
    if end != len(data):
        raise arrays.RefusedError(f"it goes on after its end, byte {end} of {len(data)}")
    if isinstance(first, dict) and set(first) == {"params", "state"}:
        params, state = (arrays.flatten(first[key]) for key in ("params", "state"))
        if params.keys() & state.keys():
            raise arrays.RefusedError("a name is both a parameter and a state")
        return Weights(params | state, True, str(path))
    return Weights(arrays.flatten(first), True, str(path))


def _read_torch_legacy(data: memoryview, place: int) -> dict[str, np.ndarray]:
    """A file of before PyTorch 1.6: pickles of versions, mapping and keys, then all storages."""
    version, place = pickles.load(data, place)
    system, place = pickles.load(data, place)
    if (
        version != _TORCH_PROTOCOL
        or not isinstance(system, dict)
        or not system.get("little_endian")
    ):
        raise arrays.RefusedError("it is of another version of PyTorch, or another byte order")
    tree, place = pickles.load(data, place, tensors=True)
    keys, place = pickles.load(data, place)
    storages = _storages(tree)
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise arrays.RefusedError("its storages are others than its tensors have")
    for key in keys:
        storage = storages[key]
        size = int.from_bytes(data[place : place + 8], "little")
        place = _fill(storage, data[place + 8 :], size * storage.dtype.itemsize) + place + 8
    if place != len(data):
        raise arrays.RefusedError(f"it goes on after its end, byte {place} of {len(data)}")
    return arrays.flatten(tree)


def _read_torch_zip(path: pathlib.Path) -> dict[str, np.ndarray]:
    """A file of PyTorch since 1.6: an archive of a pickle and a file a storage, not compressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            pickled = [name for name in entries if name.endswith("/data.pkl")]
            if len(entries) != len(archive.infolist()) or len(pickled) != 1:
                raise arrays.RefusedError("its archive has no data.pkl, or names twice")
            root = pickled[0].removesuffix("data.pkl")
            order = f"{root}byteorder"
            if order in entries and _entry(archive, entries[order]) != b"little":
                raise arrays.RefusedError("it has another byte order")
            data = memoryview(_entry(archive, entries[pickled[0]]))
            tree, end = pickles.load(data, tensors=True)
            if end != len(data):
                raise arrays.RefusedError(f"data.pkl goes on after its end, byte {end}")
            for key, storage in _storages(tree).items():
                name = f"{root}data/{key}"
                if name not in entries:
                    raise arrays.RefusedError(f"its archive lacks {name}")
                content = memoryview(_entry(archive, entries[name]))
                _fill(storage, content, len(content))
            return arrays.flatten(tree)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError) as error:
        raise arrays.RefusedError(f"its archive is damaged: {error}") from error


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The bytes of a file of an archive. None is ever written to a disk."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise arrays.RefusedError(f"{entry.filename[:60]!r} of its archive is compressed")
    if entry.file_size > pathlib.Path(archive.filename).stat().st_size:
        raise arrays.RefusedError(f"{entry.filename[:60]!r} is larger than its archive")
    return archive.read(entry)


def _storages(tree: Any) -> dict[str, arrays.Storage]:
    """Storages of a mapping of names to tensors."""
    if not isinstance(tree, dict):
        raise arrays.RefusedError(f"it holds a {type(tree).__name__}, no mapping")
    for name, tensor in tree.items():
        if not isinstance(tensor, arrays.Tensor):
            raise arrays.RefusedError(f"{str(name)[:60]!r} is a {type(tensor).__name__}, no tensor")
    return {tensor.storage.key: tensor.storage for tensor in tree.values()}


def _fill(storage: arrays.Storage, data: memoryview, num_bytes: int) -> int:
    """Gives a storage its numbers; returns how many bytes they are."""
    expected = storage.size * storage.dtype.itemsize
    if num_bytes != expected or len(data) < expected:
        raise arrays.RefusedError(
            f"storage {storage.key} has {min(num_bytes, len(data))} bytes; its tensors expect "
            f"{expected}"
        )
    storage.value = np.frombuffer(data[:expected], storage.dtype)
    return expected


def _refuse(path: Any, error: Exception | str) -> config_lib.UserError:
    """The error of a file that is not read, in one line."""
    return config_lib.UserError(
        f"{path} is not read: {config_lib.said(error)}. Expected arrays of numbers by their names "
        "and nothing else; nothing of the file was run. Take it from a source that you trust, or "
        "in safetensors."
    )
