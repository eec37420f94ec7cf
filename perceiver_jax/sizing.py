"""From what a data set was measured to hold to a model of its size, for one's own data.

Inputs are few and say much: a small set does not teach how to put single pixels together.
"""

from collections.abc import Mapping, Sequence
import math
import textwrap
from typing import Any

import ml_collections
import numpy as np

from perceiver_jax import config as config_lib
from perceiver_jax import recipes

Described = Mapping[str, Mapping[str, Any]]  # As of `data.measure.Measured.inputs`.

# At the most, for two CPU cores.
_IMAGE_SIDE, _VIDEO_SIDE, _SECONDS, _POINTS, _LENGTH = 64, 48, 4.0, 512, 512
_VIDEO_SECONDS, _VIDEO_RATE = 2.56, 12.5  # Frames a second.
_FRAMES, _MIN_HOP_SECONDS = 100, 0.01  # Of a spectrogram.
_FLOPS = 20e9  # That a core computes in a second of training; 27e9 were measured on a quick one.
_BACKWARD = 3  # FLOPs of a training step over those of the forward pass.
_MIN_EPOCHS, _MAX_EPOCHS = 5, 120  # With more, small sets are learned by heart.
_INDENT = {"initial_indent": "  ", "subsequent_indent": "    ", "break_long_words": False}
_UNBALANCED = 3  # From here on, the largest class has so many times the examples of the smallest.


def image(found: Described, mirrored: bool) -> recipes.Input:
    """Pictures of at most 64 x 64, of which a convolution makes 4 x 4 pixels an input."""
    keys = found["image"]
    side = max(min(keys["side"], _IMAGE_SIDE), 8) // 4 * 4
    data, model = recipes.image(
        side,
        num_bands=8,
        channels=keys["channels"],
        mean=keys["mean"],
        std=keys["std"],
        crop="inception",
        crop_area=(0.35, 1.0),
        flip=mirrored and keys["channels"] == 3,
    )
    model["stem"] = {"kind": "conv", "num_channels": 64, "batch_norm": True}
    model["position_encoding"] = recipes.fourier(8, side // 4, side // 4)
    return data, model


def audio(found: Described, mirrored: bool) -> recipes.Input:
    """A mel spectrogram of at most 4 s and some 100 frames, a frame an input.

    No SpecAugment: it makes small sets worse (docs/results.md).
    """
    del mirrored
    keys = found["audio"]
    rate = keys["sample_rate"]
    seconds = min(keys["seconds"], _SECONDS if "video" not in found else _video_seconds(found))
    hop = round(max(seconds / _FRAMES, _MIN_HOP_SECONDS) * rate)
    frames = max(round(seconds * rate / hop), 1)
    num_bins = min(40 * rate // 8_000, 80)
    return recipes.mel(
        frames * hop / rate,
        rate,
        num_bands=16,
        hop=hop,
        hops_a_window=3,
        num_bins=num_bins,
        whole_frames=True,
    )


def video(found: Described, mirrored: bool) -> recipes.Input:
    """Frames of at most 48 x 48, 12.5 a second; 2 of 8 x 8 pixels are an input."""
    side = max(min(found["video"]["side"], _VIDEO_SIDE), 16) // 8 * 8
    varied = {"crop_area": (0.5, 1.0), "flip": mirrored, **recipes.COLOURS}
    return recipes.video(_video_seconds(found), _VIDEO_RATE, side, num_bands=8, **varied)


def _video_seconds(found: Described) -> float:
    """An even number of frames, of at most 2.56 s."""
    frames = min(found["video"]["seconds"], _VIDEO_SECONDS) * _VIDEO_RATE
    return max(int(frames) // 2 * 2, 2) / _VIDEO_RATE


def points(found: Described, mirrored: bool) -> recipes.Input:
    """Half of a shape's points, at most 512, turned, stretched, some left out."""
    number = min(max(found["points"]["num_points"] // 2, 1), _POINTS)
    shape = {"axis_scale": (0.6, 1.6), "rotation_degrees": 20.0, "max_dropped": 0.3}
    # Finer than 16, few shapes are learned by heart.
    return recipes.points(
        number, num_bands=16, max_resolution=32, point_scale=0.03, flip=mirrored, **shape
    )


def text(found: Described, mirrored: bool) -> recipes.Input:
    """The first bytes of a text, at most 512, each an input."""
    del mirrored
    return recipes.text(min(max(found["text"]["length"], 8), _LENGTH))


def arrays(found: Any, sets: Sequence[str]) -> tuple[str, dict[str, recipes.Input]]:
    """Arrays in memory, in patches; normalised by what their masks leave of the training split.

    Args:
      found: the arrays, a `data.Data`.
      sets: names of inputs without an order.

    Returns:
      The name of the label, and the inputs.

    Raises:
      UserError: if there is no label, or several, or an input is no array [E, ..., C].
    """
    if len(found.labels) != 1 or len(found.fields) != len(found.inputs) + 1:
        targets = sorted(found.fields.keys() - found.inputs.keys())
        raise config_lib.UserError(
            f"Got arrays with the targets {targets}; expected one label, classes to be told "
            "apart. Of other targets write a config: docs/new_task.md."
        )
    (target,) = found.labels
    train = found.store.splits[found.train_split]
    masks = {f"{name}_mask" for name in found.inputs}
    names = sorted(found.inputs.keys() - masks)
    for name in sets:
        config_lib.check_known("set", name, names)
    inputs = {}
    for name in names:
        values, mask = train[name], train.get(f"{name}_mask")
        if values.dtype == object or values.ndim < 3:
            raise config_lib.UserError(
                f"Got input {name!r} as {values.dtype} {list(values.shape)}; expected numbers "
                "[E, ..., C], such as series [E, T, C]. Add an axis of one channel: x[..., None]."
            )
        count, channels = len(values), values.shape[-1]
        elements = values.reshape(count, -1, channels)
        if mask is not None:
            elements = elements[np.broadcast_to(mask.reshape(count, -1), elements.shape[:2])]
        elements = elements.reshape(-1, channels)
        mean, std = (
            tuple(float(f"{x:.4g}") for x in function(elements, axis=0, dtype=np.float64))
            for function in (np.mean, np.std)
        )
        inputs[name] = recipes.array(
            values.shape[1:],
            mean=mean,
            std=std,
            masked=mask is not None and mask.size > count,
            ordered=name not in sets,
        )
    return target, inputs


# By feature: what the input is called, and its sections.
INPUTS = {"image": image, "audio": audio, "video": video, "points": points, "text": text}


def num_windows(found: Described) -> int:
    """Returns over how many windows of an example the evaluation averages."""
    if "points" in found:
        return 2  # Both halves of the points.
    seconds = max((keys.get("seconds", 0.0) for keys in found.values()), default=0.0)
    read = _video_seconds(found) if "video" in found else _SECONDS
    return min(math.ceil(seconds / read - 0.1), 4) if seconds > read else 1


def balance(class_counts: Sequence[int]) -> tuple[float, ...]:
    """Returns weights E / (L E_l) of classes of E_l examples, with which all weigh the same.

    Raises:
      UserError: if there is a class without an example.
    """
    if not all(class_counts):
        raise config_lib.UserError(
            f"Classes {[i for i, n in enumerate(class_counts) if not n]}, counted from 0, have no "
            "example to train on; expected some, to balance. Add them, or leave 'balanced' out."
        )
    mean = sum(class_counts) / len(class_counts)
    return tuple(round(mean / count, 4) for count in class_counts)


def choose_steps(
    config: ml_collections.ConfigDict,
    *,
    num_train: int,
    flops: int,
    minutes: int | float,
    cores: int,
) -> None:
    """Sets how long is trained: so many minutes on that many cores, within 5 to 120 epochs.

    Args:
      config: the whole config, which is changed.
      num_train: examples to train on.
      flops: of the forward pass of an example.
      minutes: of training, without start-up and evaluation.
      cores: of the machine's CPU.
    """
    batch_size = config.data.batch_size
    seconds = _BACKWARD * flops * batch_size / (_FLOPS * cores)  # Of a step.
    epoch = math.ceil(num_train / batch_size)
    steps = min(max(int(minutes * 60 / seconds), _MIN_EPOCHS * epoch), _MAX_EPOCHS * epoch)
    steps = max(round(steps, 2 - len(str(steps))), 10)  # Two digits say enough.
    set_steps(config, steps)


def set_steps(config: ml_collections.ConfigDict, steps: int) -> None:
    """Sets how long is trained, and what follows from it."""
    config.train.update(
        steps=steps,
        log_every=max(steps // 50, 1),
        eval_every=max(steps // 5, 1),
        checkpoint_every=max(steps // 5, 1),
        ema_decay=min(0.999, 1 - 10 / steps),
    )
    config.optimizer.schedule.warmup_steps = steps // 20


def report(name: str, found: Any, config: ml_collections.ConfigDict) -> str:
    """Returns what was measured and what was chosen, for a person.

    Args:
      name: of the data set.
      found: the `data.measure.Measured` of it.
      config: what was made of it.
    """
    counts = found.class_counts
    few, many = min(counts), max(counts)
    each = f"{few:,}" if few == many else f"{few:,} to {many:,}"
    lines = [f"{name}: {found.num_train:,} to train on, {len(counts)} classes of {each}"]
    if many > _UNBALANCED * few and not config.task.class_weights:
        lines.append(
            "The classes are unbalanced: the argument 'balanced' makes all weigh the same."
        )
    for feature, keys in found.inputs.items():
        lines.append(f"  {feature}: " + ", ".join(f"{key} {x}" for key, x in keys.items()))
    lines.append("Chosen, where --config.SECTION.KEY=VALUE of the command says nothing else:")
    sections = {f"data.fields.{x}": config.data.fields[x] for x in found.inputs}
    sections |= {f"model.inputs.{x}": config.model.inputs[x] for x in found.inputs}
    sections["model.encoder"] = config.model.encoder
    sections["model.fusion"] = config.model.get("fusion", {})
    sections |= {part: config[part] for part in ("task", "optimizer", "train", "eval")}
    for section, keys in sections.items():
        if keys:
            values = " ".join(f"{key}={_short(x)}" for key, x in keys.items())
            lines.append(textwrap.fill(f"{section}: {values}", 100, **_INDENT))
    return "\n".join(lines)


def _short(value: Any) -> str:
    value = dict(value) if isinstance(value, ml_collections.ConfigDict) else value
    return str(value).replace(" ", "")
