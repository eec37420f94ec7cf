"""A vector that one learned query finds in the latents: Perceiver IO's classifier."""

import dataclasses
from typing import ClassVar

import haiku as hk
from jaxtyping import Array, Float

from perceiver_jax import config, decoder
from perceiver_jax.outputs import base


@dataclasses.dataclass
class QueryDecoder(base.QueriedOutput):
    """One learned query attends to the latents (Perceiver IO's classification decoder).

    Attributes:
      size: L, numbers an example, such as a logit a class.
      query_channels: size of the query.
      init_scale: standard deviation of the query at the start.
      use_query_residual: as in the authors' training code.
    """

    size: int
    query_channels: int = 1024
    init_scale: float = 0.02
    use_query_residual: bool = dataclasses.field(default=True, kw_only=True)

    linear_name: ClassVar[str] = "logits"

    def __post_init__(self):
        """Checks numbers."""
        super().__post_init__()
        config.check(
            vars(self),
            size=config.AT_LEAST_ONE,
            query_channels=config.AT_LEAST_ONE,
            init_scale=config.POSITIVE,
        )

    @hk.name_like("__call__")
    def queries(self, context: decoder.Context) -> decoder.Queries:
        """The learned one."""
        del context
        init = hk.initializers.TruncatedNormal(self.init_scale)
        return base.of_rows(hk.get_parameter("query", [1, self.query_channels], init=init))

    def arrange(
        self, decoded: Float[Array, "B 1 L"], context: decoder.Context
    ) -> Float[Array, "B L"]:
        """Takes the only element."""
        del context
        return decoded[:, 0]
