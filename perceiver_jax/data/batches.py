"""The iterator that training and evaluation see; it counts and names records that are bad."""

import logging
from typing import Any

from grain import python as grain
import numpy as np

from perceiver_jax.data import errors, reader

Batch = dict[str, np.ndarray]

_LOGGER = logging.getLogger(__name__)


class Batches:
    """Batches of arrays, in an order whose place can be saved and restored.

    Attributes:
        bad_records: what could not be decoded so far, by index in the split. Of several
            processes, each knows its own.
    """

    def __init__(self, batches: grain.DatasetIterator, name: str, max_bad_records: int):
        """Wraps Grain's iterator.

        Args:
            batches: of dictionaries that have a list `reader.BAD_RECORDS`.
            name: of the data set and its split, for messages.
            max_bad_records: with more of them, iteration ends with an error.
        """
        self._batches = batches
        self._name = name
        self._max_bad_records = max_bad_records
        self.bad_records: dict[int, reader.BadRecord] = {}

    def __iter__(self) -> "Batches":
        """Returns itself."""
        return self

    def __next__(self) -> Batch:
        """Returns the next batch.

        Raises:
            errors.BadDataError: too many records could not be decoded, or all of a batch.
        """
        batch = next(self._batches)
        bad = batch.pop(reader.BAD_RECORDS)
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
        return state | {reader.BAD_RECORDS: known} if known else state

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a place."""
        state = dict(state)
        known = [reader.BadRecord(*record) for record in state.pop(reader.BAD_RECORDS, [])]
        self.bad_records = {record.index: record for record in known}
        self._batches.set_state(state)

    def close(self) -> None:
        """Ends worker processes."""
        self._batches.close()

    def _note(self, record: reader.BadRecord) -> None:
        if record.index in self.bad_records:
            return
        self.bad_records[record.index] = record
        count = len(self.bad_records)
        _LOGGER.warning(
            "Left out %s of %s, which can't be read: %s (%d so far, config.data.max_bad_records is "
            "%d)",
            record.name,
            self._name,
            record.cause,
            count,
            self._max_bad_records,
        )
        if count > self._max_bad_records:
            raise errors.BadDataError(
                f"Could not read {record.name} of {self._name}",
                f"{record.cause}. That makes {count}; expected at most {self._max_bad_records}. "
                "Prepare the data set again, or set config.data.max_bad_records.",
            )
