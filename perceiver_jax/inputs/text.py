"""Texts: every byte, or token of another vocabulary, is an input (Perceiver IO, section 4.1)."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import ClassVar

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from perceiver_jax import config, tokens


@dataclasses.dataclass
class TextPreprocessor(hk.Module):
    """A learned vector for each token, to which its position is added.

    Attributes:
      vocab_size: V, tokens that there are; 262 are the bytes and six special ones.
      num_channels: of a vector.
      max_length: positions that there are; a text may be shorter.
      init_scale: standard deviation of the vectors at the start.
      position_encoding: of the places, of as many channels.
      conv_width: places, an odd number, that a convolution sees at once, whose GELU is added to the
        vectors; 0: none, as in Perceiver IO. Attention sums up what inputs hold: of single bytes,
        how often each occurs, and nothing of their order until it has learned where to look. Few
        texts don't teach that.
    """

    vocab_size: int = 262
    num_channels: int = 768
    max_length: int = 2048
    init_scale: float = 0.02
    position_encoding: Callable | None = None
    conv_width: int = 0
    name: str | None = None

    axes: ClassVar[str] = "B M"

    def __post_init__(self):
        """Checks the numbers."""
        super().__post_init__()
        config.check(
            vars(self),
            vocab_size=config.AT_LEAST_ONE,
            num_channels=config.AT_LEAST_ONE,
            max_length=config.AT_LEAST_ONE,
            init_scale=config.POSITIVE,
            conv_width=config.COUNT,
        )
        if self.conv_width and not self.conv_width % 2:
            raise config.UserError(
                f"conv_width is {self.conv_width}; expected an odd number, as many places before "
                "as after, or 0 for no convolution. Change it."
            )

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The inputs along each axis, for an example of the given shape."""
        return tuple(shape)

    def embedding(self) -> Float[Array, "V C"]:
        """The vectors of all tokens."""
        init = hk.initializers.TruncatedNormal(self.init_scale)
        return hk.get_parameter("token_embedding", [self.vocab_size, self.num_channels], init=init)

    def __call__(
        self, ids: Shaped[Array, "B M"], mask: Bool[Array, "B *M"] | None = None
    ) -> tokens.Tokens:
        """Gives an input a token.

        Args:
          ids: numbers of tokens, from 0 to V - 1. What is computed of one beyond them is NaN: it
            can't be refused while a function is traced, and must not count as another token.
          mask: True where a token is real; the others may have any number.
        """
        batch_size, length = ids.shape
        if not jnp.issubdtype(ids.dtype, jnp.integer):
            raise config.UserError(
                f"Tokens are {ids.dtype}; expected integers of 0 to {self.vocab_size - 1}, the "
                "numbers of tokens. Tokenize the text, or convert them."
            )
        if length > self.max_length:
            raise config.UserError(
                f"There are {length} tokens; expected max_length, {self.max_length}, at most. Cut "
                "the text, or set a greater max_length in config.model.inputs and train anew."
            )
        mask = tokens.spread_mask(mask, batch_size, (length,))
        ids = tokens.blank(ids, mask)
        values = tokens.to_floats(
            self.embedding()
            .at[ids]
            .get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        )
        if self.position_encoding is not None:
            values = values + self._positions(length).astype(values.dtype)
        if self.conv_width:
            values = values + self._of_neighbours(tokens.blank(values, mask))
        return tokens.Tokens(values, mask)

    @hk.name_like("__call__")
    def _of_neighbours(self, values: Float[Array, "B M C"]) -> Float[Array, "B M C"]:
        shape = [self.conv_width, self.num_channels, self.num_channels]
        w = hk.get_parameter("conv_w", shape, init=hk.initializers.VarianceScaling(2.0))
        bias = hk.get_parameter("conv_b", [self.num_channels], init=jnp.zeros)
        x = jax.lax.conv_general_dilated(
            values.astype(w.dtype), w, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        )
        return jax.nn.gelu(x + bias[None, None]).astype(values.dtype)

    def _positions(self, length: int) -> jax.Array:
        positions = self.position_encoding((self.max_length,))[:length]
        if positions.shape[1] != self.num_channels:
            raise config.UserError(
                f"position_encoding has {positions.shape[1]} channels; expected "
                f"{self.num_channels}, as many as num_channels, for it is added. Change one."
            )
        return positions[None]
