"""The kinds of field, which is what is decoded from a record: a file and a line here each."""

from collections.abc import Mapping
import typing
from typing import Any

import numpy as np

from perceiver_jax import config
from perceiver_jax.data.fields import audio, image, label, number, point_cloud, video

FIELDS = {
    "audio": audio.Audio,
    "image": image.Image,
    "label": label.Label,
    "mel": audio.Mel,
    "number": number.Number,
    "point_cloud": point_cloud.PointCloud,
    "video": video.Video,
}


@typing.runtime_checkable
class Field(typing.Protocol):
    """How one array of an example is made from one feature of a record.

    Attributes:
        feature: the record's feature.
        has_windows: whether `window` matters: an example has several views to average over.
        is_target: whether it is what is to be predicted; inputs have a mask if a record may lack
            them, targets never.
    """

    feature: str
    has_windows: bool
    is_target: bool

    def zeros(self) -> np.ndarray:
        """Returns zeros of one example's shape and type."""

    def read(self, value: Any, window: float, rng: np.random.Generator | None) -> np.ndarray:
        """Decodes a window of `value`; augments it if `rng` is given (training).

        `window` is its place in the example: 0 is the earliest, 1 the latest.
        """


def windows(num_windows: int) -> list[float]:
    """Returns where windows are in an example: evenly spaced from 0, its begin, to 1; or 0.5."""
    return [i / (num_windows - 1) for i in range(num_windows)] if num_windows > 1 else [0.5]


def check_windows(num_windows: int, fields: Mapping[str, Field], key: str = "num_windows") -> None:
    """Refuses several windows of inputs that have but one.

    Args:
        num_windows: of each example.
        fields: those of the examples.
        key: where the user sets it.

    Raises:
        config.UserError: none of the fields has several, or the number is no such one.
    """
    config.check(locals(), num_windows=config.AT_LEAST_ONE)
    if num_windows > 1 and not any(field.has_windows for field in fields.values()):
        inputs = sorted(name for name, field in fields.items() if not field.is_target)
        raise config.UserError(
            f"num_windows is {num_windows}, but none of the inputs {inputs} has several windows; "
            f"expected 1. Set {key}=1."
        )
