"""Classification losses, one value per example; the training step weighs and averages them."""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import optax


class Loss(NamedTuple):
    """A loss and the probabilities that belong to it.

    Attributes:
      per_example: `(logits [B, L], labels) -> losses [B]`.
      probabilities: `logits [B, L] -> probabilities [B, L]`.
    """

    per_example: Callable[[Array, Array], Array]
    probabilities: Callable[[Array], Array]


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


LOSSES = {
    "softmax": Loss(softmax_cross_entropy, jax.nn.softmax),
    "sigmoid": Loss(sigmoid_cross_entropy, jax.nn.sigmoid),
}


def build_loss(name: str, label_smoothing: float = 0.0) -> Loss:
    """Returns the loss called `name`.

    Args:
      name: 'softmax' (one class an example) or 'sigmoid' (any number of classes).
      label_smoothing: How far labels are moved towards ignorance, in [0, 1).

    Raises:
      ValueError: If there is no such loss, or the smoothing is out of range.
    """
    if name not in LOSSES:
        raise ValueError(
            f"Unknown loss {name!r}; expected one of {sorted(LOSSES)}: 'softmax' for one class an "
            "example, 'sigmoid' for several."
        )
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(
            f"label_smoothing is {label_smoothing}; expected 0 <= label_smoothing < 1. "
            "0 turns it off, 0.1 is usual."
        )
    loss = LOSSES[name]
    per_example = functools.partial(loss.per_example, label_smoothing=label_smoothing)
    return loss._replace(per_example=per_example)
