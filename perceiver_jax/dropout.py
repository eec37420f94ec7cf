"""Dropout, and keys of randomness: one an example, however a batch is divided over devices."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def dropout(
    x: Float[Array, "B *N"], rate: float, rng: Key[Array, " B"] | None
) -> Float[Array, "B *N"]:
    """Dropout with one key an example, so that results don't depend on how a batch is sharded."""
    if rate == 0 or rng is None:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(rng)
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


def fold_in(rng: Key[Array, " B"] | None, index: int | jax.Array) -> Key[Array, " B"] | None:
    """A fresh key for each example of a batch; None stays None."""
    return None if rng is None else jax.vmap(jax.random.fold_in, (0, None))(rng, index)
