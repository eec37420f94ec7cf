"""The kinds of input by name. A new one is a file like image.py and a line here."""

import dataclasses
import typing
from typing import Any

import numpy as np

from perceiver_jax.data import audio, errors, image, point_cloud, video

KINDS = {
    "audio": audio.Audio,
    "image": image.Image,
    "mel": audio.Mel,
    "point_cloud": point_cloud.PointCloud,
    "video": video.Video,
}


@typing.runtime_checkable
class Modality(typing.Protocol):
    """How one input of the model is made from one feature of a record.

    Attributes:
        feature: the record's feature.
        has_windows: whether `position` matters: an example has several views to average over.
    """

    feature: str
    has_windows: bool

    def spec(self) -> np.ndarray:
        """Returns zeros of one example's shape and type."""

    def read(self, value: Any, position: float, rng: np.random.Generator | None) -> np.ndarray:
        """Decodes `value`: the window at `position`, augmented if `rng` is given (training)."""


def build_modality(name: str, *, kind: str, **settings: Any) -> Modality:
    """Builds one of `KINDS`.

    Args:
        name: the modality's key in the config, for messages.
        kind: a key of `KINDS`.
        **settings: the attributes of that class.

    Raises:
        ValueError: unknown kind, or a setting that is unknown or missing.
    """
    errors.check_known(f"kind of modality {name!r}", kind, KINDS)
    fields = dataclasses.fields(KINDS[kind])
    for key in settings:
        errors.check_known(f"key of modality {name!r}", key, [field.name for field in fields])
    for field in fields:
        if field.default is dataclasses.MISSING and field.name not in settings:
            raise ValueError(
                f"Modality {name!r} of kind {kind!r} has no {field.name!r}, which has no default. "
                f"Set config.data.modalities.{name}.{field.name}."
            )
    return KINDS[kind](**settings)
