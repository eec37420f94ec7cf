"""Images: every pixel is an input (section 4.1)."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import ClassVar

import haiku as hk
from jaxtyping import Array, Bool, Shaped

from perceiver_jax import config, tokens


@dataclasses.dataclass
class ImagePreprocessor(hk.Module):
    """Pixels with their positions, optionally in one fixed random order.

    Attributes:
      mean: of each colour channel, in 0-1.
      std: standard deviation of each colour channel, in 0-1.
      position_encoding: of the pixels; coordinates are relative to the crop that comes in.
      permutation_seed: reorders the inputs after their positions are attached (permuted
        ImageNet); -1 keeps the raster order.
    """

    mean: Sequence[int | float]
    std: Sequence[int | float]
    position_encoding: Callable | None = None
    permutation_seed: int = -1
    name: str | None = None

    axes: ClassVar[str] = "B H W C"

    def __post_init__(self):
        """Checks the numbers."""
        super().__post_init__()
        tokens.check_pixels(self.mean, self.std)
        config.check(vars(self), permutation_seed=config.Range(-1, config.MAX_INT, whole=True))

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The inputs along each axis, for an example of the given shape."""
        return tuple(shape[:-1])

    def in_order(self, values: Shaped[Array, "*B M"]) -> Shaped[Array, "*B M"]:
        """Brings what belongs to the inputs into the order of the pixels."""
        if self.permutation_seed < 0:
            return values
        return tokens.unpermute(values, self.permutation_seed)

    def __call__(
        self, images: Shaped[Array, "B H W C"], mask: Bool[Array, "B *M"] | None = None
    ) -> tokens.Tokens:
        """Gives H * W inputs; images are integers of 0 to 255, or floats that are normalised."""
        pixels = tokens.normalize_pixels(images, self.mean, self.std)
        inputs = tokens.from_grid(pixels, self.position_encoding, mask)
        if self.permutation_seed < 0:
            return inputs
        return tokens.permute(inputs, self.permutation_seed)
