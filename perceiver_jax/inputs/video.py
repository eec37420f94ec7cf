"""Video: space-time patches (section 4.2)."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import ClassVar

import haiku as hk
from jaxtyping import Array, Bool, Shaped

from perceiver_jax import tokens


@dataclasses.dataclass
class VideoPreprocessor(hk.Module):
    """Space-time patches with their positions.

    Attributes:
      mean: of each colour channel, in 0-1.
      std: standard deviation of each colour channel, in 0-1.
      patch_size: frames, rows and columns of a patch; (2, 8, 8) in the paper.
      position_encoding: of the grid of patches (time, row, column).
    """

    mean: Sequence[int | float]
    std: Sequence[int | float]
    patch_size: Sequence[int] = (2, 8, 8)
    position_encoding: Callable | None = None
    name: str | None = None

    axes: ClassVar[str] = "B T H W C"

    def __post_init__(self):
        """Checks the numbers."""
        super().__post_init__()
        tokens.check_pixels(self.mean, self.std)
        tokens.check_patches(self.patch_size, self.axes)

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The inputs along each axis, for an example of the given shape."""
        return tuple(n // p for n, p in zip(shape[:-1], self.patch_size, strict=True))

    def __call__(
        self, video: Shaped[Array, "B T H W C"], mask: Bool[Array, "B *M"] | None = None
    ) -> tokens.Tokens:
        """Gives one input a patch; frames are integers of 0 to 255, or normalised floats."""
        pixels = tokens.normalize_pixels(video, self.mean, self.std)
        patches = tokens.to_patches(pixels, self.patch_size)
        return tokens.from_grid(patches, self.position_encoding, mask)
