"""What the names in a pickle stand for: arrays of numpy, JAX and PyTorch, and mappings of them."""

from collections.abc import Callable, Mapping
import dataclasses
import math
import re
from typing import Any

import ml_dtypes
import numpy as np

_MAX_ARRAYS = 100_000
_MAX_DEPTH = 8  # Of mappings in each other.
_DTYPE = re.compile(r"[fiu][1248]|b1|\|b1")


class RefusedError(ValueError):
    """What a pickle has that is not read; says what."""


@dataclasses.dataclass(frozen=True)
class Global:
    """A name that a pickle refers to; one of `CALLS`, `STORAGES` or `NAMES`."""

    module: str
    name: str


@dataclasses.dataclass
class Array:
    """An array, whose numbers may come later."""

    value: np.ndarray | None = None


@dataclasses.dataclass
class Storage:
    """A flat array of PyTorch, whose bytes are elsewhere.

    Attributes:
      key: that names it.
      dtype: of an element.
      size: elements.
      value: its numbers, when they are read.
    """

    key: str
    dtype: np.dtype
    size: int
    value: np.ndarray | None = None


@dataclasses.dataclass
class Tensor:
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def value(self) -> np.ndarray:
        """The array; copies nothing."""
        assert self.storage.value is not None
        strides = [stride * self.storage.dtype.itemsize for stride in self.strides]
        flat = self.storage.value[self.offset :]
        return np.lib.stride_tricks.as_strided(flat, self.shape, strides, writeable=False)


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of mappings in each other, by their names joined with '/'.

    Raises:
      RefusedError: for anything but mappings of names to arrays.
    """
    flat: dict[str, np.ndarray] = {}
    visited = 0

    def visit(node, path):
        nonlocal visited
        visited += 1
        if visited > _MAX_ARRAYS or len(path) > _MAX_DEPTH:
            raise RefusedError(
                f"it has more than {_MAX_ARRAYS:,} arrays, or mappings more than {_MAX_DEPTH} deep"
            )
        if isinstance(node, Mapping):
            for key, value in node.items():
                visit(value, (*path, str(key)))
        elif isinstance(node, Array | Tensor) and node.value is not None:
            name = "/".join(path)
            if name in flat:
                raise RefusedError(f"it has {name[:80]} twice")
            flat[name] = node.value
        else:
            name = "/".join(path)[:80] or "it"
            raise RefusedError(f"{name} is {type(node).__name__}, no array and no mapping")

    visit(tree, ())
    return flat


# ------------------------------------------------------------------- calls


def whole(x: Any, what: str) -> int:
    """Returns a number that is whole and not negative, or refuses it."""
    if type(x) is not int or x < 0:
        raise RefusedError(f"{what} is {shown(x)}, no whole number")
    return x


def _wholes(x: Any, what: str) -> tuple[int, ...]:
    if not isinstance(x, tuple | list):
        raise RefusedError(f"{what} is {shown(x)}, no whole numbers")
    return tuple(whole(n, what) for n in x)


def _dtype(name: Any, *_: Any) -> np.dtype:
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise RefusedError(f"an array holds {shown(name)}, no numbers")
    return np.dtype(name).newbyteorder("<")


def _filled(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """An array of bytes; as many as its shape says."""
    if not isinstance(data, bytes | bytearray | memoryview) or not isinstance(dtype, np.dtype):
        raise RefusedError("an array has no bytes, or no type")
    shape = _wholes(shape, "an array's shape")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise RefusedError(f"an array of shape {shape} and {dtype} has {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    return Array(_filled(data, dtype, shape, "F" if order == "F" else "C"))


def _scalar(dtype: Any, data: Any) -> Array:
    return Array(_filled(data, dtype, (), "C"))


def set_array(array: Array, state: Any) -> None:
    """Numpy's state of an array: (version, shape, type, is it Fortran's, bytes)."""
    if not isinstance(state, tuple) or len(state) != 5:
        raise RefusedError("an array has a state of another form")
    _, shape, dtype, fortran, data = state
    array.value = _filled(data, dtype, shape, "F" if fortran is True else "C")


def _of_jax(make: Any, args: Any, state: Any, *_: Any) -> Array:
    if make not in _RECONSTRUCT or not isinstance(args, tuple):
        raise RefusedError("a JAX array is not made of one of numpy")
    array = Array()
    set_array(array, state)
    return array


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedError("text is encoded otherwise than an array's bytes")
    return text.encode("latin1")


def _mapping(*args: Any) -> dict[Any, Any]:
    if not args:
        return {}
    if len(args) != 1 or not isinstance(args[0], dict | list):
        raise RefusedError("a mapping is made of something else")
    return _pairs([x for pair in args[0] for x in pair]) if isinstance(args[0], list) else args[0]


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise RefusedError("a tensor has no storage")
    offset = whole(offset, "a tensor's offset")
    shape, strides = _wholes(size, "a tensor's size"), _wholes(stride, "a tensor's stride")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    # The first bound keeps it within the storage; the second, from repeating it without end.
    if (math.prod(shape) and last >= storage.size) or math.prod(shape) > storage.size:
        raise RefusedError(
            f"a tensor of size {shape} and stride {strides} from {offset} on does not fit its "
            f"storage of {storage.size} elements"
        )
    return Tensor(storage, offset, shape, strides)


def _parameter(tensor: Any, *_: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise RefusedError("a parameter is no tensor")
    return tensor


_RECONSTRUCT = [Global(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")]
CALLS: dict[Global, Callable] = {
    **dict.fromkeys(_RECONSTRUCT, lambda *_: Array()),
    **{
        Global(f"numpy.{core}.{module}", name): call
        for core in ("core", "_core")
        for module, name, call in (
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
    Global("numpy", "dtype"): _dtype,
    Global("_codecs", "encode"): _encode,
    Global("collections", "OrderedDict"): _mapping,
    **{
        Global("haiku._src.data_structures", name): _mapping
        for name in ("FlatMap", "FlatMapping", "frozendict")
    },
    Global("jax._src.array", "_reconstruct_array"): _of_jax,
    Global("jax._src.device_array", "reconstruct_device_array"): _of_jax,
    Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Global("torch._utils", "_rebuild_parameter"): _parameter,
}
STORAGES = {
    Global("torch", f"{name}Storage"): np.dtype(dtype)
    for name, dtype in {
        "BFloat16": ml_dtypes.bfloat16,
        "Bool": bool,
        "Byte": np.uint8,
        "Char": np.int8,
        "Double": "<f8",
        "Float": "<f4",
        "Half": "<f2",
        "Int": "<i4",
        "Long": "<i8",
        "Short": "<i2",
    }.items()
}
NAMES = [Global("numpy", "ndarray")]  # Arguments of others.


def shown(x: Any) -> str:
    """A value in one short line, whatever it is."""
    if isinstance(x, Global):
        return ascii(f"{x.module}.{x.name}"[:80])[1:-1]
    if isinstance(x, str):
        return ascii(x[:60])[1:-1]
    if x is None or isinstance(x, bool | float) or (isinstance(x, int) and abs(x) < 2**64):
        return str(x)
    if (
        isinstance(x, tuple)
        and len(x) <= 6
        and not any(isinstance(y, tuple | list | dict) for y in x)
    ):
        return f"({', '.join(map(shown, x))})"
    return f"a {type(x).__name__}"
