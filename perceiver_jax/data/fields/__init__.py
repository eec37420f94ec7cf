"""The kinds of field, which is what is decoded from a record: a file and a line here each."""

from collections.abc import Mapping
import typing
from typing import Any

import numpy as np

from perceiver_jax import config
from perceiver_jax.data.fields import (
    audio,
    flow,
    frames,
    image,
    indices,
    label,
    number,
    point_cloud,
    text,
    video,
)

FIELDS = {
    "audio": audio.Audio,
    "flow": flow.Flow,
    "frames": frames.Frames,
    "image": image.Image,
    "indices": indices.Indices,
    "label": label.Label,
    "masked_text": text.MaskedText,
    "mel": audio.Mel,
    "number": number.Number,
    "point_cloud": point_cloud.PointCloud,
    "text": text.Text,
    "video": video.Video,
}

Arrays = np.ndarray | np.generic | Mapping[str, np.ndarray]


@typing.runtime_checkable
class Field(typing.Protocol):
    """How an array of an example, or several, is made from one feature of a record.

    Several are a dictionary by what is put behind the field's name: '' and '_mask', say.

    Attributes:
        feature: the record's feature; '' if it is made of none.
        has_windows: whether `window` matters: an example has several views to average over.
        is_target: whether it is what is to be predicted; inputs have a mask if a record may lack
            them, targets never.
    """

    feature: str
    has_windows: bool
    is_target: bool

    def zeros(self) -> Arrays:
        """Returns zeros of one example's shape and type."""

    def read(self, value: Any, window: float, rng: np.random.Generator | None) -> Arrays:
        """Decodes a window of `value`; augments it if `rng` is given (training).

        `window` is its place in the example: 0 is the earliest, 1 the latest.
        """


def named(name: str, arrays: Arrays) -> dict[str, np.ndarray | np.generic]:
    """Returns what a field's `zeros` or `read` returned by the names of a batch."""
    if not isinstance(arrays, Mapping):
        return {name: arrays}
    return {name + suffix: array for suffix, array in arrays.items()}


def zero_batch(fields: Mapping[str, Field]) -> dict[str, np.ndarray]:
    """Returns a batch of one example of zeros, to make a model's parameters or their shapes by."""
    return {
        name: np.asarray(x)[None]
        for field_name, field in fields.items()
        for name, x in named(field_name, field.zeros()).items()
    }


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
