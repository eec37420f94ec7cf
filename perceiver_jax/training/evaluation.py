"""Evaluation: every example once, its rows averaged over its windows."""

from collections.abc import Callable, Iterable, Mapping
import logging
from typing import NamedTuple

import jax
import numpy as np
import optax

from perceiver_jax import config
from perceiver_jax.training import devices
from perceiver_jax.training import task as task_lib

_MAX_LISTED = 8  # Examples that a message names.

_LOGGER = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """The result of an evaluation of E examples.

    Attributes:
      metrics: By name, those of the task.
      rows: What the task kept of each example [E, ...], averaged over its windows; and
        `example_id`, its place in the split.
      num_windows: How many windows were evaluated, over all examples.
    """

    metrics: dict[str, float]
    rows: dict[str, np.ndarray]
    num_windows: int

    @property
    def counts(self) -> dict[str, int]:
        """Of how many `examples` and `windows` the metrics are."""
        return {"examples": len(self.rows["example_id"]), "windows": self.num_windows}


Batches = Iterable[Mapping[str, np.ndarray]]


def make_evaluate(
    eval_step: Callable[..., dict[str, jax.Array]],
    task: task_lib.Task,
    sharding: devices.Sharding,
) -> Callable[[optax.Params, Batches], Evaluation]:
    """Returns `evaluate(params, batches) -> Evaluation`, compiled when it is first called.

    Batches have `example_id` (the example that a row is a window of) and `mask` (False for
    padding); `params` are where the sharding places them. With several processes, each gives its
    own part of every batch, and all get the result for all of them.

    Args:
      eval_step: What `steps.make_eval_step` returned.
      task: Whose metrics to compute.
      sharding: Of the devices that each batch is divided over.
    """

    def predict(params: optax.Params, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return eval_step(params, batch) | {key: batch[key] for key in ("example_id", "mask")}

    run = sharding.over_batch(predict)

    def evaluate(params: optax.Params, batches: Batches) -> Evaluation:
        sums = _Sums()
        previous = None
        for batch in batches:
            rows = run(params, sharding.place_batch(batch))
            if previous is not None:  # One batch late, so that the devices need not wait.
                sums.add(jax.device_get(previous))
            previous = rows
        if previous is not None:
            sums.add(jax.device_get(previous))
        rows = sums.means()
        _warn_of_not_finite(rows)
        return Evaluation(task.metrics(rows), rows, int(sums.num_windows.sum()))

    return evaluate


class _Sums:
    """Sums of rows over the windows of each example, by its ID."""

    def __init__(self):
        self.num_windows = np.zeros(0, int)
        self._sums: dict[str, np.ndarray] = {}
        self._dtypes: dict[str, np.dtype] = {}

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Adds the rows of a batch, those that are not padding."""
        kept = np.asarray(rows["mask"], bool)
        ids = rows["example_id"][kept]
        missing = int(ids.max(initial=-1)) + 1 - len(self.num_windows)
        if missing > 0:  # Twice as many, or else each batch would copy all.
            self.num_windows = _grown(self.num_windows, missing)
            self._sums = {name: _grown(x, missing) for name, x in self._sums.items()}
        np.add.at(self.num_windows, ids, 1)
        for name in rows.keys() - {"mask", "example_id"}:
            x = rows[name]
            if name not in self._sums:
                self._dtypes[name] = x.dtype
                self._sums[name] = np.zeros((len(self.num_windows), *x.shape[1:]))
            # In float64, so that what is the same in all windows, such as a label, stays exact.
            np.add.at(self._sums[name], ids, x[kept].astype(np.float64))

    def means(self) -> dict[str, np.ndarray]:
        """Returns the means over windows; integers as integers, all else in float64."""
        ids = np.flatnonzero(self.num_windows)
        if not ids.size:
            raise config.UserError(
                "There were no examples to evaluate; expected at least one that is not masked. "
                "Check the test split."
            )
        rows = {"example_id": ids}
        for name, sums in self._sums.items():
            count = self.num_windows[ids].reshape(-1, *[1] * (sums.ndim - 1))
            dtype = self._dtypes[name]
            rows[name] = (sums[ids] / count).astype(dtype if dtype.kind in "biu" else np.float64)
        return rows


def _grown(array: np.ndarray, missing: int) -> np.ndarray:
    more = max(missing, len(array))
    return np.concatenate([array, np.zeros((more, *array.shape[1:]), array.dtype)])


def _warn_of_not_finite(rows: Mapping[str, np.ndarray]) -> None:
    """Names the examples whose loss is not finite."""
    examples = rows["example_id"][~np.isfinite(rows["loss"])]
    if not examples.size or jax.process_index():
        return
    more = ", ..." if examples.size > _MAX_LISTED else ""
    _LOGGER.warning(
        "The loss of %d of %d examples is not finite, and so is not the mean: numbers %s%s of the "
        "test split. Look whether they hold NaN or numbers that are far too large.",
        examples.size,
        len(rows["example_id"]),
        ", ".join(map(str, examples[:_MAX_LISTED])),
        more,
    )
