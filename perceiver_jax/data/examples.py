"""From records to examples and batches, and what happens when a record can't be decoded."""

from collections.abc import Mapping, Sequence
import dataclasses
import logging
import typing
from typing import Any, NamedTuple, Protocol

from grain import python as grain
import numpy as np

from perceiver_jax.data import errors
from perceiver_jax.data import fields as fields_lib

Example = dict[str, Any]
Batch = dict[str, np.ndarray]

# Key of what could not be read on the way to an example or a batch: a list, which travels with them
# from the processes that decode until `Batches` takes it out.
BAD_RECORDS = "bad_records"

_LOGGER = logging.getLogger(__name__)
_PADDING_INDEX = -1
_ATTEMPTS = 10  # Records in the place of one that can't be read, before its place stays empty.


@typing.runtime_checkable
class Records(grain.RandomAccessDataSource, Protocol):
    """The records of a split: Grain's protocol, `len(x)` and `x[i]`, and names for messages."""

    def describe(self, index: int) -> str:
        """Names a record."""


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
        with errors.of_bad_data():
            record = self.records[index]
            for name, field in self.fields.items():
                value = record[self.features[name]] if field.feature else None
                is_there = name not in self.masked or len(value) > 0
                read = field.read(value, window, rng) if is_there else field.zeros()
                example |= fields_lib.named(name, read)
                if not field.is_target:
                    there[name] = is_there
        return example | self._masks(index, there)

    def empty(self, index: int = _PADDING_INDEX) -> Example:
        """Returns an example of zeros that pads a batch."""
        example = {}
        for name, field in self.fields.items():
            example |= fields_lib.named(name, field.zeros())
        return example | self._masks(index, dict.fromkeys(self.fields, False))

    def _masks(self, index: int, there: Mapping[str, bool]) -> Example:
        masks = {f"{name}_mask": np.bool_(there[name]) for name in sorted(self.masked)}
        return masks | {"example_id": np.int32(index), "mask": np.bool_(any(there.values()))}

    def read_to_train(self, seed: int, step: int, index: int) -> Example:
        """Reads an example to train on, or another one in its place if it can't be decoded.

        Which one, as all randomness, depends on (seed, epoch, index) alone, whatever reads it and
        wherever: a run that is resumed, or divided over other processes, sees the same.

        Args:
            seed: of the whole run.
            step: in the endless sequence of examples.
            index: of the example.
        """
        epoch = step // len(self.records)
        bad = []
        for attempt in range(_ATTEMPTS):
            rng = example_rng(seed, epoch, index, attempt)
            chosen = int(rng.integers(len(self.records))) if attempt else index
            try:
                # The window is the first number drawn, and the fields draw from what follows: to
                # draw one more here, or in another order, changes the augmentation of every seed.
                return self.read(chosen, rng.random(), rng) | {BAD_RECORDS: bad}
            except errors.BadDataError as error:
                bad.append(BadRecord(chosen, self.records.describe(chosen), str(error)))
        return self.empty() | {BAD_RECORDS: bad}

    def read_to_test(self, num_windows: int, pair: int) -> Example:
        """Reads a window of an example to evaluate on, masked if it can't be decoded.

        Args:
            num_windows: of each example, see `fields.windows`.
            pair: number of the pair of example and window; beyond the last one there is padding.
        """
        index, number = divmod(pair, num_windows)
        if index >= len(self.records):
            return self.empty() | {BAD_RECORDS: []}
        try:
            return self.read(index, fields_lib.windows(num_windows)[number], None) | {
                BAD_RECORDS: []
            }
        except errors.BadDataError as error:
            bad = BadRecord(index, self.records.describe(index), str(error))
            return self.empty(index) | {BAD_RECORDS: [bad]}


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


class Batches:
    """Batches of arrays, in an order whose place can be saved and restored.

    Attributes:
        bad_records: what could not be decoded so far, by index in the split. Of several
            processes, each knows its own.
    """

    def __init__(self, batches: grain.DatasetIterator, name: str, max_bad_records: int):
        """Wraps Grain's iterator.

        Args:
            batches: what `stack` makes.
            name: of the data set and its split, for messages.
            max_bad_records: with more of them, iteration ends with an error.
        """
        self._batches = batches
        self._name = name
        self._max_bad_records = max_bad_records
        self.bad_records: dict[int, BadRecord] = {}

    def __iter__(self) -> "Batches":
        """Returns itself."""
        return self

    def __next__(self) -> Batch:
        """Returns the next batch.

        Raises:
            errors.BadDataError: too many records could not be decoded, or all of a batch.
        """
        batch = next(self._batches)
        bad = batch.pop(BAD_RECORDS)
        for record in bad:
            self._note(record)
        if bad and not batch["mask"].any():
            raise errors.BadDataError(
                f"A whole batch of {self._name} could not be read",
                f"{bad[-1].name}: {bad[-1].cause}. Expected records as the config's fields "
                "read them. Check config.data, or prepare the data set again.",
            )
        return batch

    def get_state(self) -> dict[str, Any]:
        """Returns the place, as JSON values; with what was bad up to there, if anything was."""
        known = [list(record) for record in self.bad_records.values()]
        state = self._batches.get_state()
        return state | {BAD_RECORDS: known} if known else state

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a place."""
        state = dict(state)
        known = [BadRecord(*record) for record in state.pop(BAD_RECORDS, [])]
        self.bad_records = {record.index: record for record in known}
        self._batches.set_state(state)

    def close(self) -> None:
        """Ends worker processes."""
        self._batches.close()

    def _note(self, record: BadRecord) -> None:
        if record.index in self.bad_records:
            return
        self.bad_records[record.index] = record
        count, most = len(self.bad_records), self._max_bad_records
        left_out = f"Left out {record.name} of {self._name}, which can't be read: {record.cause}"
        _LOGGER.warning("%s (%d so far, config.data.max_bad_records is %d)", left_out, count, most)
        if count > most:
            raise errors.BadDataError(
                f"Could not read {record.name} of {self._name}",
                f"{record.cause}. That makes {count}; expected at most {most}. "
                "Prepare the data set again, or set config.data.max_bad_records.",
            )
