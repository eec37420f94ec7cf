"""Places of an output that are trained in a step, drawn anew for each example: int32 [n]."""

import dataclasses
from typing import Any, ClassVar

from jaxtyping import Int32
import numpy as np

from perceiver_jax import config


@dataclasses.dataclass(frozen=True)
class Indices:
    """Where an output is decoded in training: a field called `<output>_indices`.

    In evaluation there are none, and so all of the output is decoded. No feature is read.

    Attributes:
        num_indices: number n of places, all different.
        num_places: that there are, counted from 0: rows x columns of an image, say.
    """

    num_indices: int
    num_places: int

    feature: ClassVar[str] = ""
    has_windows: ClassVar[bool] = False
    is_target: ClassVar[bool] = True  # It says what of a target is trained, and is no input.

    def __post_init__(self):
        """Checks the numbers."""
        config.check(
            vars(self), num_indices=config.AT_LEAST_ONE, num_places=config.Range(1, 2**31 - 1)
        )
        if self.num_indices > self.num_places:
            raise config.UserError(
                f"num_indices is {self.num_indices}; expected at most num_places, "
                f"{self.num_places}. Make it smaller, or leave the field out to train all."
            )

    def zeros(self) -> Int32[np.ndarray, " n"]:
        """Returns the first place, n times."""
        return np.zeros(self.num_indices, np.int32)

    def read(
        self, value: Any, window: float, rng: np.random.Generator | None
    ) -> Int32[np.ndarray, " n"]:
        """Draws places in rising order; arguments as of every field, of which only `rng` counts."""
        del value, window
        # Without a permutation of all places, of which a video has 800,000.
        drawn = rng.choice(self.num_places, self.num_indices, replace=False, shuffle=False)
        return np.sort(drawn).astype(np.int32)
