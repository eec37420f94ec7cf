"""Arrays in memory: what an example has already -> the same, augmented."""

from collections.abc import Callable
import dataclasses
import math
import traceback
from typing import Any, ClassVar

import numpy as np

from perceiver_jax import config
from perceiver_jax.data import errors
from perceiver_jax.data.fields import label

MASK = "_mask"  # Behind the name of the input that it is of.

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

    def take(self, what: str, values: Any) -> np.ndarray:
        """Returns an example that a user gives, which has to be as those that were trained on.

        Raises:
            config.UserError: it is not.
        """
        array = from_values(what, values)
        check_numbers(what, array)
        if self.dtype == bool and ((array == 0) | (array == 1)).all():
            array = array.astype(bool)
        elif self.dtype != bool:
            array = as_kept(array)
        if array.shape != self.shape or array.dtype != self.dtype:
            raise config.UserError(
                f"Got {what} as {array.dtype} {list(array.shape)}; expected {self.dtype} "
                f"{list(self.shape)}, as in training. Convert it."
            )
        return array

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
                f"{what} raised {type(error).__name__}: {config.said(error)}. Correct the function."
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


def check_numbers(what: str, array: np.ndarray) -> None:
    """Raises a config.UserError if float32 can't hold what an array holds."""
    if not is_numbers(array.dtype):
        raise config.UserError(
            f"Got {what} as {array.dtype}; expected floats, integers or booleans. Convert it."
        )


def as_kept(array: np.ndarray) -> np.ndarray:
    """Returns uint8 as it is, and all other numbers as float32."""
    if array.dtype == np.uint8:
        return array
    with np.errstate(over="ignore"):  # Is infinite then, and refused.
        return array.astype(np.float32)


def from_values(what: str, values: Any) -> np.ndarray:
    """Returns an array of what a user gives.

    Raises:
        config.UserError: there is none.
    """
    try:
        array = np.asarray(values)
    except MemoryError:
        raise
    except Exception as error:  # Lists of different lengths, tensors of another device.
        raise config.UserError(
            f"Got {what} that make no array: {config.said(error)}. Expected numbers, in the same "
            "shape for each example. Cut or fill them, or make them a numpy array."
        ) from error
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise config.UserError(
            f"Got {what} with masked values, of which nothing is known; expected all of them. Fill "
            "them in with filled(value)."
        )
    return array


def is_finite(array: np.ndarray, mask: np.ndarray | None, name: str) -> np.ndarray:
    """Returns for each example [E] whether all is finite that a mask doesn't leave out.

    Raises:
        config.UserError: the mask doesn't fit the array.
    """
    size, *grid = array.shape[:-1] if array.ndim > 1 else array.shape
    finite = np.isfinite(array).reshape(size, math.prod(grid), -1).all(axis=2)
    if mask is None:
        return finite.all(axis=1)
    allowed = dict.fromkeys([(), (1,), tuple(grid), (math.prod(grid),)])
    if mask.shape[1:] not in allowed:
        raise config.UserError(
            f"Got {name + MASK!r} of {list(mask.shape[1:])} an example for {name!r} of "
            f"{list(array.shape[1:])}; expected one of {', '.join(str(list(x)) for x in allowed)}: "
            "one for all, or for each element of its grid. Make them alike."
        )
    return (finite | ~mask.reshape(size, -1)).all(axis=1)
