"""Data sets that the user prepared with TFDS: found by name, their features by type."""

from collections.abc import Callable, Mapping
import math
import pathlib
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from perceiver_jax import config

Features = tfds.features.FeaturesDict

_INFO = "dataset_info.json"  # TFDS writes it last.
_FORMAT = tfds.core.FileFormat.ARRAY_RECORD


def root(data_dir: str) -> pathlib.Path:
    """Returns where TFDS keeps data sets; '' is its own default."""
    return pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()


def names(data_dir: str) -> list[str]:
    """Returns the names of the data sets on disk, with their configuration if they have one."""
    depths = (f"*/*/{_INFO}", f"*/*/*/{_INFO}")  # name/[config/]version/
    paths = [path for depth in depths for path in root(data_dir).glob(depth)]
    known = {path.parents[1].relative_to(root(data_dir)).as_posix() for path in paths}
    return sorted(name for name in known if not name.startswith((".", "downloads/")))


def find(name: str, data_dir: str) -> tfds.core.DatasetBuilder | None:
    """Returns the newest version of a data set from its files alone, or None if there is none.

    The code that made it is not needed, and so neither is TensorFlow.

    Args:
        name: TFDS's notation: `name`, `name/config`, `name:1.0.0` or `name/config:1.0.0`.
        data_dir: where TFDS keeps data sets; '' is TFDS's default.

    Raises:
        ValueError: the set has several configurations and none is named, or it is stored in
            another format than ArrayRecord.
    """
    name, _, version = name.partition(":")
    directory = root(data_dir) / name
    if not list(directory.glob(f"*/{_INFO}")):
        configs = sorted({path.parents[1].name for path in directory.glob(f"*/*/{_INFO}")})
        if len(configs) > 1:
            raise config.UserError(
                f"Data set {name!r} in {root(data_dir)} has several configurations; expected one "
                f"of {[f'{name}/{config}' for config in configs]}. Set config.data.dataset to one."
            )
        directory = directory / "".join(configs)
    found = [path.parent for path in directory.glob(f"*/{_INFO}")]
    found = [path for path in found if tfds.core.Version.is_valid(path.name)]
    if version:
        found = [path for path in found if _is_version(path.name, version)]
    if not found:
        return None
    newest = max(found, key=lambda path: tfds.core.Version(path.name))
    try:
        builder = tfds.builder_from_directory(str(newest))
    except ImportError as error:
        raise config.UserError(
            f"Data set {name!r} in {newest} has a feature that TFDS reads with TensorFlow, such as "
            "its Audio; expected features that need none. Prepare the original files as one of the "
            "other kinds: python -m experiments.prepare_data --help"
        ) from error
    if builder.info.file_format != _FORMAT:
        raise config.UserError(
            f"Data set {name!r} in {builder.data_dir} is stored as "
            f"{builder.info.file_format.value}, which has no random access; expected "
            f"{_FORMAT.value}. Prepare it again in another directory: python -m "
            f"experiments.prepare_data tfds --name={name} --data_dir=DIR"
        )
    return builder


def _is_version(version: str, wanted: str) -> bool:
    """Whether a version is the wanted one, such as '1.0.0', or TFDS's '1.*.*'."""
    numbers, allowed = version.split("."), wanted.split(".")
    return len(numbers) == len(allowed) and all(
        part in ("*", number) for number, part in zip(numbers, allowed, strict=True)
    )


def num_bytes(builder: tfds.core.DatasetBuilder, split: str) -> int:
    """Returns the size of the records of the splits that `split` is a part of."""
    splits = builder.info.splits
    parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(splits)
    return sum(int(splits[name].num_bytes) for name in {part.splitname for part in parts})


def find_feature(features: Features, field_name: str, usual: str, name: str = "") -> str:
    """Returns the name of the feature that a field is made from.

    Args:
        features: those of the data set.
        field_name: the field's name in the config.
        usual: the feature's name in our own data sets, which tells its type, too.
        name: its name if the user gave one; otherwise it is the usual one, that of the field if
            that is a target, or the only feature of that type.

    Raises:
        ValueError: there is no such feature, or it could be several, or it is of another type.
    """
    usual_names = {"label": (field_name, "label", "labels"), "number": (field_name,)}
    known = [x for x in usual_names.get(usual, (usual,)) if x in features]
    candidates = [name] if name else known[:1]
    if not candidates:
        candidates = [x for x in features if usual in _TYPES and _TYPES[usual](features[x])]
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
    if usual in _FORMS and not _FORMS[usual](feature):
        raise config.UserError(
            f"Feature {chosen!r} of the data set is a {type(feature).__name__} of "
            f"{_form(feature)[0]}; expected one of which {field_name!r} can be made, as of our "
            f"{usual!r}. Say which: --config.data.feature_names={field_name}=FEATURE"
        )
    return chosen


def num_values(feature: Any) -> int:
    """Returns how many numbers a feature of numbers has in each record.

    Raises:
        ValueError: not the same in all.
    """
    if None in feature.shape:
        raise config.UserError(
            f"Got a feature of numbers {list(feature.shape)}; expected as many in each record. "
            "Prepare the set with a fixed shape."
        )
    return math.prod(feature.shape)


def classes(features: Features) -> tuple[int, bool]:
    """Returns how many classes there are and whether an example may have several.

    0 and False if it isn't plain which feature is the label, or if none is.
    """
    try:
        label = features[find_feature(features, "label", "label")]
    except ValueError:  # Is raised again where a field is to be made of it.
        return 0, False
    return class_label(label).num_classes, is_multi_label(label)


def is_multi_label(feature: Any) -> bool:
    """Returns whether a label feature is a list of classes instead of one class."""
    return isinstance(feature, tfds.features.Sequence)


def class_label(feature: Any) -> tfds.features.ClassLabel:
    """Returns the classes of a label feature, list or not."""
    return getattr(feature, "feature", feature)


def _is_label(feature: Any) -> bool:
    return isinstance(getattr(feature, "feature", feature), tfds.features.ClassLabel)


def _is_file(feature: Any) -> bool:
    return type(feature) is tfds.features.Tensor and np.dtype(feature.np_dtype).kind == "O"


def _is_frames(feature: Any) -> bool:
    return isinstance(getattr(feature, "feature", None), tfds.features.Image)


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


def _is_cloud(feature: Any) -> bool:
    return type(feature) is tfds.features.Tensor and feature.shape[1:] == (3,)


def _is_measured(feature: Any) -> bool:
    """Whether these are numbers, one or a list, and none that stand for something else."""
    plain = type(feature) in (tfds.features.Tensor, tfds.features.Scalar)
    return plain and _form(feature) in (("numbers", 0), ("numbers", 1))


# By the usual name: which features are taken for such a one, and what one that is named may be.
_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "audio": _is_file,
    "image": lambda feature: isinstance(feature, tfds.features.Image),
    "label": _is_label,
    "number": _is_measured,
    "points": _is_cloud,
    "video": _is_frames,
}
_FORMS: Mapping[str, Callable[[Any], bool]] = {
    "audio": lambda feature: _form(feature) == ("files", 0),
    "image": lambda feature: _form(feature) == ("files", 0),
    "label": _is_label,
    "number": lambda feature: _form(feature)[0] == "numbers",
    "points": lambda feature: _form(feature) == ("numbers", 2),
    "video": lambda feature: _form(feature) == ("files", 1),
}


def parse_feature_names(text: str, known: list[str]) -> dict[str, str]:
    """Parses `config.data.feature_names`, such as 'image=photo,label=species'.

    Args:
        text: for each name of ours that of the data set; '' if all are found by type.
        known: our names, those of the fields.

    Raises:
        ValueError: the text has another form, or there is no such name of ours.
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
