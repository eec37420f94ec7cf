"""Tokens: what every preprocessor gives the encoder, whatever the modality."""

from collections.abc import Callable, Sequence
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped
import numpy as np

from perceiver_jax import config

# Integers that hold pixels of 0 to 255: as they are stored, or after arithmetic.
_PIXEL_DTYPES = ("uint8", "int16", "int32", "int64")
_STD = config.Range(1e-6, 1)  # Of pixels in 0 to 1; 1 leaves them as they are.


class Tokens(NamedTuple):
    """The byte array: inputs with their positions, in no particular order.

    Attributes:
      values: M inputs of C channels.
      mask: True where an input is real; None if all are.
    """

    values: Float[Array, "B M C"]
    mask: Bool[Array, "B M"] | None = None


def from_grid(
    features: Shaped[Array, "B *X C"],
    encoding: Callable[[Sequence[int]], Array] | None,
    mask: Bool[Array, "B *M"] | None = None,
) -> Tokens:
    """Flattens a grid of features and concatenates its position encoding.

    Args:
      features: a grid with any number of axes; whole numbers and booleans count as floats.
      encoding: gives one vector for each element of a grid of that size; None adds nothing.
      mask: see `spread_mask`.

    Returns:
      Tokens of `[features, positions]` channels.
    """
    batch_size, *index_dims, channels = features.shape
    values = to_floats(features.reshape(batch_size, -1, channels))
    if encoding is not None:
        positions = encoding(index_dims)
        positions = jnp.broadcast_to(positions[None], (batch_size, *positions.shape))
        values = jnp.concatenate([values, positions], axis=-1)
    return Tokens(values, spread_mask(mask, batch_size, index_dims))


def to_floats(x: Shaped[Array, "*X"]) -> Float[Array, "*X"]:
    """Floats of at least 32 bits, in which positions keep their differences."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x.astype(jnp.result_type(float))


def spread_mask(
    mask: Bool[Array, "B *M"] | None, batch_size: Any, index_dims: Sequence[int]
) -> Bool[Array, "B M"] | None:
    """One truth value an input.

    Args:
      mask: for each example; or for each element of its grid, flat or not.
      batch_size: B, a number or the symbol of one.
      index_dims: the grid's size along each axis.

    Returns:
      The mask of the flat grid; None stays None.

    Raises:
      ValueError: for a mask of another shape.
    """
    if mask is None:
        return None
    num_inputs = math.prod(index_dims)
    allowed = dict.fromkeys([(batch_size,), (batch_size, num_inputs), (batch_size, *index_dims)])
    if mask.shape not in allowed:
        raise config.UserError(
            f"The mask has shape {mask.shape}; expected {' or '.join(map(str, allowed))}: one "
            "for each example, or for each of its inputs. Correct the mask."
        )
    return jnp.broadcast_to(mask.reshape(batch_size, -1), (batch_size, num_inputs))


def blank(x: Shaped[Array, "B *X"], mask: Bool[Array, "B *M"] | None) -> Shaped[Array, "B *X"]:
    """Zeros where the mask is False, so that NaN there meets no weight, not even one of zero.

    Args:
      x: an array whose first axes are those of the mask.
      mask: True where x is real; None for everywhere.
    """
    if mask is None:
        return x
    mask = jnp.expand_dims(mask, tuple(range(mask.ndim, x.ndim)))
    return jnp.where(mask, x, jnp.zeros((), x.dtype))


def to_patches(grid: Array, patch_size: Sequence[int]) -> Array:
    """Cuts `[B, *X, C]` into patches: `[B, *(X / patch), prod(patch) * C]`.

    Raises:
      ValueError: if the patches don't tile the grid.
    """
    batch_size, *dims, channels = grid.shape
    if len(patch_size) != len(dims) or any(n % p for n, p in zip(dims, patch_size, strict=True)):
        raise config.UserError(
            f"patch_size is {tuple(patch_size)}, which doesn't tile an array of {tuple(dims)}; "
            "each number must divide its axis. Change it, or crop the input."
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
    """Turns pixels of 0 to 255 into floats of about zero mean; floats are taken as normalised.

    Args:
      pixels: `[..., C]`; integers are in 0-255, whatever their width.
      mean: of each channel, in 0-1.
      std: standard deviation of each channel, in 0-1.

    Raises:
      ValueError: for another number of channels than means, or a dtype of another range.
    """
    if jnp.issubdtype(pixels.dtype, jnp.floating):
        return pixels
    if pixels.dtype not in _PIXEL_DTYPES:
        raise config.UserError(
            f"Pixels are {pixels.dtype}; expected integers of 0 to 255 "
            f"({', '.join(_PIXEL_DTYPES)}), or floats that are normalised. Scale and convert them."
        )
    if pixels.shape[-1] != len(mean) or len(mean) != len(std):
        raise config.UserError(
            f"mean is {tuple(mean)} and std {tuple(std)}; expected one of each for the "
            f"{pixels.shape[-1]} channels of the pixels. Change them."
        )
    scale, offset = (
        np.asarray(x, np.float32).reshape((1,) * (pixels.ndim - 1) + (-1,)) for x in (std, mean)
    )
    return (pixels.astype(jnp.float32) / 255 - offset) / scale


def check_patches(patch_size: Sequence[int], axes: str) -> None:
    """Raises a UserError unless a patch has a size along each axis but B and C."""
    config.check(locals(), patch_size=config.AT_LEAST_ONE)
    names = [name for name in axes.split() if name not in "BC"]
    if len(patch_size) != len(names):
        raise config.UserError(
            f"patch_size is {patch_size}; expected {len(names)} numbers, of {' '.join(names)}."
        )


def check_pixels(mean: Sequence[int | float], std: Sequence[int | float]) -> None:
    """Raises a UserError unless there is a standard deviation for each mean, both of 0 to 1."""
    config.check(locals(), mean=config.FRACTION, std=_STD)
    if len(mean) != len(std):
        raise config.UserError(f"mean is {mean} and std {std}; expected one of each a channel.")


def unpermute(values: Shaped[Array, "*B M"], seed: int) -> Shaped[Array, "*B M"]:
    """Brings what belongs to the inputs that `permute` gives back to their first order."""
    order = np.random.default_rng(seed).permutation(values.shape[-1])
    return values[..., np.argsort(order)]


def permute(tokens: Tokens, seed: int) -> Tokens:
    """Reorders the inputs of all examples by one permutation, the same for all time."""
    order = np.random.default_rng(seed).permutation(tokens.values.shape[1])
    return jax.tree.map(lambda x: x[:, order], tokens)
