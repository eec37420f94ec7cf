"""Numbers to be predicted: one or several values -> float32 [V]."""

import dataclasses
from typing import Any, ClassVar

from jaxtyping import Float32
import numpy as np

from perceiver_jax import config
from perceiver_jax.data import errors

NO_NUMBER = "value that is no number"  # Cause of a BadDataError.


@dataclasses.dataclass(frozen=True)
class Number:
    """What is measured of an example, the target of a regression. No randomness is drawn for it.

    Attributes:
        size: how many values V an example has; the default is that of the data set on disk.
    """

    size: int

    feature: ClassVar[str] = "number"
    has_windows: ClassVar[bool] = False
    is_target: ClassVar[bool] = True

    def __post_init__(self):
        """Checks the number."""
        config.check(vars(self), size=config.AT_LEAST_ONE)

    def zeros(self) -> Float32[np.ndarray, " V"]:
        """Returns zeros of the output's shape and type."""
        return np.zeros(self.size, np.float32)

    def read(
        self, value: Any, window: float, rng: np.random.Generator | None
    ) -> Float32[np.ndarray, " V"]:
        """Returns the values of a record.

        Args:
            value: a number of any type, or a list of them.
            window: not used, the values are those of the whole example.
            rng: not used. To draw from it would change how the fields read after it are augmented.

        Raises:
            errors.BadDataError: they are NaN, infinite or more than float32 can hold, or not as
                many as `size`.
        """
        del window, rng
        with np.errstate(over="ignore"):
            values = np.asarray(value, np.float32).reshape(-1)
        if len(values) != self.size:
            raise errors.BadDataError("wrong count", f"{len(values)} values; expected {self.size}")
        if not np.isfinite(values).all():
            raise errors.BadDataError(NO_NUMBER, "NaN, infinite or too large; expected finite ones")
        return values
