"""Labels as an input: the class of an example is one input (Perceiver IO, section 4.3)."""

from collections.abc import Sequence
import dataclasses
from typing import ClassVar

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Shaped

from perceiver_jax import config, tokens


@dataclasses.dataclass
class LabelPreprocessor(hk.Module):
    """One input a label: one of its channels is 1, or each the share of a class.

    Attributes:
      num_classes: L, as many channels.
    """

    num_classes: int
    name: str | None = None

    axes: ClassVar[str] = "B ..."

    def __post_init__(self):
        """Checks the number."""
        super().__post_init__()
        config.check(vars(self), num_classes=config.AT_LEAST_ONE)

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The inputs along each axis, for an example of the given shape."""
        del shape
        return (1,)

    def __call__(
        self, labels: Shaped[Array, "B *L"], mask: Bool[Array, "B *M"] | None = None
    ) -> tokens.Tokens:
        """Gives one input.

        Args:
          labels: classes [B], whole numbers from 0 (no class gives zeros), or shares [B, L].
          mask: True where an example has a label.
        """
        is_class = labels.ndim == 1 and jnp.issubdtype(labels.dtype, jnp.integer)
        if not is_class and labels.shape[1:] != (self.num_classes,):
            raise config.UserError(
                f"Labels have shape {labels.shape} and are {labels.dtype}; expected classes as "
                f"integers [B], or shares of the {self.num_classes} classes "
                f"[B, {self.num_classes}]. Convert them."
            )
        shares = jax.nn.one_hot(labels, self.num_classes) if is_class else labels
        return tokens.from_grid(shares[:, None], None, mask)
