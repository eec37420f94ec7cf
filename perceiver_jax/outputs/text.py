"""A token at each place of a text: logits by the embedding that texts are read with."""

from collections.abc import Callable
import dataclasses

import haiku as hk
import jax.numpy as jnp

from perceiver_jax import config, decoder
from perceiver_jax.outputs import base


@dataclasses.dataclass
class TextDecoder(base.QueriedOutput):
    """Decodes a vector at each place; its logits are products with the embedding, plus a bias.

    Perceiver IO's masked language model (section 4.1): learned queries, no residual, no layer
    between what is decoded and the transposed embedding.

    Attributes:
      size: V, tokens that there are, as many as of the input.
      position_encoding: of the places, as many channels as the embedding has; the queries.
      reads: name of the input whose embedding it is.
      mask_queries: whether places where the mask of the text is False attend to nothing, as in the
        authors' code; of what is decoded there, either way, nothing is to be made.
    """

    size: int
    position_encoding: Callable | None = None
    reads: str = "text"
    mask_queries: bool = False

    def __post_init__(self):
        """Checks numbers."""
        super().__post_init__()
        config.check(vars(self), size=config.AT_LEAST_ONE)
        if self.position_encoding is None:
            raise config.UserError(
                "position_encoding is None; expected a section, for places are told apart by "
                "their positions alone. Set its kind to 'learned'."
            )

    def queries(self, context: decoder.Context) -> decoder.Queries:
        """The encoded places, as many as the text has."""
        length = context.shapes[self.reads][1]
        if not hasattr(context.inputs[self.reads], "embedding"):
            texts = sorted(name for name, x in context.inputs.items() if hasattr(x, "embedding"))
            raise config.UserError(
                f"reads is {self.reads!r}, which is no text; expected one of {texts}. Name it."
            )
        most = context.inputs[self.reads].max_length
        queries = base.of_rows(self.position_encoding((most,))[:length])
        mask = context.tokens[self.reads].mask if self.mask_queries else None
        return queries._replace(mask=mask)

    @hk.name_like("__call__")
    def head(self, channels: int, context: decoder.Context, name: str) -> decoder.Affine:
        """Products with the embedding."""
        embedding = context.inputs[self.reads].embedding()  # [V, C]
        if embedding.shape != (self.size, channels):
            raise config.UserError(
                f"size is {self.size} and what is decoded has {channels} channels; expected "
                f"{embedding.shape[0]} and {embedding.shape[1]}, those of the embedding of "
                f"{self.reads!r}. Change them."
            )
        bias = hk.get_parameter("bias", [self.size], init=jnp.zeros)
        return {"w": embedding.T.astype(bias.dtype), "b": bias}
