"""The kinds of field, which is what is decoded from a record: a file and a line here each."""

import typing
from typing import Any

import numpy as np

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
