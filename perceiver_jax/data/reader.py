"""From a record to an example, and what happens when a record can't be decoded."""

from collections.abc import Mapping, Sequence
import dataclasses
import typing
from typing import Any, NamedTuple, Protocol

import numpy as np

from perceiver_jax.data import errors
from perceiver_jax.data import fields as fields_lib

Example = dict[str, Any]

BAD_RECORDS = "bad_records"  # Key of what could not be read on the way to an example or a batch.

_PADDING_INDEX = -1
_ATTEMPTS = 10  # Records in the place of one that can't be read, before its place stays empty.


@typing.runtime_checkable
class Records(Protocol):
    """The records of a split."""

    def __len__(self) -> int:
        """Returns the number of records."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Reads a record."""

    def describe(self, index: int) -> str:
        """Names a record for messages."""


class BadRecord(NamedTuple):
    """A record that can't be decoded: its index in the split, its name and why."""

    index: int
    name: str
    cause: str


@dataclasses.dataclass(frozen=True)
class Reader:
    """Makes examples of records; goes to worker processes, so it holds no open files.

    Attributes:
        records: of a split; None if there is only need for empty examples.
        fields: by name. Those that draw randomness draw it one after another, in this order.
        features: names of the records' features, by name of the field.
        masked: inputs that a record may lack.
    """

    records: Records | None
    fields: Mapping[str, fields_lib.Field]
    features: Mapping[str, str]
    masked: frozenset[str] = frozenset()

    def read(self, index: int, window: float, rng: np.random.Generator | None) -> Example:
        """Reads the window at `window` of example `index`; with `rng`, augments it.

        Raises:
            errors.BadDataError: the record can't be decoded, or its target is none.
            errors.AugmentError: the user's function failed.
        """
        example, there = {}, {}
        try:
            record = self.records[index]
            for name, field in self.fields.items():
                value = record[self.features[name]]
                is_there = name not in self.masked or len(value) > 0
                example[name] = field.read(value, window, rng) if is_there else field.zeros()
                if not field.is_target:
                    there[name] = is_there
        except (errors.AugmentError, errors.BadDataError, MemoryError):
            raise
        except Exception as error:  # Decoders raise whatever they stumble over.
            if errors.means_broken_program(error):
                raise
            raise errors.BadDataError(type(error).__name__, str(error)) from error
        return example | self._masks(index, there)

    def empty(self, index: int = _PADDING_INDEX) -> Example:
        """Returns an example of zeros that pads a batch."""
        example = {name: field.zeros() for name, field in self.fields.items()}
        return example | self._masks(index, dict.fromkeys(self.fields, False))

    def _masks(self, index: int, there: Mapping[str, bool]) -> Example:
        masks = {f"{name}_mask": np.bool_(there[name]) for name in sorted(self.masked)}
        return masks | {"example_id": np.int32(index), "mask": np.bool_(any(there.values()))}


def train_example(reader: Reader, seed: int, step: int, index: int) -> Example:
    """Reads an example to train on, or another one in its place if it can't be decoded.

    Which one, as all randomness, depends on (seed, epoch, index) alone, whatever reads it and
    wherever: a run that is resumed, or divided over other processes, sees the same.

    Args:
        reader: of the training split.
        seed: of the whole run.
        step: in the endless sequence of examples.
        index: of the example.
    """
    epoch = step // len(reader.records)
    bad = []
    for attempt in range(_ATTEMPTS):
        rng = example_rng(seed, epoch, index, attempt)
        chosen = int(rng.integers(len(reader.records))) if attempt else index
        try:
            # The window is the first number drawn, and the fields draw from what follows: to draw
            # one more here, or in another order, changes all augmentation of every seed.
            return reader.read(chosen, rng.random(), rng) | {BAD_RECORDS: bad}
        except errors.BadDataError as error:
            bad.append(BadRecord(chosen, reader.records.describe(chosen), str(error)))
    return reader.empty() | {BAD_RECORDS: bad}


def test_example(reader: Reader, num_windows: int, pair: int) -> Example:
    """Reads a window of an example to evaluate on, masked if it can't be decoded.

    Args:
        reader: of the test split.
        num_windows: of each example, evenly spaced from its begin to its end; 1: the middle.
        pair: number of the pair of example and window; beyond the last one there is padding.
    """
    index, window = divmod(pair, num_windows)
    if index >= len(reader.records):
        return reader.empty() | {BAD_RECORDS: []}
    place = 0.5 if num_windows == 1 else window / (num_windows - 1)
    try:
        return reader.read(index, place, None) | {BAD_RECORDS: []}
    except errors.BadDataError as error:
        bad = BadRecord(index, reader.records.describe(index), str(error))
        return reader.empty(index) | {BAD_RECORDS: [bad]}


def example_rng(seed: int, epoch: int, index: int, attempt: int = 0) -> np.random.Generator:
    """The randomness of an example: which window, and how it is augmented.

    Runs are resumed by it: with other words, or in another order, they would go on otherwise.
    `mix` has words of its own, one more than these.
    """
    return np.random.default_rng([seed, epoch, index, attempt])


def stack(examples: Sequence[Example]) -> dict[str, Any]:
    """Makes a batch of examples: arrays are stacked, bad records are in one list."""
    names = [name for name in examples[0] if name != BAD_RECORDS]
    batch: dict[str, Any] = {
        name: np.stack([example[name] for example in examples]) for name in names
    }
    batch[BAD_RECORDS] = [bad for example in examples for bad in example[BAD_RECORDS]]
    return batch
