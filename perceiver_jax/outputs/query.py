"""A vector that one learned query finds in the latents: Perceiver IO's classifier."""

import dataclasses

import haiku as hk
import jax.numpy as jnp
from jaxtyping import Array, Float

from perceiver_jax import attention, config


@dataclasses.dataclass
class QueryDecoder(hk.Module):
    """One learned query attends to the latents (Perceiver IO's classification decoder).

    Attributes:
      size: L, numbers an example, such as a logit a class.
      query_channels: size of the query.
      init_scale: standard deviation of the query at the start.
    """

    size: int
    query_channels: int = 1024
    init_scale: float = 0.02
    name: str | None = None

    def __post_init__(self):
        """Checks numbers."""
        super().__post_init__()
        config.check(
            vars(self),
            size=config.AT_LEAST_ONE,
            query_channels=config.AT_LEAST_ONE,
            init_scale=config.POSITIVE,
        )

    def __call__(self, latents: Float[Array, "B N D"]) -> Float[Array, "B L"]:
        """Decodes the latents."""
        query = hk.get_parameter(
            "query", [1, self.query_channels], init=hk.initializers.TruncatedNormal(self.init_scale)
        )
        query = jnp.broadcast_to(query[None], (latents.shape[0], *query.shape))
        attended = attention.CrossAttention(name="cross_attend")(
            query.astype(latents.dtype), latents
        )
        return hk.Linear(self.size, name="logits")(attended[:, 0])
