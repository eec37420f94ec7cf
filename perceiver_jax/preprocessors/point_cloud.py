"""Point clouds: every point is an input (section 4.3)."""

import dataclasses

import haiku as hk
from jaxtyping import Array, Bool, Float

from perceiver_jax import position_encoding as position_encodings
from perceiver_jax import tokens


@dataclasses.dataclass
class PointCloudPreprocessor(hk.Module):
    """Fourier features of the points' coordinates; the raw coordinates are part of them.

    Attributes:
      position_encoding: encodes coordinates in [-1, 1]; must not be a learned encoding, since
        points lie on no grid.
    """

    position_encoding: position_encodings.FourierEncoding
    name: str | None = None

    def __call__(
        self, points: Float[Array, "B M X"], mask: Bool[Array, "B M"] | None = None
    ) -> tokens.Tokens:
        """Gives one input a point."""
        return tokens.Tokens(self.position_encoding.encode(points), mask)
