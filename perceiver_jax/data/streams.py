"""A recording of any length, part by part: what a model that reads parts gets of it."""

from collections.abc import Collection, Iterator, Mapping
import dataclasses
import os
from typing import Any

import numpy as np

from perceiver_jax import config
from perceiver_jax.data import errors, raw
from perceiver_jax.data import fields as fields_lib

_SEGMENT_SECONDS = 10.0  # Decoded at a time; seconds of frames and samples that are in memory.


def read_parts(
    path: Any,
    fields: Mapping[str, fields_lib.Field],
    num_parts: int,
    *,
    may_lack: Collection[str] = (),
) -> Iterator[tuple[float, dict[str, np.ndarray]]]:
    """Reads a video or audio file part by part, in constant memory.

    Parts follow each other without gaps or overlaps. They are stored and read as clips are in
    evaluation; a rest at the end that is shorter than a part is left out.

    Args:
        path: of the file, str or os.PathLike.
        fields: what the model was trained on, by name; targets are left out.
        num_parts: into how many parts the model cuts what a field gives.
        may_lack: inputs that a recording may lack, such as the audio of a silent film.

    Yields:
        Where the part ends, in seconds, and a batch of one example: arrays by name of the input
        [1, ...], and `<name>_mask` of those that may be lacking.

    Raises:
        config.UserError: the file can't be read, or lacks an input; the fields are not all of audio
            and video, or can't be cut into so many parts.
    """
    if not isinstance(path, str | os.PathLike):
        raise config.UserError(f"The path is {path!r}; expected that of a video or audio file.")
    config.AT_LEAST_ONE.check("num_parts", num_parts, num_parts)
    inputs = {name: field for name, field in fields.items() if not field.is_target}
    may_lack = [may_lack] if isinstance(may_lack, str) else may_lack
    for name in may_lack:
        config.check_known("input in may_lack", name, sorted(inputs))
    parts = {name: _part(name, field, num_parts) for name, field in inputs.items()}
    lengths = {round(seconds_of(field), 9) for field in parts.values()}
    if len(lengths) != 1:
        raise config.UserError(
            f"Parts of the inputs {sorted(inputs)} last {sorted(lengths)} seconds; expected all to "
            "last as long. Train on windows of equal length."
        )
    return _read(path, parts, lengths.pop(), frozenset(may_lack))


def _read(path, parts, seconds, may_lack):
    what = f"the recording ({os.fspath(path)})"
    num = max(int(_SEGMENT_SECONDS / seconds + 1e-6), 1)
    with_video = any(field.feature == "video" for field in parts.values())
    seen = {}  # The end of each input that there was: of a track that ends before the other.
    with raw.refusing(what, "clip"):
        for start, clip in raw.read_segments(path, with_video, num * seconds, what):
            values = {name: clip[field.feature] for name, field in parts.items()}
            for name, field in parts.items():
                is_silent = field.feature == "audio" and "no_audio" not in clip["causes"]
                if values[name]:
                    # The last frame stays where there are no more, and after sound is silence.
                    seen[name] = values[name][-1:] if field.feature == "video" else b""
                elif name in seen:
                    values[name] = seen[name]
                elif not is_silent and name not in may_lack:
                    raise config.UserError(
                        f"Got {what} without {name!r}; expected all of {sorted(parts)}, for in "
                        "training none was lacking. Take a model that can do without."
                    )
            rest = clip["seconds"] - seconds  # Windows begin from 0 to here.
            for i in range(int(clip["seconds"] / seconds + 1e-6)):
                window = i * seconds / rest if rest > 0 else 0.0
                batch = {name: field.zeros() for name, field in parts.items()}
                for name, value in values.items():
                    if value:
                        with errors.of_bad_data():
                            batch[name] = parts[name].read(value, window, None)
                masks = {f"{name}_mask": np.bool_(name in seen) for name in sorted(may_lack)}
                batch = {name: x[None] for name, x in (batch | masks).items()}
                yield start + (i + 1) * seconds, batch


def _part(name: str, field: fields_lib.Field, num_parts: int) -> fields_lib.Field:
    sizes = {"audio": "num_samples", "video": "num_frames"}
    if field.feature not in sizes:
        raise config.UserError(
            f"Input {name!r} is made of {field.feature!r}; expected audio or video, which a "
            "recording has. Take a model of these."
        )
    size = getattr(field, sizes[field.feature])
    if size % num_parts:
        raise config.UserError(
            f"Input {name!r} has {size} {sizes[field.feature][4:]}; expected a multiple of the "
            f"{num_parts} parts. Give the number of parts that the model reads."
        )
    return dataclasses.replace(field, **{sizes[field.feature]: size // num_parts})


def seconds_of(field: fields_lib.Field) -> float:
    """Returns how long a window of audio or video lasts."""
    if field.feature == "audio":
        return field.num_samples / field.sample_rate
    return field.num_frames / field.frames_per_second
