"""Two pictures of a scene, one shortly after the other -> uint8 [2, H, W, 3]."""

from collections.abc import Sequence
import dataclasses
from typing import Any, ClassVar

from jaxtyping import UInt8
import numpy as np

from perceiver_jax import config
from perceiver_jax.data import errors
from perceiver_jax.data.fields import image


@dataclasses.dataclass(frozen=True)
class Frames:
    """A pair of pictures, cut to a size: at random in training, from the centre in evaluation.

    Nothing is resized, for it would change the flow; pictures that are too small can't be used. The
    cut is the same for a `flow` of the same settings.

    Attributes:
        image_size: height and width H, W, in pixels.
        flip: whether half of the training pairs are mirrored left to right.
    """

    image_size: Sequence[int]
    flip: bool = False

    feature: ClassVar[str] = "frames"
    has_windows: ClassVar[bool] = False
    is_target: ClassVar[bool] = False

    def __post_init__(self):
        """Checks the size."""
        check_size(self.image_size)

    def zeros(self) -> UInt8[np.ndarray, "2 H W 3"]:
        """Returns zeros of the output's shape and type."""
        return np.zeros((2, *self.image_size, 3), np.uint8)

    def read(
        self,
        value: Sequence[bytes] | np.ndarray,
        window: float,
        rng: np.random.Generator | None,
    ) -> UInt8[np.ndarray, "2 H W 3"]:
        """Decodes a pair.

        Args:
            value: two encoded pictures, or uint8 [2, H, W, 3].
            window: decides the cut in training; any number in [0, 1) that flow is read with, too.
            rng: None in evaluation; nothing is drawn from it.

        Raises:
            errors.BadDataError: they can't be decoded, are not two, too small or of two sizes.
        """
        if len(value) != 2:
            raise errors.BadDataError("not a pair", f"{len(value)} pictures; expected 2")
        first, second = (
            one if isinstance(one, np.ndarray) else np.asarray(image.decode(one)) for one in value
        )
        if first.dtype != np.uint8 or first.ndim != 3 or first.shape[2] != 3:
            form = f"{first.dtype} {list(first.shape)}"
            raise errors.BadDataError("not a picture", f"{form}; expected uint8 [H, W, 3]")
        if first.shape != second.shape:
            sizes = " and ".join(f"{x.shape[1]} x {x.shape[0]}" for x in (first, second))
            raise errors.BadDataError("two sizes", f"{sizes} pixels; expected the same")
        rows, columns, mirrored = place(first.shape[:2], self, window, rng is not None)
        pair = np.stack([first, second])[:, rows, columns]
        return pair[:, :, ::-1].copy() if mirrored else pair


def check_size(image_size: Sequence[int]) -> None:
    """Refuses what is no height and width."""
    if len(image_size) != 2 or not all(isinstance(x, int) and x > 0 for x in image_size):
        raise config.UserError(
            f"image_size is {image_size}; expected height and width in pixels, such as (368, 496). "
            "Change it."
        )


def place(
    size: Sequence[int], field: Any, window: float, training: bool
) -> tuple[slice, slice, bool]:
    """Returns which rows and columns are cut out, and whether they are mirrored.

    Args:
        size: height and width of the whole.
        field: that of the frames, or one of the same settings.
        window: in training, all follows from it, so that frames and flow are cut alike.
        training: or else evaluation.

    Raises:
        errors.BadDataError: the whole is too small.
    """
    spare = [whole - wanted for whole, wanted in zip(size, field.image_size, strict=True)]
    if min(spare) < 0:
        expected = " x ".join(map(str, field.image_size[::-1]))
        detail = (
            f"{size[1]} x {size[0]} pixels; expected at least {expected}, the image_size of "
            "config.data.fields"
        )
        raise errors.BadDataError("too small", detail)
    first, mirrored = [x // 2 for x in spare], False
    if training:
        rng = np.random.default_rng(int(window * 2**53))
        first = [int(rng.integers(x + 1)) for x in spare]
        mirrored = field.flip and bool(rng.integers(2))
    rows, columns = (slice(a, a + n) for a, n in zip(first, field.image_size, strict=True))
    return rows, columns, mirrored
