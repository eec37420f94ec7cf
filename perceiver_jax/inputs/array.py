"""Any array `[B, *X, C]`: features on a grid of any number of axes, or a plain set of inputs."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import ClassVar

import haiku as hk
import jax.numpy as jnp
from jaxtyping import Array, Bool, Shaped
import numpy as np

from perceiver_jax import config, stems, tokens


@dataclasses.dataclass
class ArrayPreprocessor(hk.Module):
    """Features, or patches of them, with the positions of their grid.

    Attributes:
      position_encoding: encoding of the grid's elements, or patches; None for a set that has no
        order.
      patch_size: elements of a patch along each axis of the grid; None: each element is an input.
        A last patch that the array doesn't fill is filled up with what counts as masked.
      mean: of each channel, subtracted; None leaves values as they are.
      std: standard deviation of each channel, by which values are divided.
      mask_channels: whether a patch also says which of its elements are real, 1 or 0 for each.
      num_channels: of a linear map of each input, before its position; 0: there is none. A layer
        norm leaves little of inputs of few channels.
    """

    position_encoding: Callable | None = None
    patch_size: Sequence[int] | None = None
    mean: Sequence[int | float] | None = None
    std: Sequence[int | float] | None = None
    mask_channels: bool = False
    num_channels: int = 0
    name: str | None = None

    axes: ClassVar[str] = "B *X C"

    def __post_init__(self):
        """Checks the numbers."""
        super().__post_init__()
        config.check(vars(self), num_channels=config.COUNT)
        if self.patch_size is not None:
            config.check(vars(self), patch_size=config.AT_LEAST_ONE)
        elif self.mask_channels:
            raise config.UserError(
                "mask_channels is True, but an input that is no patch is real or is not read; "
                "expected a patch_size with it. Set one, or mask_channels to False."
            )
        if self.mean is not None:
            config.check(vars(self), mean=config.NUMBER)
        if self.std is not None:
            config.check(vars(self), std=config.POSITIVE)
        if len(self.mean or ()) != len(self.std or ()):
            raise config.UserError(
                f"mean is {self.mean} and std {self.std}; expected one of each a channel, or both "
                "None. Change them."
            )

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The inputs along each axis, for an example of the given shape."""
        dims = tuple(shape[:-1])
        if self.patch_size is None:
            return dims
        if len(self.patch_size) != len(dims):
            raise config.UserError(
                f"patch_size is {tuple(self.patch_size)} for an array of {dims} elements; expected "
                f"{len(dims)} numbers, one along each axis. Change it."
            )
        return tuple(-(-n // p) for n, p in zip(dims, self.patch_size, strict=True))

    def __call__(
        self, array: Shaped[Array, "B *X C"], mask: Bool[Array, "B *M"] | None = None
    ) -> tokens.Tokens:
        """Gives one input for each element of the grid, or each patch.

        Args:
          array: of any real numbers.
          mask: True where an element is real: one for each example, or for each element of the
            array, flat or not. A patch of which any is real is read, its other elements as zeros.
        """
        batch_size, *dims, _ = array.shape
        features, mask = self._normalize(array), tokens.spread_mask(mask, batch_size, dims)
        if mask is not None:
            mask = mask.reshape(batch_size, *dims)
        if self.patch_size is not None or self.num_channels:
            features = tokens.blank(tokens.to_floats(features), mask)
        if self.patch_size is not None:
            features, mask = self._patches(features, mask)
        if self.num_channels:
            features = stems.project(features, self.num_channels)
        return tokens.from_grid(features, self.position_encoding, mask)

    @hk.name_like("__call__")
    def _normalize(self, array: Shaped[Array, "B *X C"]) -> Shaped[Array, "B *X C"]:
        if self.mean is None:
            return array
        if len(self.mean) != array.shape[-1]:
            raise config.UserError(
                f"mean is {tuple(self.mean)} and std {tuple(self.std)}; expected one of each for "
                f"the {array.shape[-1]} channels of the array. Change them."
            )
        array = tokens.to_floats(array)
        mean, std = (
            np.asarray(x, array.dtype).reshape((1,) * (array.ndim - 1) + (-1,))
            for x in (self.mean, self.std)
        )
        return (array - mean) / std

    @hk.name_like("__call__")
    def _patches(
        self, features: Shaped[Array, "B *X C"], mask: Bool[Array, "B *X"] | None
    ) -> tuple[Shaped[Array, "B *P F"], Bool[Array, "B *P"] | None]:
        """Patches [B, *grid, prod(patch) * C], and which of them have anything that is real."""
        dims = features.shape[1:-1]
        grid = self.grid(features.shape[1:])
        fill = [(0, n * p - d) for n, p, d in zip(grid, self.patch_size, dims, strict=True)]

        def cut(x: Shaped[Array, "B *X _"]) -> Shaped[Array, "B *M _"]:
            return tokens.to_patches(jnp.pad(x, [(0, 0), *fill, (0, 0)]), self.patch_size)

        real = jnp.ones((1, *dims, 1), bool) if mask is None else mask[..., None]
        patches, real = cut(features), cut(real)
        if self.mask_channels:
            channels = jnp.broadcast_to(real, (*patches.shape[:-1], real.shape[-1]))
            patches = jnp.concatenate([patches, channels.astype(patches.dtype)], axis=-1)
        return patches, None if mask is None else real.any(axis=-1)
