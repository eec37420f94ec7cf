"""Batch normalisation. Its moving averages are parameters, which training replaces.

They have no gradient, and the optimizer leaves them alone. In training, which is where `training`
is entered, Haiku's state holds their new values, for the caller to put in the place of the old.
"""

from collections.abc import Container, Iterator
import contextlib
import contextvars
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

AVERAGES = ("mean", "variance")  # Names of the parameters that are moving averages.
DECAY = 0.9
EPSILON = 1e-5


class _Training(NamedTuple):
    axis_name: str | None
    frozen: Container[str]


# None in evaluation. Read while a function is traced.
_training: contextvars.ContextVar[_Training | None] = contextvars.ContextVar(
    "training", default=None
)


@contextlib.contextmanager
def training(axis_name: str | None = None, frozen: Container[str] = ()) -> Iterator[None]:
    """Within it batch norms train; elsewhere they use their moving averages.

    Args:
      axis_name: the mapped axis that the batch is divided over; None if it is not.
      frozen: paths of parameters; batch norms whose averages are among them don't train.
    """
    token = _training.set(_Training(axis_name, frozen))
    try:
        yield
    finally:
        _training.reset(token)


class BatchNorm(hk.Module):
    """Each channel with zero mean and unit variance over batch and grid, then scaled and offset.

    In training these are of the batch, over all devices; the variance is the biased one. The moving
    averages m <- 0.9 m + 0.1 batch, from 0 and 1, normalise in evaluation.

    Every row of a batch counts, also one that was added to fill it, for nothing here tells it from
    others; examples that lack this input (`mask`) don't.

    References:
      Ioffe and Szegedy 2015, "Batch Normalization", https://arxiv.org/abs/1502.03167
    """

    def __call__(
        self, x: Float[Array, "B *X C"], mask: Bool[Array, " B"] | None = None
    ) -> Float[Array, "B *X C"]:
        """Normalises.

        Args:
          x: features on a grid.
          mask: True where an example has this input; None if all have.
        """
        scale = hk.get_parameter("scale", x.shape[-1:], init=jnp.ones)
        offset = hk.get_parameter("offset", x.shape[-1:], init=jnp.zeros)
        averages = (
            hk.get_parameter("mean", x.shape[-1:], init=jnp.zeros),
            hk.get_parameter("variance", x.shape[-1:], init=jnp.ones),
        )
        mean, variance = averages = jax.lax.stop_gradient(averages)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mode = _training.get()
        if mode is not None and f"{self.module_name}/{AVERAGES[0]}" not in mode.frozen:
            mean, variance, count = _statistics(wide, mask, mode.axis_name)
            rate = (1 - DECAY) * jnp.minimum(count, 1)  # A batch without examples changes nothing.
            for name, old, new in zip(AVERAGES, averages, (mean, variance), strict=True):
                hk.set_state(name, old + rate * (new - old))
        leading = tuple(range(x.ndim - 1))
        mean, variance, scale, offset = (
            jnp.expand_dims(each.astype(wide.dtype), leading)
            for each in (mean, variance, scale, offset)
        )
        return ((wide - mean) * (scale * jax.lax.rsqrt(variance + EPSILON)) + offset).astype(
            x.dtype
        )


def _statistics(x, mask, axis_name):
    """Mean and variance of each channel, over all devices, and the number of examples."""
    weights = jnp.ones(x.shape[:1], x.dtype) if mask is None else mask.astype(x.dtype)
    grid = tuple(range(1, x.ndim - 1))

    def total(value):
        return value if axis_name is None else jax.lax.psum(value, axis_name)

    count = total(weights.sum())
    weights = weights / jnp.maximum(count, 1)

    def average(value):
        return total(jnp.sum(weights[:, None] * value.mean(axis=grid), axis=0))

    # In two passes: the mean of squares less the square of the mean may come out negative.
    mean = average(x)
    variance = average(jnp.square(x - jnp.expand_dims(mean, tuple(range(x.ndim - 1)))))
    return mean, variance, count
