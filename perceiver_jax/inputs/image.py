"""Images: every pixel is an input (section 4.1), or what a stem makes of them (Perceiver IO)."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, ClassVar

import haiku as hk
from jaxtyping import Array, Bool, Shaped

from perceiver_jax import config, stems, tokens


@dataclasses.dataclass
class ImagePreprocessor(hk.Module):
    """Pixels with their positions, optionally in one fixed random order.

    Attributes:
      mean: of each colour channel, in 0-1.
      std: standard deviation of each colour channel, in 0-1.
      position_encoding: of the inputs; coordinates are relative to the crop that comes in.
      permutation_seed: reorders the inputs after their positions are attached (permuted
        ImageNet); -1 keeps the raster order.
      stem: what the pixels go through first, with a `kind` of `stems.STEMS` and its attributes;
        None: nothing, every pixel is an input.
    """

    mean: Sequence[int | float]
    std: Sequence[int | float]
    position_encoding: Callable | None = None
    permutation_seed: int = -1
    stem: Mapping[str, Any] | None = None
    name: str | None = None

    axes: ClassVar[str] = "B H W C"

    def __post_init__(self):
        """Checks the numbers."""
        super().__post_init__()
        tokens.check_pixels(self.mean, self.std)
        config.check(vars(self), permutation_seed=config.Range(-1, config.MAX_INT, whole=True))
        self._stem = None
        if self.stem is not None:
            self._stem = config.build_from_table(stems.STEMS, self.stem, "stem")

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The inputs along each axis, for an example of the given shape."""
        rows, columns, _ = shape
        return (rows, columns) if self._stem is None else self._stem.grid(rows, columns)

    def in_order(self, values: Shaped[Array, "*B M"]) -> Shaped[Array, "*B M"]:
        """Brings what belongs to the inputs into the order of the pixels."""
        if self.permutation_seed < 0:
            return values
        return tokens.unpermute(values, self.permutation_seed)

    def __call__(
        self, images: Shaped[Array, "B H W C"], mask: Bool[Array, "B *M"] | None = None
    ) -> tokens.Tokens:
        """Gives an input for each element of `grid`.

        Args:
          images: integers of 0 to 255, or floats that are normalised.
          mask: True where an input is real. A stem sees the pixels of the others as zeros.
        """
        features = tokens.normalize_pixels(images, self.mean, self.std)
        if self._stem is not None:
            features, mask = self._after_stem(features, mask)
        inputs = tokens.from_grid(features, self.position_encoding, mask)
        if self.permutation_seed < 0:
            return inputs
        return tokens.permute(inputs, self.permutation_seed)

    @hk.name_like("__call__")
    def _after_stem(self, pixels, mask):
        grid = self.grid(pixels.shape[1:])
        mask = tokens.spread_mask(mask, pixels.shape[0], grid)
        if mask is not None:
            pixels = tokens.blank(pixels, stems.spread(mask.reshape(-1, *grid), pixels.shape[1:3]))
        there = None if mask is None else mask.any(axis=1)
        with hk.name_scope("stem"):
            return self._stem(pixels, there), mask
