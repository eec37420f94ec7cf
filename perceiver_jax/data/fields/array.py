"""Arrays in memory: what an example has already -> the same, augmented."""

from collections.abc import Callable
import dataclasses
import traceback
from typing import ClassVar

import numpy as np

from perceiver_jax.data import errors
from perceiver_jax.data.fields import label

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Array:
    """An input that is an array already.

    Attributes:
        name: of the input, for messages.
        shape: of one example.
        dtype: float32 or uint8; bool of a mask.
        augment: changes one example in training; None changes nothing.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    augment: Augment | None = None

    feature: ClassVar[str] = "array"
    has_windows: ClassVar[bool] = False
    is_target: ClassVar[bool] = False

    def zeros(self) -> np.ndarray:
        """Returns zeros of the array's shape and type."""
        return np.zeros(self.shape, self.dtype)

    def read(self, value: np.ndarray, window: float, rng: np.random.Generator | None) -> np.ndarray:
        """Returns the array, augmented if `rng` is given (training).

        Raises:
            errors.AugmentError: `augment` failed, or returned what can't take the array's place.
        """
        del window
        if rng is None or self.augment is None:
            return value
        what = f"augment of input {self.name!r}"
        try:
            # A copy: what is written in place must not be there in the next epoch.
            changed = self.augment(np.array(value), rng)
            array = np.asarray(changed)
        except Exception as error:  # Not a bad record, whatever it is.
            # As text: not every error can travel between processes.
            raised = errors.AugmentError(
                f"{what} raised {type(error).__name__}: {error}. Correct the function."
            )
            raised.add_note("".join(traceback.format_exception(error)))
            raise raised from None
        if array.shape != self.shape or not is_numbers(array.dtype):
            got = "None" if changed is None else f"{array.dtype} {list(array.shape)}"
            raise errors.AugmentError(
                f"{what} returned {got}; expected {self.dtype} {list(self.shape)}, as it was "
                "given. Return an array of that shape."
            )
        if self.dtype == np.uint8 and array.dtype != np.uint8:
            # To cut off fractions would make 0 of all that was scaled to 0..1, and 300 become 44.
            raise errors.AugmentError(
                f"{what} returned {array.dtype} for uint8; expected uint8. Round and clip what it "
                "returns, np.clip(np.rint(x), 0, 255).astype(np.uint8), or give from_arrays that "
                "input as float32."
            )
        with np.errstate(over="ignore"):
            array = array.astype(self.dtype, copy=False)
        if not np.isfinite(array).all() and np.isfinite(value).all():
            raise errors.AugmentError(
                f"{what} returned NaN or infinity; expected finite numbers. Correct the function."
            )
        return array


class MultiHot(label.Label):
    """Several labels an example, which are zeros and ones already."""

    def read(self, value: np.ndarray, window: float, rng: np.random.Generator | None) -> np.ndarray:
        """Returns them."""
        del window, rng
        return value


def is_numbers(dtype: np.dtype) -> bool:
    """Returns whether float32 can hold what is of this type."""
    # JAX's own types, such as bfloat16, are of kind V.
    return dtype.kind in "biuf" or np.can_cast(dtype, np.float32)
