"""Which class, or which classes, an example is of."""

from collections.abc import Iterator, Mapping, Sequence
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np
import optax
import rich.table
import rich.text

from perceiver_jax import config as config_lib
from perceiver_jax.tasks import metrics, plots, targets

NUM_LEAST = 5  # Classes that are named as recognised least.
_ACCURACY = metrics.Panel("accuracy, mAP", (-0.02, 1.02))

Rows = Mapping[str, np.ndarray]


def softmax_cross_entropy(
    logits: Float[Array, "B L"],
    labels: Int[Array, " B"] | Float[Array, "B L"],
    label_smoothing: float = 0.0,
) -> Float[Array, " B"]:
    """Cross-entropy of one class out of L, `-sum_l y_l log softmax(logits)_l`.

    Args:
      logits: Unnormalised log-probabilities.
      labels: The class of each example, or a distribution over the classes (MixUp, CutMix).
      label_smoothing: s in `y (1 - s) + s / L`.
    """
    if labels.ndim == 1:
        labels = jax.nn.one_hot(labels, logits.shape[-1])
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(labels, label_smoothing))


def sigmoid_cross_entropy(
    logits: Float[Array, "B L"], labels: Float[Array, "B L"], label_smoothing: float = 0.0
) -> Float[Array, " B"]:
    """Sum over the classes of L independent binary cross-entropies.

    The paper says "sigmoid cross-entropy" only. We sum over classes rather than average, so that
    the gradient of a logit does not shrink as classes are added: with AudioSet's 527 classes, a
    mean would bring gradients near the optimizer's epsilon. An untrained model scores L log 2.

    Args:
      logits: Log-odds of each class.
      labels: Multi-hot labels.
      label_smoothing: s in `y (1 - s) + s / 2`.
    """
    targets = labels * (1.0 - label_smoothing) + label_smoothing / 2.0
    # Not `optax.sigmoid_binary_cross_entropy`, the same sum in another order: compiled, its last
    # bit differs now and then, and a run resumes to the bit.
    log_p, log_not_p = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return -jnp.sum(targets * log_p + (1.0 - targets) * log_not_p, axis=-1)


# The loss of each example, and the probabilities that belong to it.
LOSSES = {
    "softmax": (softmax_cross_entropy, jax.nn.softmax),
    "sigmoid": (sigmoid_cross_entropy, jax.nn.sigmoid),
}


def _mean_loss(rows: Rows, _: Mapping[str, float]) -> np.floating:
    """The mean, in which a class that weighs more counts for more: of a split of any classes."""
    if "weight" not in rows:
        return rows["loss"].mean()
    return rows["loss"].sum() / max(rows["weight"].sum(), np.finfo(np.float32).tiny)


def _of_scores(function, *args):
    return lambda rows, _: function(rows["scores"], rows["target"], *args)


# A metric is one entry here. `top5` is for more than five classes, AUC and d' for several labels.
METRICS = {
    "loss": metrics.Metric("loss", _mean_loss, metrics.LOSS),
    "top1": metrics.Metric("top-1", _of_scores(metrics.top_k_accuracy, 1), _ACCURACY),
    "top5": metrics.Metric("top-5", _of_scores(metrics.top_k_accuracy, 5), _ACCURACY, ":"),
    "mAP": metrics.Metric("mAP", _of_scores(metrics.mean_average_precision), _ACCURACY, "--"),
    "AUC": metrics.Metric("AUC", _of_scores(metrics.mean_roc_auc)),
    "d_prime": metrics.Metric("d'", lambda _, known: metrics.d_prime(known["AUC"])),
}


class Classification:
    """Classes from logits.

    Args:
      target: Name of the field of classes, and of the output that has a logit a class.
      fields: Of the data set; this one has `num_classes`, and `multi_label` if an example may have
        several.
      loss: 'softmax' for one class an example, 'sigmoid' for several.
      label_smoothing: How far labels are moved towards ignorance, in [0, 1).
      class_weights: Factor of the losses of each class, with one class an example, against rare
        classes being passed over; none: all classes alike.

    Attributes:
      target: As given.
      outputs: A logit a class.
      description: What is predicted, for people.
      main_metric: mAP if an example may have several classes, else top-1.
      lower_is_better: False.
      shown: The metrics.

    Raises:
      config.UserError: If the field has no classes, the loss is unknown or does not suit them, or
        there are not as many weights as classes.
    """

    lower_is_better = False

    def __init__(
        self,
        *,
        target: str,
        fields: Mapping[str, Any],
        loss: str = "softmax",
        label_smoothing: int | float = 0.0,
        class_weights: Sequence[int | float] = (),
    ):
        """Checks that loss and weights suit the field."""
        field = targets.find(fields, target)
        if not hasattr(field, "num_classes"):
            raise config_lib.UserError(
                f"target is {target!r}, which has numbers and no classes. For numbers, set "
                "config.task.kind to 'regression'; or give classes as integers: astype(int)."
            )
        config_lib.check_known("loss", loss, LOSSES)
        config_lib.check({"label_smoothing": label_smoothing}, label_smoothing=config_lib.BELOW_ONE)
        if loss == "sigmoid" and not field.multi_label:
            raise config_lib.UserError(
                f"loss is 'sigmoid'; {target!r} is one class an example. Set it to 'softmax'."
            )
        if class_weights:
            config_lib.check(locals(), class_weights=config_lib.NOT_NEGATIVE)
        if class_weights and (len(class_weights) != field.num_classes or loss == "sigmoid"):
            raise config_lib.UserError(
                f"class_weights has {len(class_weights)} numbers, and loss is {loss!r}; expected "
                f"one for each of the {field.num_classes} classes and 'softmax', or none: (). "
                "Change it."
            )
        self._class_weights = np.array(class_weights, np.float32)
        self.target, self._size = target, field.num_classes
        self.outputs = {target: self._size}
        self.description = f"{self._size} classes"
        self.main_metric = "mAP" if field.multi_label else "top1"
        absent = set() if self._size > 5 else {"top5"}
        absent |= set() if field.multi_label else {"AUC", "d_prime"}
        self.shown = {name: metric for name, metric in METRICS.items() if name not in absent}
        self._multi_label = field.multi_label
        cross_entropy, self._probabilities = LOSSES[loss]
        self._losses = functools.partial(cross_entropy, label_smoothing=label_smoothing)

    def loss(
        self, outputs: Mapping[str, Array], batch: Mapping[str, Array]
    ) -> tuple[Float[Array, " B"], dict[str, Bool[Array, " B"]]]:
        """Returns the loss of each example, and `top1`: whether a true class scores highest."""
        logits, labels = outputs[self.target], batch[self.target]
        shape = (labels.shape[0], self.outputs[self.target])
        targets.check_shape(self.target, logits, shape, targets.OF_AN_EXAMPLE)
        losses = self._losses(logits, labels)
        if self._class_weights.size:
            losses *= self._weights(labels)
        return losses, {"top1": _best_is_true(logits, labels)}

    def rows(self, outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> dict[str, Array]:
        """Returns `scores` (probabilities [B, L]), `target`, `loss`, and `weight` where it matters.

        The losses are those of training, smoothing and weights included, so that the two can be
        compared.
        """
        logits, labels = outputs[self.target], batch[self.target]
        rows = {
            "scores": self._probabilities(logits),
            "target": labels,
            "loss": self.loss(outputs, batch)[0],
        }
        return rows | ({"weight": self._weights(labels)} if self._class_weights.size else {})

    def _weights(self, labels: Array) -> Array:
        """The weight of each example's class; of labels that are mixed, in proportion."""
        weights = jnp.asarray(self._class_weights)
        return weights[labels] if labels.ndim == 1 else labels @ weights

    def metrics(self, rows: Rows) -> dict[str, float]:
        """Returns `shown` of a whole split."""
        return metrics.compute(self.shown, rows)

    def predict(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the probabilities of the classes [B, L]."""
        return {self.target: self._probabilities(outputs[self.target])}

    def render(
        self, rows: Rows, names: Mapping[str, Sequence[str]], examples: Any
    ) -> Iterator[tuple[str, Any]]:
        """Yields the confusion matrix, figures of each class, and the worst classes."""
        del examples
        names = names[self.target]
        scores, labels = rows["scores"], rows["target"]
        # With several labels an example, one row for each of them.
        examples, classes = np.nonzero(metrics.multi_hot(labels, self._size))
        confusion = metrics.confusion_matrix(scores[examples], classes)
        yield "confusion.png", plots.draw_confusion(confusion, names)
        if self._multi_label:
            name = "average_precision"
            values = metrics.average_precision_per_class(scores, labels)
        else:
            name, values = "accuracy", metrics.accuracy_per_class(confusion)
        yield "per_class.png", plots.draw_per_class(values, names, name.replace("_", " "))
        lines = {
            class_name: {name: None if np.isnan(value) else float(value), "examples": int(count)}
            for class_name, value, count in zip(names, values, confusion.sum(axis=1), strict=True)
        }
        yield "per_class.json", json.dumps(lines, indent=2) + "\n"
        if not self._multi_label:
            yield "", f"mean of the classes' accuracies: {np.nanmean(values):.4f}"
            table = _least_recognised(confusion, values, names)
            if table.rows:
                yield "", table


def _best_is_true(
    logits: Float[Array, "B L"], labels: Int[Array, " B"] | Float[Array, "B L"]
) -> Bool[Array, " B"]:
    best = jnp.argmax(logits, axis=-1)
    if labels.ndim == 1:
        return best == labels
    # Of mixed labels, the class with the largest share is the true one.
    share = jnp.take_along_axis(labels, best[:, None], axis=-1)[:, 0]
    return (share > 0) & (share == jnp.max(labels, axis=-1))


def _least_recognised(
    confusion: np.ndarray, accuracy: np.ndarray, names: Sequence[str]
) -> rich.table.Table:
    table = rich.table.Table("recognised least", "accuracy", "examples", "most often taken for")
    for label in np.argsort(accuracy, kind="stable")[:NUM_LEAST]:  # NaN, no examples, comes last.
        if not accuracy[label] < 1:
            continue
        wrong = np.where(np.arange(len(names)) == label, 0, confusion[label])
        other = f"{names[wrong.argmax()]} ({wrong.max()})"
        table.add_row(
            rich.text.Text(names[label]),
            f"{accuracy[label]:.4f}",
            f"{confusion[label].sum():,}",
            rich.text.Text(other),
        )
    return table
