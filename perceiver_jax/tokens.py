"""Tokens: what every preprocessor gives the encoder, whatever the modality."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
import numpy as np


class Tokens(NamedTuple):
    """The byte array: inputs with their positions, in no particular order.

    Attributes:
      values: M inputs of C channels.
      mask: True where an input is real; None if all are.
    """

    values: Float[Array, "B M C"]
    mask: Bool[Array, "B M"] | None = None


def from_grid(
    features: Float[Array, "B *X C"],
    encoding: Callable[[Sequence[int]], Array] | None,
    mask: Bool[Array, "B *M"] | None = None,
) -> Tokens:
    """Flattens a grid of features and concatenates its position encoding.

    Args:
      features: a grid with any number of axes.
      encoding: gives one vector for each element of a grid of that size; None adds nothing.
      mask: for each example, or for each element of each example.

    Returns:
      Tokens of `[features, positions]` channels.
    """
    batch_size, *index_dims, channels = features.shape
    values = features.reshape(batch_size, -1, channels)
    if encoding is not None:
        positions = encoding(index_dims)
        positions = jnp.broadcast_to(positions[None], (batch_size, *positions.shape))
        values = jnp.concatenate([values, positions.astype(values.dtype)], axis=-1)
    if mask is not None:
        mask = mask.reshape(batch_size, -1)
        mask = jnp.broadcast_to(mask, values.shape[:2])
    return Tokens(values, mask)


def to_patches(grid: Array, patch_size: Sequence[int]) -> Array:
    """Cuts `[B, *X, C]` into patches: `[B, *(X / patch), prod(patch) * C]`.

    Raises:
      ValueError: if the patches don't tile the grid.
    """
    batch_size, *dims, channels = grid.shape
    if len(patch_size) != len(dims) or any(n % p for n, p in zip(dims, patch_size, strict=True)):
        raise ValueError(
            f"Patches of {tuple(patch_size)} don't tile an array of {tuple(dims)}; "
            "each patch size must divide its axis. Change the patch size or crop the input."
        )
    counts = [n // p for n, p in zip(dims, patch_size, strict=True)]
    split = [size for pair in zip(counts, patch_size, strict=True) for size in pair]
    num_dims = len(dims)
    order = (0, *range(1, 2 * num_dims, 2), *range(2, 2 * num_dims + 1, 2), 2 * num_dims + 1)
    patches = grid.reshape(batch_size, *split, channels).transpose(order)
    return patches.reshape(batch_size, *counts, -1)


def normalize_pixels(
    pixels: Array, mean: Sequence[int | float], std: Sequence[int | float]
) -> Float[Array, "..."]:
    """Turns uint8 pixels into floats of about zero mean; floats are taken as already normalised.

    Args:
      pixels: `[..., C]`, in 0-255 if uint8.
      mean: of each channel, in 0-1.
      std: standard deviation of each channel, in 0-1.
    """
    if jnp.issubdtype(pixels.dtype, jnp.floating):
        return pixels
    if pixels.shape[-1] != len(mean) or len(mean) != len(std):
        raise ValueError(
            f"Pixels of {pixels.shape[-1]} channels with {len(mean)} means and {len(std)} "
            "standard deviations; expected one of each a channel."
        )
    scale, offset = (
        np.asarray(x, np.float32).reshape((1,) * (pixels.ndim - 1) + (-1,)) for x in (std, mean)
    )
    return (pixels.astype(jnp.float32) / 255 - offset) / scale


def permute(tokens: Tokens, seed: int) -> Tokens:
    """Reorders the inputs of all examples by one permutation, the same for all time."""
    order = np.random.default_rng(seed).permutation(tokens.values.shape[1])
    return jax.tree.map(lambda x: x[:, order], tokens)
