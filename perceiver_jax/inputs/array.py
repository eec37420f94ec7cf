"""Any array `[B, *X, C]`: features on a grid of any number of axes, or a plain set of inputs."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import ClassVar

import haiku as hk
from jaxtyping import Array, Bool, Shaped

from perceiver_jax import tokens


@dataclasses.dataclass
class ArrayPreprocessor(hk.Module):
    """Features as they are, with the positions of their grid.

    Attributes:
      position_encoding: encoding of the grid's elements; None for a set that has no order.
    """

    position_encoding: Callable | None = None
    name: str | None = None

    axes: ClassVar[str] = "B *X C"

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The inputs along each axis, for an example of the given shape."""
        return tuple(shape[:-1])

    def __call__(
        self, array: Shaped[Array, "B *X C"], mask: Bool[Array, "B *M"] | None = None
    ) -> tokens.Tokens:
        """Gives one input for each element of the grid."""
        return tokens.from_grid(array, self.position_encoding, mask)
