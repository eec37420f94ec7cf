"""Optical flow: each pixel is decoded from its own input (Perceiver IO, section 4.2)."""

import dataclasses

from jaxtyping import Array, Float

from perceiver_jax import config, decoder
from perceiver_jax.outputs import base


@dataclasses.dataclass
class FlowDecoder(base.QueriedOutput):
    """Decodes each input from its own token, which no residual adds to what it attended to.

    Attributes:
      size: F, numbers a pixel; 2 of a flow, horizontal and vertical.
      reads: name of the input whose tokens are the queries.
      scale: outputs are multiplied by it; in the authors' code 1/100, and 20 afterwards.
    """

    size: int = 2
    reads: str = "frames"
    scale: float = 1.0

    def __post_init__(self):
        """Checks numbers."""
        super().__post_init__()
        config.check(vars(self), size=config.AT_LEAST_ONE, scale=config.POSITIVE)

    def queries(self, context: decoder.Context) -> decoder.Queries:
        """The tokens of the input."""
        values = context.tokens[self.reads].values

        return decoder.Queries(
            *values.shape[1:], lambda indices: decoder.take_rows(values, indices)
        )

    def head(self, channels, context, name):
        """The linear layer, scaled."""
        layer = super().head(channels, context, name)
        return {key: x * self.scale for key, x in layer.items()}

    def arrange(
        self, decoded: Float[Array, "B O F"], context: decoder.Context
    ) -> Float[Array, "B *X F"]:
        """Brings the elements to the places of their inputs."""
        grid = context.inputs[self.reads].grid(context.shapes[self.reads][1:])
        return decoded.reshape(decoded.shape[0], *grid, self.size)
