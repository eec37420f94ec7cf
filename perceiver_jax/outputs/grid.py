"""A value at each position of a grid: pixels, frames, samples (Perceiver IO, section 3.2)."""

from collections.abc import Callable, Sequence
import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from perceiver_jax import config, decoder, position_encoding
from perceiver_jax.outputs import base


@dataclasses.dataclass
class GridDecoder(base.QueriedOutput):
    """Decodes each element of a grid from its position.

    Attributes:
      size: F, numbers an element, such as 3 of a pixel's colours or 16 of a patch of samples.
      index_dims: the grid's size along each axis, such as (frames, rows, columns).
      position_encoding: of the grid's elements; the queries.
      half_open: whether element i of n lies at -1 + 2 i / n, so that 1 is no position, as where the
        authors decode chosen elements (and so where their models were trained); else at
        -1 + 2 i / (n - 1), as inputs do. For Fourier features only.
    """

    size: int
    index_dims: Sequence[int]
    position_encoding: Callable | None = None
    half_open: bool = False

    def __post_init__(self):
        """Checks numbers."""
        super().__post_init__()
        config.check(vars(self), size=config.AT_LEAST_ONE, index_dims=config.AT_LEAST_ONE)
        if self.position_encoding is None:
            raise config.UserError(
                "position_encoding is None; expected a section, for elements are told apart by "
                "their positions alone. Set its kind to 'fourier' or 'learned'."
            )
        is_fourier = isinstance(self.position_encoding, position_encoding.FourierEncoding)
        if self.half_open and not is_fourier:
            raise config.UserError(
                "half_open is True, but position_encoding learns a vector for each element, "
                "wherever that lies. Set one of them otherwise."
            )

    def queries(self, context: decoder.Context) -> decoder.Queries:
        """The encoded positions."""
        del context
        encoding = self.position_encoding
        if not isinstance(encoding, position_encoding.FourierEncoding):
            return base.of_rows(encoding(self.index_dims))
        axes = [
            np.linspace(-1.0, 1.0, n + self.half_open, dtype=np.float32)[:n]
            for n in self.index_dims
        ]
        max_resolution = encoding.max_resolution or self.index_dims

        def take(indices):
            # Not all positions are ever there: those of 16 x 224 x 224 are 10 MB, encoded 600 MB.
            places = jnp.unravel_index(indices, self.index_dims)
            positions = jnp.stack(
                [jnp.asarray(axis)[i] for axis, i in zip(axes, places, strict=True)], axis=-1
            )
            encoded = encoding.encode(positions, max_resolution)
            return encoded if encoded.ndim == 3 else encoded[None]

        channels = encoding.size(len(self.index_dims))
        return decoder.Queries(math.prod(self.index_dims), channels, take)

    def arrange(
        self, decoded: Float[Array, "B O F"], context: decoder.Context
    ) -> Float[Array, "B *X F"]:
        """Brings the elements to their places."""
        del context
        return decoded.reshape(decoded.shape[0], *self.index_dims, self.size)
