"""Point clouds: every point is an input (section 4.3)."""

import dataclasses
from typing import ClassVar

import haiku as hk
from jaxtyping import Array, Bool, Shaped

from perceiver_jax import config, tokens
from perceiver_jax import position_encoding as position_encodings


@dataclasses.dataclass
class PointCloudPreprocessor(hk.Module):
    """Fourier features of the points' coordinates; the raw coordinates are part of them.

    Attributes:
      position_encoding: encodes coordinates in [-1, 1]; must not be a learned encoding, since
        points lie on no grid.
    """

    position_encoding: position_encodings.FourierEncoding
    name: str | None = None

    axes: ClassVar[str] = "B M X"

    def __post_init__(self):
        """Checks that the encoding can do without a grid."""
        super().__post_init__()
        encoding = self.position_encoding
        if getattr(encoding, "max_resolution", None) is None:
            raise config.UserError(
                f"position_encoding is {type(encoding).__name__}; expected kind 'fourier' with "
                "max_resolution, for points lie on no grid. Set one number for each of their "
                "dimensions."
            )

    def __call__(
        self, points: Shaped[Array, "B M X"], mask: Bool[Array, "B *M"] | None = None
    ) -> tokens.Tokens:
        """Gives one input a point."""
        mask = tokens.spread_mask(mask, points.shape[0], points.shape[1:2])
        # Before the sines: the derivative of one is NaN at NaN.
        return tokens.Tokens(self.position_encoding.encode(tokens.blank(points, mask)), mask)
