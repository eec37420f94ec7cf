"""Labels: a class or several -> int32, or float32 [L] of zeros and ones."""

import dataclasses
from typing import Any, ClassVar

from jaxtyping import Float32
import numpy as np

from perceiver_jax import config
from perceiver_jax.data import errors

WRONG_LABEL = "label that is no class"  # Cause of a BadDataError.


@dataclasses.dataclass(frozen=True)
class Label:
    """The class of an example, or its classes. No randomness is drawn for it.

    Attributes:
        num_classes: number of classes L; the default is that of the data set.
        multi_label: whether an example may have several; the default is that of the data set.
    """

    num_classes: int
    multi_label: bool

    feature: ClassVar[str] = "label"
    has_windows: ClassVar[bool] = False
    is_target: ClassVar[bool] = True

    def __post_init__(self):
        """Checks the number."""
        config.check(vars(self), num_classes=config.AT_LEAST_ONE)

    def zeros(self) -> np.int32 | Float32[np.ndarray, " L"]:
        """Returns the first class, or no class if there may be several."""
        return np.zeros(self.num_classes, np.float32) if self.multi_label else np.int32(0)

    def read(
        self, value: Any, window: float, rng: np.random.Generator | None
    ) -> np.int32 | Float32[np.ndarray, " L"]:
        """Encodes the class, or the classes, that a record stores.

        Args:
            value: a class, counted from 0, or a list of them.
            window: not used, a label is that of the whole example.
            rng: not used. To draw from it would change how the fields read after it are augmented.

        Raises:
            errors.BadDataError: it is no class, such as the -1 of labels that are hidden.
        """
        del window, rng
        classes = np.asarray(value, int)
        outside = classes[(classes < 0) | (classes >= self.num_classes)]
        if outside.size:
            # Of several, -1 would count as the last class without an error.
            raise errors.BadDataError(
                WRONG_LABEL, f"{', '.join(map(str, outside))}; expected 0 to {self.num_classes - 1}"
            )
        if not self.multi_label:
            return np.int32(value)
        several = self.zeros()
        several[classes] = 1
        return several


def one_hot(labels: np.ndarray, num_classes: int) -> Float32[np.ndarray, "B L"]:
    """Returns labels [B] or [B, L] as float32 [B, L]."""
    if labels.ndim == 2:
        return labels
    return np.eye(num_classes, dtype=np.float32)[labels]
