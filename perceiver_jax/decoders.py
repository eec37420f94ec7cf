"""Heads: latents -> logits."""

import dataclasses

import haiku as hk
import jax.numpy as jnp
from jaxtyping import Array, Float

from perceiver_jax import attention


@dataclasses.dataclass
class MeanPoolDecoder(hk.Module):
    """Mean over the latents, then one linear layer (section 3.1, appendix C).

    The layer starts at zero, as in the authors' code: a new model gives every class the same
    score.

    Attributes:
      num_classes: L, logits an example.
    """

    num_classes: int
    name: str | None = None

    def __call__(self, latents: Float[Array, "B N D"]) -> Float[Array, "B L"]:
        """Gives the logits."""
        return hk.Linear(self.num_classes, w_init=jnp.zeros, name="logits")(latents.mean(axis=1))


@dataclasses.dataclass
class QueryDecoder(hk.Module):
    """One learned query attends to the latents (Perceiver IO's classification decoder).

    Attributes:
      num_classes: L, logits an example.
      query_channels: size of the query.
      init_scale: standard deviation of the query at the start.
    """

    num_classes: int
    query_channels: int = 1024
    init_scale: float = 0.02
    name: str | None = None

    def __call__(self, latents: Float[Array, "B N D"]) -> Float[Array, "B L"]:
        """Gives the logits."""
        query = hk.get_parameter(
            "query", [1, self.query_channels], init=hk.initializers.TruncatedNormal(self.init_scale)
        )
        query = jnp.broadcast_to(query[None], (latents.shape[0], *query.shape))
        attended = attention.CrossAttention(name="cross_attend")(
            query.astype(latents.dtype), latents
        )
        return hk.Linear(self.num_classes, name="logits")(attended[:, 0])


DECODERS = {"mean_pool": MeanPoolDecoder, "query": QueryDecoder}
