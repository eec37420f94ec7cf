"""Arrays from pickles, without running anything that a pickle asks for.

Python's own unpickler calls what a file names. This reads the same opcodes, but only makes numbers,
text, lists, mappings and arrays of them: a name is never looked up, only compared with the short
list of `arrays.CALLS`, each of which has a reading of its own there. Everything else is refused.

References:
  `pickletools` of the standard library, which says what each opcode means.
"""

from collections.abc import Callable
import pickletools
import re
import struct
from typing import Any

import numpy as np

from perceiver_jax.pretrained import arrays

MAX_OPCODES = 2_000_000  # Some seconds; released models have a hundredth of that.


def load(data: memoryview, start: int = 0, *, tensors: bool = False) -> tuple[Any, int]:
    """Reads one pickle.

    Args:
      data: bytes that hold it.
      start: where it begins.
      tensors: whether it may refer to PyTorch's storages.

    Returns:
      What it holds; in place of arrays, `Array` and `Tensor`. And where it ends.

    Raises:
      arrays.RefusedError: if it holds anything else, or is damaged.
    """
    reader = _Reader(data, start, tensors)
    try:
        return reader.run(), reader.place
    except arrays.RefusedError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, struct.error) as error:
        raise arrays.RefusedError(f"it is damaged at byte {reader.place}: {error}") from error


class _Mark:
    """Where a collection of several begins on the stack."""


_MARK = _Mark()


class _Reader:
    """Reads the opcodes of a pickle."""

    def __init__(self, data, start, tensors):
        self.data, self.place, self.tensors = data, start, tensors
        self.stack, self.memo, self.storages = [], {}, {}

    def run(self):
        for _ in range(MAX_OPCODES):
            opcode = self.take(1)[0]
            if opcode == _STOP:
                if len(self.stack) != 1:
                    raise arrays.RefusedError(
                        f"it is damaged at byte {self.place}: it ends too early"
                    )
                return self.stack.pop()
            if opcode not in _OPCODES:
                raise arrays.RefusedError(
                    f"it has the opcode {_name(opcode)} at byte {self.place - 1}"
                )
            _OPCODES[opcode](self)
        raise arrays.RefusedError(f"it has more than {MAX_OPCODES:,} opcodes")

    def take(self, size):
        """The next bytes. What a file says of its size is not believed."""
        if size < 0 or size > len(self.data) - self.place:
            raise arrays.RefusedError(
                f"it is truncated: {size} bytes are to follow byte {self.place} of {len(self.data)}"
            )
        self.place += size
        return self.data[self.place - size : self.place]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self):
        end = self.place
        while self.data[end] != ord("\n"):
            end += 1
        text = bytes(self.data[self.place : end])
        self.place = end + 1
        return text.decode("utf-8")

    def text(self, form):
        return str(self.take(self.number(form)), "utf-8")

    def push(self, value):
        self.stack.append(value)

    def pop(self):
        value = self.stack.pop()
        if value is _MARK:
            raise arrays.RefusedError(
                f"it is damaged at byte {self.place}: nothing is on the stack"
            )
        return value

    def pop_to_mark(self):
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def top(self, kind):
        if not self.stack or type(self.stack[-1]) is not kind:
            raise arrays.RefusedError(
                f"it is damaged at byte {self.place}: there is no {kind.__name__}"
            )
        return self.stack[-1]

    def long(self, form):
        return int.from_bytes(self.take(self.number(form)), "little", signed=True)

    def name(self, module, name):
        if not isinstance(module, str) or not isinstance(name, str):
            raise arrays.RefusedError("it names what is no text")
        found = arrays.Global(module, name)
        listed = (arrays.CALLS, arrays.NAMES, arrays.STORAGES if self.tensors else ())
        if not any(found in names for names in listed):
            raise arrays.RefusedError(f"it names {arrays.shown(found)}, no array or mapping")
        self.push(found)

    def call(self, args):
        function = self.pop()
        if not isinstance(function, arrays.Global) or function not in arrays.CALLS:
            raise arrays.RefusedError(f"it calls {arrays.shown(function)}")
        if type(args) is not tuple:
            raise arrays.RefusedError(f"it calls {function.name} of {arrays.shown(args)}")
        self.push(arrays.CALLS[function](*args))

    def build(self):
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, arrays.Array):
            arrays.set_array(target, state)
        elif isinstance(target, np.dtype):
            order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
            if order not in ("<", "|"):  # Others are of another machine than all that run this.
                raise arrays.RefusedError(f"an array's type has the state {arrays.shown(state)}")
        elif type(target) is not dict:  # Attributes of a mapping are no arrays.
            raise arrays.RefusedError(f"it sets the state of {arrays.shown(target)}")

    def persistent(self):
        identity = self.pop()
        if not self.tensors or type(identity) is not tuple or len(identity) not in (5, 6):
            raise arrays.RefusedError(f"it refers to {arrays.shown(identity)}, which is not in it")
        word, kind, key, _, size = identity[:5]
        # A sixth is a view of a storage, which no version has written for ten years.
        if word != "storage" or identity[5:] not in ((), (None,)) or kind not in arrays.STORAGES:
            raise arrays.RefusedError(
                f"it refers to {arrays.shown(identity)}, which is no storage of numbers"
            )
        if not isinstance(key, str) or not re.fullmatch("[0-9]+", key):
            raise arrays.RefusedError(f"it has a storage called {arrays.shown(key)}, no number")
        size = arrays.whole(size, "a storage's size")
        storage = self.storages.setdefault(key, arrays.Storage(key, arrays.STORAGES[kind], size))
        if (storage.dtype, storage.size) != (arrays.STORAGES[kind], size):
            raise arrays.RefusedError(f"storage {key} is of two kinds")
        self.push(storage)


def _pairs(values):
    keys = values[::2]
    if len(values) % 2 or not all(isinstance(key, str | int) for key in keys):
        raise arrays.RefusedError("a mapping has keys that are no names")
    return dict(zip(keys, values[1::2], strict=True))


def _put(reader, index):
    if not reader.stack:
        raise arrays.RefusedError(f"it is damaged at byte {reader.place}: nothing is on the stack")
    reader.memo[index] = reader.stack[-1]


def _duplicate(reader):
    reader.push(reader.stack[-1])


def _reduce(reader):
    reader.call(reader.pop())


def _stack_global(reader):
    name = reader.pop()
    reader.name(reader.pop(), name)


def _tuple_of(number):
    def make(reader):
        values = [reader.pop() for _ in range(number)]
        reader.push(tuple(values[::-1]))

    return make


def _append(reader):
    value = reader.pop()
    reader.top(list).append(value)


def _set_item(reader):
    value, key = reader.pop(), reader.pop()
    reader.top(dict).update(_pairs([key, value]))


def _set_items(reader):
    values = reader.pop_to_mark()
    reader.top(dict).update(_pairs(values))


def _extend(reader):
    values = reader.pop_to_mark()
    reader.top(list).extend(values)


_STOP = ord(".")
_OPCODES: dict[int, Callable[[_Reader], Any]] = {
    ord(code): act
    for code, act in {
        "\x80": lambda r: r.take(1),  # The protocol: what is not known is refused below.
        "\x95": lambda r: r.take(8),  # A frame; opcodes don't depend on it.
        "(": lambda r: r.push(_MARK),
        "0": lambda r: r.pop(),
        "1": lambda r: r.pop_to_mark(),
        "2": _duplicate,
        # Constants.
        "N": lambda r: r.push(None),
        "\x88": lambda r: r.push(True),
        "\x89": lambda r: r.push(False),
        "J": lambda r: r.push(r.number("<i")),
        "K": lambda r: r.push(r.number("<B")),
        "M": lambda r: r.push(r.number("<H")),
        "\x8a": lambda r: r.push(r.long("<B")),
        "\x8b": lambda r: r.push(r.long("<i")),
        "G": lambda r: r.push(r.number(">d")),
        "X": lambda r: r.push(r.text("<I")),
        "\x8c": lambda r: r.push(r.text("<B")),
        "\x8d": lambda r: r.push(r.text("<Q")),
        "B": lambda r: r.push(r.take(r.number("<I"))),
        "C": lambda r: r.push(r.take(r.number("<B"))),
        "\x8e": lambda r: r.push(r.take(r.number("<Q"))),
        "\x96": lambda r: r.push(r.take(r.number("<Q"))),
        # Collections.
        "]": lambda r: r.push([]),
        "}": lambda r: r.push({}),
        ")": lambda r: r.push(()),
        "l": lambda r: r.push(r.pop_to_mark()),
        "d": lambda r: r.push(_pairs(r.pop_to_mark())),
        "t": lambda r: r.push(tuple(r.pop_to_mark())),
        "\x85": _tuple_of(1),
        "\x86": _tuple_of(2),
        "\x87": _tuple_of(3),
        "a": _append,
        "e": _extend,
        "s": _set_item,
        "u": _set_items,
        # What was there before.
        "q": lambda r: _put(r, r.number("<B")),
        "r": lambda r: _put(r, r.number("<I")),
        "p": lambda r: _put(r, int(r.line())),
        "\x94": lambda r: _put(r, len(r.memo)),
        "h": lambda r: r.push(r.memo[r.number("<B")]),
        "j": lambda r: r.push(r.memo[r.number("<I")]),
        "g": lambda r: r.push(r.memo[int(r.line())]),
        # Names and what they stand for.
        "c": lambda r: r.name(r.line(), r.line()),
        "\x93": _stack_global,
        "R": _reduce,
        "\x81": _reduce,  # Of classes; those that are known are called like functions.
        "b": lambda r: r.build(),
        "Q": lambda r: r.persistent(),
    }.items()
}


def _name(opcode: int) -> str:
    found = {ord(x.code): x.name for x in pickletools.opcodes}
    return found.get(opcode, f"{opcode:#x}")
