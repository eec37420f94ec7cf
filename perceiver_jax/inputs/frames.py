"""Two frames of a film for optical flow: the surroundings of a pixel in both are an input."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import ClassVar

import haiku as hk
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from perceiver_jax import config, stems, tokens


@dataclasses.dataclass
class FramesPreprocessor(hk.Module):
    """Patches around each pixel, of both frames together, and a linear map (Perceiver IO, 4.2).

    Attributes:
      mean: of each colour channel, in 0-1.
      std: standard deviation of each colour channel, in 0-1.
      patch_size: rows and columns of the patch around a pixel, odd; zeros are outside of the frame.
      num_channels: of the linear map; 0: there is none.
      position_encoding: of the pixels.
    """

    mean: Sequence[int | float]
    std: Sequence[int | float]
    patch_size: Sequence[int] = (3, 3)
    num_channels: int = 64
    position_encoding: Callable | None = None
    name: str | None = None

    axes: ClassVar[str] = "B T H W C"

    def __post_init__(self):
        """Checks the numbers."""
        super().__post_init__()
        tokens.check_pixels(self.mean, self.std)
        tokens.check_patches(self.patch_size, "B H W C")
        if not all(size % 2 for size in self.patch_size):
            raise config.UserError(
                f"patch_size is {self.patch_size}; expected odd numbers, for a pixel is in the "
                "middle of its patch. Change them."
            )
        config.check(vars(self), num_channels=config.COUNT)

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The inputs along each axis, for an example of the given shape."""
        return tuple(shape[1:3])

    def __call__(
        self, frames: Shaped[Array, "B T H W C"], mask: Bool[Array, "B *M"] | None = None
    ) -> tokens.Tokens:
        """Gives H * W inputs of two frames: integers of 0 to 255, or floats that are normalised.

        Where the mask is False pixels count as outside of the frames.
        """
        batch_size, count, *size, _ = frames.shape
        if count != 2:
            raise config.UserError(
                f"There are {count} frames; expected 2, [B, 2, H, W, C]: flow is from the first to "
                "the second. Give pairs."
            )
        pixels = tokens.normalize_pixels(frames, self.mean, self.std)
        mask = tokens.spread_mask(mask, batch_size, size)
        # Frames follow each other along the channels, here and in the patches: [B, H, W, 2 * C].
        if mask is not None:
            visible = jnp.expand_dims(mask.reshape(batch_size, *size), (1, 4))
            pixels = jnp.where(visible, pixels, jnp.zeros((), pixels.dtype))
        patches = jnp.concatenate(
            [surroundings(pixels[:, i], self.patch_size) for i in range(count)], axis=-1
        )
        if self.num_channels:
            patches = stems.project(patches, self.num_channels)
        return tokens.from_grid(patches, self.position_encoding, mask)


def surroundings(pixels: Float[Array, "B H W C"], size: Sequence[int]) -> Float[Array, "B H W F"]:
    """The patch around each pixel, by row, column and channel, with zeros outside of the image."""
    _, rows, columns, _ = pixels.shape
    above, left = (n // 2 for n in size)
    padded = jnp.pad(pixels, ((0, 0), (above, above), (left, left), (0, 0)))
    return jnp.concatenate(
        [padded[:, i : i + rows, j : j + columns] for i in range(size[0]) for j in range(size[1])],
        axis=-1,
    )
