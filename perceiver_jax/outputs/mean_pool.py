"""A vector from the mean of the latents: the paper's classifier."""

import dataclasses

import haiku as hk
import jax.numpy as jnp
from jaxtyping import Array, Float

from perceiver_jax import config


@dataclasses.dataclass
class MeanPoolDecoder(hk.Module):
    """Mean over the latents, then one linear layer (section 3.1, appendix C).

    The layer starts at zero, as in the authors' code: a new model gives every class the same
    score.

    Attributes:
      size: L, numbers an example, such as a logit a class.
    """

    size: int
    name: str | None = None

    def __post_init__(self):
        """Checks the size."""
        super().__post_init__()
        config.check(vars(self), size=config.AT_LEAST_ONE)

    def __call__(self, latents: Float[Array, "B N D"]) -> Float[Array, "B L"]:
        """Decodes the latents."""
        return hk.Linear(self.size, w_init=jnp.zeros, name="logits")(latents.mean(axis=1))
