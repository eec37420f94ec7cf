"""What outputs that have queries share: each decodes its own, or several share one decoder."""

import dataclasses
from typing import ClassVar

import haiku as hk
import jax
from jaxtyping import Array, Float, Int

from perceiver_jax import attention, decoder


@dataclasses.dataclass
class QueriedOutput(decoder.Attending):
    """An output of several elements, each decoded from a query of its own.

    Subclasses have a `size`, F, numbers an element; and say what their queries are.
    """

    linear_name: ClassVar[str] = "output"  # Of the last layer, where the decoder is not shared.

    def __call__(
        self,
        latents: Float[Array, "B N D"],
        context: decoder.Context = decoder.NOTHING,
        indices: Int[Array, "*B O"] | None = None,
    ) -> Float[Array, "B *X F"]:
        """Decodes all elements [B, *X, F], or those of the given indices [B, O, F]."""
        queries = self.queries(context)
        head = self.head(queries.channels, context, self.linear_name)
        decoded = self.decode(latents, queries, [head], indices)
        return decoded if indices is not None else self.arrange(decoded, context)

    def queries(self, context: decoder.Context) -> decoder.Queries:
        """What elements are decoded from."""
        raise NotImplementedError

    @hk.name_like("__call__")
    def head(self, channels: int, context: decoder.Context, name: str) -> decoder.Affine:
        """The linear layer that gives [B, n, F] of decoded queries [B, n, channels]."""
        del context
        init = hk.initializers.TruncatedNormal(channels**-0.5)
        return attention.Linear(name, init).parameters(channels, self.size)

    @hk.name_like("__call__")
    def padding(self, channels: int) -> jax.Array:
        """The learned vector that fills queries up where outputs share a decoder."""
        init = hk.initializers.TruncatedNormal(0.02)
        return hk.get_parameter("query_padding", [channels], init=init)

    def arrange(
        self, decoded: Float[Array, "B O F"], context: decoder.Context
    ) -> Float[Array, "B *X F"]:
        """Brings all decoded elements into the output's form."""
        del context
        return decoded


def of_rows(rows: Float[Array, "O C"]) -> decoder.Queries:
    """Queries that are the same for all examples, such as learned ones."""
    return decoder.Queries(*rows.shape, lambda indices: _batched(rows[indices]))


def _batched(rows):
    return rows if rows.ndim == 3 else rows[None]
