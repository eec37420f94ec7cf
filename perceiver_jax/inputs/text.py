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
    """

    vocab_size: int = 262
    num_channels: int = 768
    max_length: int = 2048
    init_scale: float = 0.02
    position_encoding: Callable | None = None
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
        return tokens.Tokens(values, mask)

    def _positions(self, length: int) -> jax.Array:
        positions = self.position_encoding((self.max_length,))[:length]
        if positions.shape[1] != self.num_channels:
            raise config.UserError(
                f"position_encoding has {positions.shape[1]} channels; expected "
                f"{self.num_channels}, as many as num_channels, for it is added. Change one."
            )
        return positions[None]
