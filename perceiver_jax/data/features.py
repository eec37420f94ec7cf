"""Which feature of a data set on disk a field is made from: found by name or by type."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from perceiver_jax import config

Features = tfds.features.FeaturesDict


def find(features: Features, field_name: str, usual: str, name: str = "") -> str:
    """Returns the name of the feature that a field is made from.

    Args:
        features: those of the data set.
        field_name: the field's name in the config.
        usual: the feature's name in our own data sets, which tells its type, too.
        name: its name if the user gave one; otherwise it is the usual one, that of the field if
            that is a target, or the only feature of that type.

    Raises:
        config.UserError: there is no such feature, or it could be several, or it is of another
            type.
    """
    usual_names = {"label": (field_name, "label", "labels"), "number": (field_name,)}
    known = [x for x in usual_names.get(usual, (usual,)) if x in features]
    is_one, may_be = _TYPES.get(usual, (_never, _always))
    candidates = [name] if name else known[:1] or [x for x in features if is_one(features[x])]
    if len(candidates) != 1 or candidates[0] not in features:
        what = "of classes" if usual == "label" else f"for {usual!r}"
        count = f"{len(candidates) or 'no'} features {what}"
        raise config.UserError(
            f"The data set has {f'no feature {name!r}' if name else count}; expected one of "
            f"{sorted(features)} to be {field_name!r}. Say which: "
            f"--config.data.feature_names={field_name}=FEATURE"
        )
    (chosen,) = candidates
    feature = features[chosen]
    if not may_be(feature):
        raise config.UserError(
            f"Feature {chosen!r} of the data set is a {type(feature).__name__} of "
            f"{_form(feature)[0]}; expected one of which {field_name!r} can be made, as of our "
            f"{usual!r}. Say which: --config.data.feature_names={field_name}=FEATURE"
        )
    return chosen


def class_label(feature: Any) -> tuple[tfds.features.ClassLabel, bool]:
    """Returns the classes of a label, and whether it is a list of them."""
    return getattr(feature, "feature", feature), isinstance(feature, tfds.features.Sequence)


def parse_names(text: str, known: list[str]) -> dict[str, str]:
    """Parses `config.data.feature_names`, such as 'image=photo,label=species'.

    Args:
        text: for each name of ours that of the data set; '' if all are found by type.
        known: our names, those of the fields.

    Raises:
        config.UserError: the text has another form, or there is no such name of ours.
    """
    pairs = [word.partition("=") for word in filter(None, text.split(","))]
    for ours, _, theirs in pairs:
        config.check_known("name in config.data.feature_names", ours, sorted(known))
        if not theirs:
            raise config.UserError(
                f"Got config.data.feature_names={text!r}; expected pairs such as "
                "'image=photo,label=species'. Correct it."
            )
    return {ours: theirs for ours, _, theirs in pairs}


def _form(feature: Any) -> tuple[str, int]:
    """What is stored, and how many axes a record has of it."""
    if isinstance(feature, tfds.features.FeaturesDict):
        return "features", 0
    if isinstance(feature, tfds.features.Image):
        # TFDS stores the bits of floats as if they were the colours of a PNG.
        return "floats" if feature.np_dtype == np.float32 else "files", 0
    if isinstance(feature, tfds.features.Sequence):
        kind, axes = _form(feature.feature)
        return kind, axes + 1
    is_file = np.dtype(feature.np_dtype).kind == "O"
    return "files" if is_file else "numbers", len(feature.shape)


def _is_plain(feature: Any) -> bool:
    """Whether a feature is none that stands for something else, such as a class or a text."""
    return type(feature) in (tfds.features.Tensor, tfds.features.Scalar)


def _is_label(feature: Any) -> bool:
    return isinstance(getattr(feature, "feature", feature), tfds.features.ClassLabel)


def _is_text(feature: Any) -> bool:
    return isinstance(feature, tfds.features.Text) and not feature.shape


def _never(feature: Any) -> bool:
    return False


def _always(feature: Any) -> bool:
    return True


# By the usual name: which features are taken for such a one if only one is, and which may be one if
# the user says so.
_TYPES: Mapping[str, tuple[Callable[[Any], bool], Callable[[Any], bool]]] = {
    "audio": (
        lambda feature: _is_plain(feature) and _form(feature)[0] == "files",
        lambda feature: _form(feature) == ("files", 0),
    ),
    "flow": (
        _never,
        lambda feature: _form(feature) in (("files", 0), ("numbers", 3)),
    ),
    "frames": (
        lambda feature: isinstance(getattr(feature, "feature", None), tfds.features.Image),
        lambda feature: _form(feature) == ("files", 1),
    ),
    "image": (
        lambda feature: isinstance(feature, tfds.features.Image),
        lambda feature: _form(feature) == ("files", 0),
    ),
    "label": (_is_label, _is_label),
    "number": (
        lambda feature: _is_plain(feature) and _form(feature) in (("numbers", 0), ("numbers", 1)),
        lambda feature: _form(feature)[0] == "numbers",
    ),
    "points": (
        lambda feature: _is_plain(feature) and feature.shape[1:] == (3,),
        lambda feature: _form(feature) == ("numbers", 2),
    ),
    "text": (_is_text, _is_text),
    "video": (
        lambda feature: isinstance(getattr(feature, "feature", None), tfds.features.Image),
        lambda feature: _form(feature) == ("files", 1),
    ),
}
