"""Evaluation: every example once, its probabilities averaged over its windows."""

from collections.abc import Callable, Iterable, Mapping
import logging
from typing import NamedTuple

import jax
import numpy as np
import optax

from perceiver_jax.training import devices, metrics, steps

# What a batch has besides the inputs of the model.
ROWS = ("example_id", "mask", "label")
_MAX_LISTED = 8  # Examples that a message names.

_LOGGER = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """The result of an evaluation of E examples.

    Attributes:
      metrics: `loss`, `top1`, `top5` (of more than five classes), `mAP`, and where an example may
        have several labels `AUC` and `d_prime`.
      probabilities: [E, L], averaged over the windows of each example.
      labels: [E] or [E, L].
      num_windows: How many windows were evaluated, over all examples.
    """

    metrics: dict[str, float]
    probabilities: np.ndarray
    labels: np.ndarray
    num_windows: int

    @property
    def counts(self) -> dict[str, int]:
        """Of how many `examples` and `windows` the metrics are."""
        return {"examples": len(self.labels), "windows": self.num_windows}

    @property
    def main_metric(self) -> str:
        """Name of the metric that says which of two models is better."""
        return "mAP" if self.labels.ndim == 2 else "top1"


class _Sums(NamedTuple):
    """Sums over the windows of one example."""

    probabilities: np.ndarray
    loss: float
    num_windows: int
    label: np.ndarray


_Rows = tuple[dict[str, jax.Array], steps.Predictions]
Evaluate = Callable[[optax.Params, Iterable[Mapping[str, np.ndarray]]], Evaluation]


def make_evaluate(
    eval_step: Callable[..., steps.Predictions], parallelism: devices.Parallelism
) -> Evaluate:
    """Returns `evaluate(params, batches) -> Evaluation`, compiled when it is first called.

    Batches have `index` (the example that a row is a window of), `weight` (0 for padding) and
    `label`; `params` are where the parallelism places them. With several processes, each gives its
    own part of every batch, and all get the result for all of them.

    Args:
      eval_step: What `steps.make_eval_step` returned.
      parallelism: Of the devices that each batch is divided over.
    """

    def predict(params: optax.Params, batch: Mapping[str, jax.Array]) -> _Rows:
        return {name: batch[name] for name in ROWS}, eval_step(params, batch)

    run = parallelism.over_batch(predict)

    def evaluate(params: optax.Params, batches: Iterable[Mapping[str, np.ndarray]]) -> Evaluation:
        sums: dict[int, _Sums] = {}
        previous = None
        for batch in batches:
            rows = run(params, parallelism.place_batch(batch))
            if previous is not None:  # One batch late, so that the devices need not wait.
                _add(sums, *jax.device_get(previous))
            previous = rows
        if previous is not None:
            _add(sums, *jax.device_get(previous))
        return _summarise(sums)

    return evaluate


def _add(
    sums: dict[int, _Sums], batch: Mapping[str, np.ndarray], predictions: steps.Predictions
) -> None:
    probabilities = predictions.probabilities.astype(np.float64)
    for row in np.flatnonzero(batch["mask"]):
        index = int(batch["example_id"][row])
        so_far = sums.get(index, _Sums(0.0, 0.0, 0, batch["label"][row]))
        sums[index] = _Sums(
            so_far.probabilities + probabilities[row],
            so_far.loss + float(predictions.losses[row]),
            so_far.num_windows + 1,
            so_far.label,
        )


def _warn_of(not_finite: np.ndarray, num_examples: int) -> None:
    """Names the examples whose loss is not finite."""
    if not not_finite.size or jax.process_index():
        return
    more = ", ..." if not_finite.size > _MAX_LISTED else ""
    _LOGGER.warning(
        "The loss of %d of %d examples is not finite, and so is not the mean: numbers %s%s of the "
        "test split. Look whether they hold NaN or numbers that are far too large.",
        not_finite.size,
        num_examples,
        ", ".join(map(str, not_finite[:_MAX_LISTED])),
        more,
    )


def _summarise(sums: dict[int, _Sums]) -> Evaluation:
    if not sums:
        raise ValueError(
            "There were no examples to evaluate; expected at least one of weight > 0. "
            "Check the test split."
        )
    examples = [sums[index] for index in sorted(sums)]
    probabilities = np.stack([x.probabilities / x.num_windows for x in examples])
    labels = np.stack([x.label for x in examples])
    losses = np.array([x.loss / x.num_windows for x in examples])
    _warn_of(np.array(sorted(sums))[~np.isfinite(losses)], len(examples))
    result = {
        "loss": float(losses.mean()),
        "top1": metrics.top_k_accuracy(probabilities, labels, 1),
    }
    if probabilities.shape[1] > 5:
        result["top5"] = metrics.top_k_accuracy(probabilities, labels, 5)
    result["mAP"] = metrics.mean_average_precision(probabilities, labels)
    if labels.ndim == 2:
        result["AUC"] = metrics.mean_roc_auc(probabilities, labels)
        result["d_prime"] = metrics.d_prime(result["AUC"])
    return Evaluation(result, probabilities, labels, sum(x.num_windows for x in examples))
