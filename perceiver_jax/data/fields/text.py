"""Text: UTF-8 -> ids of bytes, int32 [M], and which of them are there, bool [M]."""

import dataclasses
import re
from typing import ClassVar
import zlib

from jaxtyping import Int32
import numpy as np

from perceiver_jax import config
from perceiver_jax.data import errors

# Ids below 6 stand for no byte; byte b has the id b + 6. As of the released language model.
PAD, BOS, EOS, MASK, CLS, SEP = range(6)
NUM_SPECIAL = 6
VOCAB_SIZE = 256 + NUM_SPECIAL

GAP = "[MASK]"  # Of texts that a user gives: a byte that is not known.

_WORD = re.compile(rb"\S+")  # Between white space of ASCII.


@dataclasses.dataclass(frozen=True)
class Text:
    """The beginning of a text, cut between letters to `max_length` ids, and filled up with PAD.

    A batch has the ids by the field's name, and `<name>_mask`, False for what is filled up.

    Attributes:
        max_length: number of ids M.
        cls_sep: whether CLS comes before the bytes and SEP after them, as Hugging Face's tokenizer
            has it and the authors' does not.
    """

    max_length: int
    cls_sep: bool = False

    feature: ClassVar[str] = "text"
    has_windows: ClassVar[bool] = False
    is_target: ClassVar[bool] = False
    vocab_size: ClassVar[int] = VOCAB_SIZE

    def __post_init__(self):
        """Checks the length."""
        config.check(vars(self), max_length=config.AT_LEAST_ONE)
        if self.cls_sep and self.max_length < 3:
            raise config.UserError(
                f"max_length is {self.max_length}; expected at least 3, for CLS, a byte and SEP. "
                "Make it longer."
            )

    def zeros(self) -> dict[str, np.ndarray]:
        """Returns PAD, which all is."""
        return {
            "": np.full(self.max_length, PAD, np.int32),
            "_mask": np.zeros(self.max_length, bool),
        }

    def read(
        self, value: bytes | str | np.ndarray, window: float, rng: np.random.Generator | None
    ) -> dict[str, np.ndarray]:
        """Returns ids and their mask.

        Args:
            value: a text, or ids of bytes; ids are cut within letters.
            window: not used, a text is read from its beginning.
            rng: not used, texts are not augmented.

        Raises:
            errors.BadDataError: it has no letters, or is no UTF-8.
        """
        del window, rng
        return self._filled(self._ids(value))

    def decode(self, ids: np.ndarray) -> str:
        """Returns the text of ids, see `decode`."""
        return decode(ids)

    def _ids(self, value: bytes | str | np.ndarray) -> Int32[np.ndarray, " n"]:
        room = self.max_length - 2 * self.cls_sep
        ids = value[:room] if isinstance(value, np.ndarray) else encode(cut(value, room))
        return np.concatenate([[CLS], ids, [SEP]]).astype(np.int32) if self.cls_sep else ids

    def _filled(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        arrays = self.zeros()
        arrays[""][: len(ids)] = ids
        arrays["_mask"][: len(ids)] = True
        return arrays


@dataclasses.dataclass(frozen=True)
class MaskedText(Text):
    """The same with some words masked: all bytes of a word are MASK.

    Paper: 15 % of the words between white space. Here each text has that many, rounded, and at
    least one; they are always replaced by MASK, never kept or replaced by others. In evaluation a
    text has the same gaps each time.

    A batch has `<name>_targets`, the ids without gaps, and `<name>_weights`, float32 [M]: 1 in the
    gaps, 0 elsewhere.

    Attributes:
        mask_rate: fraction of the words that are masked.
    """

    mask_rate: float = 0.15

    def __post_init__(self):
        """Checks the numbers."""
        super().__post_init__()
        config.check(vars(self), mask_rate=config.FRACTION)

    def zeros(self) -> dict[str, np.ndarray]:
        """Returns PAD, without gaps."""
        arrays = super().zeros()
        weights = np.zeros(self.max_length, np.float32)
        return arrays | {"_targets": arrays[""].copy(), "_weights": weights}

    def read(
        self, value: bytes | str | np.ndarray, window: float, rng: np.random.Generator | None
    ) -> dict[str, np.ndarray]:
        """Returns ids with gaps, their mask, targets and weights; arguments as of `Text`.

        `rng` decides which words are masked; without, the text itself does. Of ids no word is.

        Raises:
            errors.BadDataError: as of `Text`; or ids have a gap that is cut off.
        """
        del window
        ids = self._ids(value)
        if isinstance(value, np.ndarray) and (value[len(ids) - 2 * self.cls_sep :] == MASK).any():
            room = self.max_length - 2 * self.cls_sep
            raise errors.BadDataError("gap beyond what is read", f"the first {room} bytes are read")
        arrays = self._filled(ids) | {"_targets": self._filled(ids)[""]}
        if isinstance(value, np.ndarray):
            return arrays | {"_weights": (arrays[""] == MASK).astype(np.float32)}
        text = cut(value, self.max_length - 2 * self.cls_sep)
        if rng is None:
            rng = np.random.default_rng(zlib.crc32(text))
        gaps = np.zeros(self.max_length, bool)
        words = list(_WORD.finditer(text))
        count = max(1, round(self.mask_rate * len(words))) if words else 0
        for i in rng.choice(len(words), count, replace=False) if words else ():
            gaps[words[i].start() + self.cls_sep : words[i].end() + self.cls_sep] = True
        arrays[""][gaps] = MASK
        return arrays | {"_weights": gaps.astype(np.float32)}


def cut(text: bytes | str, max_bytes: int) -> bytes:
    """Returns the beginning of a text as UTF-8, whole letters.

    Raises:
        errors.BadDataError: it is empty, or no UTF-8.
    """
    try:
        value = text if isinstance(text, bytes) else text.encode()
        value.decode()
    except UnicodeError as error:
        raise errors.BadDataError("not UTF-8", str(error)) from error
    if not value.strip():
        raise errors.BadDataError("empty text")
    return value[:max_bytes].decode(errors="ignore").encode()


def encode(text: bytes) -> Int32[np.ndarray, " n"]:
    """Returns the id of each byte."""
    return np.frombuffer(text, np.uint8).astype(np.int32) + NUM_SPECIAL


def with_gaps(text: bytes | str) -> Int32[np.ndarray, " n"]:
    """Returns the id of each byte; `[MASK]` is MASK, one byte that is not known.

    Raises:
        errors.BadDataError: it is no UTF-8.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        parts = [encode(part.encode()) for part in text.split(GAP)]
    except UnicodeError as error:
        raise errors.BadDataError("not UTF-8", str(error)) from error
    gap = np.array([MASK], np.int32)
    return np.concatenate([parts[0], *(x for part in parts[1:] for x in (gap, part))])


def decode(ids: np.ndarray) -> str:
    """Returns the text of ids; special ones are left out, what is no UTF-8 is marked."""
    ids = np.asarray(ids)
    values = ids[ids >= NUM_SPECIAL] - NUM_SPECIAL
    return values.astype(np.uint8).tobytes().decode(errors="replace")
