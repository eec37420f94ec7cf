"""What recipes share: each key once, and both sections of an input from the same numbers.

Values are those of ImageNet (section 4.1), which the paper's other experiments take over, and ours
where it says nothing. A recipe says what differs; any key can be set after `recipe` returns.
"""

from collections.abc import Mapping, Sequence
import math
import types
from typing import Any

import ml_collections

from perceiver_jax import config as config_lib
from perceiver_jax import layers as layers_lib

# Sections data.fields.NAME, which reads an input, and model.inputs.NAME.
Input = tuple[dict[str, Any], dict[str, Any]]

INCEPTION = {"crop_area": (0.08, 1.0), "crop_aspect": (3 / 4, 4 / 3)}  # Random crops.
COLOURS = {"brightness": 0.125, "contrast": 0.5, "saturation": 0.5}  # Of videos, varied.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # Of ImageNet's pixels.


def recipe(
    experiment: str,
    *,
    dataset: str,
    num_classes: int,
    inputs: Mapping[str, Input],
    layers: Sequence[str],
    batch_size: int,
    steps: int,
    eval_every: int,
) -> ml_collections.ConfigDict:
    """Returns a config that has every key.

    Args:
      experiment: names the default workdir.
      dataset: its name in TFDS.
      num_classes: L.
      inputs: by name, what `image` and the functions after it return.
      layers: of `perceiver_jax.make_layers`.
      batch_size: of training, and of evaluation to begin with.
      steps: of the whole training.
      eval_every: steps.
    """
    return recipe_of(
        experiment,
        dataset=dataset,
        fields={name: data for name, (data, _) in inputs.items()} | {"label": {"kind": "label"}},
        model={
            "inputs": {name: model for name, (_, model) in inputs.items()},
            "encoder": {
                "num_latents": 512,
                "latent_channels": 1024,
                "layers": layers,
                "reads": (),  # All inputs fused.
                "num_self_attends": 6,
                "num_cross_attend_heads": 1,
                "num_self_attend_heads": 8,
                "dropout_rate": 0.0,
                "latent_init_scale": 0.02,
                "streaming": True,
                "chunk_size": 0,  # Automatic.
                "scan": True,
                "remat": False,
            },
            "outputs": {"label": {"kind": "mean_pool", "size": num_classes}},
        },
        task=classes("label"),
        batch_size=batch_size,
        steps=steps,
        eval_every=eval_every,
    )


def classes(target: str) -> dict[str, Any]:
    """The section `task` of one class an example; `target` is its field and its output."""
    return {
        "kind": "classification",
        "target": target,
        "loss": "softmax",
        "label_smoothing": 0.0,
        "class_weights": (),  # All classes alike.
    }


def recipe_of(
    experiment: str,
    *,
    dataset: str,
    fields: Mapping[str, Any],
    model: Mapping[str, Any],
    task: Mapping[str, Any],
    batch_size: int,
    steps: int,
    eval_every: int,
) -> ml_collections.ConfigDict:
    """Returns a config that has every key, for any model and task.

    Args:
      experiment: names the default workdir.
      dataset: its name in TFDS.
      fields: the section of that name, what is read of a record.
      model: the section, such as that of a released model; its dtype becomes bfloat16.
      task: the section.
      batch_size: of training, and of evaluation to begin with.
      steps: of the whole training.
      eval_every: steps.
    """
    return ml_collections.ConfigDict(
        {
            "experiment": experiment,
            "seed": 0,
            "data": {
                "dataset": dataset,
                "data_dir": "",  # TFDS's own default, ~/tensorflow_datasets.
                "train_split": "train",
                "test_split": "test",
                "batch_size": batch_size,
                "num_workers": 16,
                "feature_names": "",  # Such as "image=photo,label=species", if not plain.
                "max_bad_records": 0,  # Left out because they can't be decoded, before a run ends.
                "mixup_alpha": 0.0,  # Off.
                "cutmix_alpha": 0.0,  # Off.
                "fields": dict(fields),
            },
            # Of matrix products. Parameters, optimizer, norms' statistics, softmax, logits and
            # loss are float32 in any case.
            "model": dict(model) | {"dtype": "bfloat16"},
            "task": dict(task),
            # Where parameters start: at random, or those of another run, see docs/finetuning.md.
            "init": {
                "source": "",  # A workdir, a file or folder of weights, or a released name.
                "exclude": (),  # Patterns of the parameters that start at random all the same.
            },
            "train": {
                "steps": steps,
                "ema_decay": 0.0,  # Off.
                "accumulate_steps": 1,  # Parts of a batch that are taken one after another.
                "parallelism": "pmap",  # 'fsdp' divides the state over the devices.
                "log_every": 100,
                "eval_every": eval_every,
                "checkpoint_every": 1000,
                "max_checkpoints": 3,
                "max_skipped": 10,  # Updates in a row whose loss or gradient was not finite.
            },
            "optimizer": {
                "name": "lamb",
                "learning_rate": 0.004,
                # A tenth at epochs 84, 102 and 114 of 120.
                "schedule": {"name": "step", "boundaries": (0.70, 0.85, 0.95), "factor": 0.1},
                "weight_decay": 0.1,
                "max_grad_norm": 10.0,
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-6,
                "frozen": (),  # Patterns of parameters that are not trained, such as "encoder/*".
                "depth_decay": 1.0,  # Learning rate of a layer over that of the next one.
            },
            "eval": {"batch_size": batch_size, "num_windows": 1},
        }
    )


def on_cpu(
    config: ml_collections.ConfigDict, *, batch_size: int, learning_rate: float, warmup_steps: int
) -> None:
    """Makes a config one for a few CPU cores: float32, Adam and a cosine."""
    config.data.update(batch_size=batch_size, num_workers=0)
    config.model.dtype = "float32"
    config.model.encoder.scan = False  # Compiles longer, but steps of small layers are faster.
    config.optimizer.update(name="adam", learning_rate=learning_rate, eps=1e-8)
    config.optimizer.schedule = {"name": "cosine", "warmup_steps": warmup_steps}


def shrink_encoder(
    config: ml_collections.ConfigDict, *, num_latents: int, latent_channels: int
) -> None:
    """Makes the encoder of a released model one for a few CPU cores, of 2 x 2 self-attends."""
    config.model.encoder.update(
        num_latents=num_latents,
        latent_channels=latent_channels,
        layers=layers_lib.make_layers(1, 2),
        num_self_attends=2,
        num_self_attend_heads=4,
    )


def read_one_after_the_other(config: ml_collections.ConfigDict, rounds: int) -> None:
    """Makes each cross-attend read one input, all of them in so many rounds, instead of all fused.

    A latent Transformer follows each, shorter in proportion, so that there are as many self-attends
    as before.

    Raises:
      UserError: if there is but one input.
    """
    encoder, names = config.model.encoder, sorted(config.model.inputs)
    if len(names) == 1:
        raise config_lib.UserError(
            f"Argument 'sequential' reads several inputs one after the other; got {names} alone. "
            "Drop it, or name several inputs."
        )
    config.experiment += "_sequential"
    _follow(config, rounds * len(names))
    encoder.layers = layers_lib.make_layers(
        rounds * len(names), rounds * len(names), sharing="none"
    )
    encoder.reads = tuple(names) * rounds
    del config.model.fusion["modality_channels"]  # Nothing is fused.


def unroll(config: ml_collections.ConfigDict, num_parts: int) -> None:
    """Makes each cross-attend read the next part of the inputs, all with the same weights.

    A latent Transformer follows each, shorter in proportion. The first axis of inputs is time;
    positions are those in a part.
    """
    config.experiment += "_unrolled"
    encoder = config.model.encoder
    _follow(config, num_parts)
    encoder.layers = layers_lib.make_layers(num_parts, num_parts, sharing="all")
    encoder.reads = tuple(f"all[{part}]" for part in range(num_parts))
    for keys in config.model.inputs.values():
        time, *others = keys.position_encoding.max_resolution
        keys.position_encoding.max_resolution = (time // num_parts, *others)


def _follow(config: ml_collections.ConfigDict, num_latent_transformers: int) -> None:
    """Divides all self-attends among so many latent Transformers."""
    encoder = config.model.encoder
    before = sum("latent" in name for name in encoder.layers) * encoder.num_self_attends
    encoder.num_self_attends = max(before // num_latent_transformers, 1)


# Inputs. Augmentation is off unless given, by the names of the classes in `perceiver_jax.data`.


def image(
    image_size: int, *, num_bands: int, channels: int = 3, mean=MEAN, std=STD, **augmentation: Any
) -> Input:
    """Square images, an input a pixel."""
    data = {"kind": "image", "image_size": image_size, "channels": channels, "crop": "none"}
    off = {"flip": False, "rotation_degrees": 0.0, "scale": 0.0, "shift": 0.0}
    rand_augment = {"rand_augment_layers": 0, "rand_augment_magnitude": 5.0}
    position = fourier(num_bands, image_size, image_size)
    model = {"kind": "image", "mean": mean, "std": std, "position_encoding": position}
    model["permutation_seed"] = -1  # In their own order.
    return {**data, **INCEPTION, **off, **rand_augment, **augmentation}, model


def video(
    seconds: float,
    frames_per_second: float,
    image_size: int,
    *,
    num_bands: int,
    **augmentation: Any,
) -> Input:
    """Square frames, an input a patch of 2 frames, 8 rows and 8 columns."""
    num_frames = round(seconds * frames_per_second)
    data = {"kind": "video", "num_frames": num_frames, "frames_per_second": frames_per_second}
    data["image_size"] = image_size
    off = {"flip": False, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    position = fourier(num_bands, num_frames // 2, image_size // 8, image_size // 8)
    model = {"kind": "video", "patch_size": (2, 8, 8), "mean": MEAN, "std": STD}
    model["position_encoding"] = position
    return {**data, **INCEPTION, **off, **augmentation}, model


def audio(seconds: float, sample_rate: int, *, num_bands: int) -> Input:
    """Raw audio, an input a patch of 128 samples."""
    num_samples = round(seconds * sample_rate)
    data = {"kind": "audio", "num_samples": num_samples, "sample_rate": sample_rate}
    position = fourier(num_bands, num_samples // 128)
    scale = {"mean": 0.0, "std": 1.0}  # As they are.
    return data, {"kind": "audio", "patch_size": 128, **scale, "position_encoding": position}


def mel(
    seconds: float,
    sample_rate: int,
    *,
    num_bands: int,
    hop: int = 1024,
    hops_a_window: int = 2,
    num_bins: int = 80,
    whole_frames: bool = False,
    **augmentation: Any,
) -> Input:
    """A mel spectrogram, an input a bin of a frame, or a whole frame."""
    num_samples = round(seconds * sample_rate)
    data = {"kind": "mel", "num_samples": num_samples, "sample_rate": sample_rate}
    frames = {"num_bins": num_bins, "hop": hop, "window": hops_a_window * hop}
    off = {"time_masks": 0, "time_mask_width": 8, "frequency_masks": 0, "frequency_mask_width": 10}
    bins = num_bins if whole_frames else 1  # Of an input.
    position = fourier(num_bands, num_samples // hop, num_bins // bins)
    model = {"kind": "mel", "patch_size": (1, bins), "position_encoding": position}
    return {**data, **frames, **off, **augmentation}, model


def points(num_points: int, *, num_bands: int, max_resolution: int, **augmentation: Any) -> Input:
    """Points of a shape, an input each."""
    data = {"kind": "point_cloud", "num_points": num_points}
    off = {"flip": False, "rotation_degrees": 0.0, "translation": 0.0, "max_dropped": 0.0}
    scales = {"point_scale": 0.0, "axis_scale": (1.0, 1.0)}
    position = fourier(num_bands, max_resolution, max_resolution, max_resolution)
    model = {"kind": "point_cloud", "position_encoding": position}
    return {**data, **off, **scales, **augmentation}, model


def text(max_length: int) -> Input:
    """Bytes of text for few texts to teach: an input each, after a convolution over 7 of them.

    Without it attention sums up what single bytes hold: how often each occurs.
    """
    model = {
        "kind": "text",
        "vocab_size": 262,  # Bytes, and six special ones.
        "max_length": max_length,
        "num_channels": 64,
        "init_scale": 0.5,
        "conv_width": 7,
        "position_encoding": {"kind": "learned", "num_channels": 64, "init_scale": 0.02},
    }
    return {"kind": "text", "max_length": max_length}, model


def array(
    shape: Sequence[int],
    *,
    mean: Sequence[int | float],
    std: Sequence[int | float],
    masked: bool = False,
    ordered: bool = True,
) -> Input:
    """Arrays in memory: series [T, C], grids [H, W, C], or sets [N, C], which are not ordered.

    An input is the smallest patch, as long along each axis, of which at most 64 make a series and
    256 a grid. A single value says little, and small sets do not teach how to put many together.

    Args:
      shape: of an example.
      mean: of each channel, over all examples.
      std: standard deviation of each channel; values of one that is always the same become zeros.
      masked: whether elements may be missing (`<input>_mask`).
      ordered: False for a set, each element of which is an input, without a position; its channels,
        which may be few, go through a linear map.
    """
    model = {"kind": "array", "mean": tuple(mean), "std": tuple(x or 1.0 for x in std)}
    if not ordered:
        return {}, model | {"num_channels": 64}
    dims, most = shape[:-1], 64 if len(shape) == 2 else 256
    sizes = range(1, max(dims) + 1)
    size = next(p for p in sizes if math.prod(-(-n // p) for n in dims) <= most)
    grid = [-(-n // size) for n in dims]
    # The last patches are filled up: of as many patches those that need the least.
    patch_size = tuple(-(-n // count) for n, count in zip(dims, grid, strict=True))
    num_bands = max(1, min(16, max(grid) // 2))
    position = fourier(num_bands, *grid)
    return {}, model | {
        "patch_size": patch_size,
        "mask_channels": masked,
        "position_encoding": position,
    }


def fourier(num_bands: int, *max_resolution: int) -> dict[str, Any]:
    """Fourier features, up to the Nyquist frequency of so many positions along each axis."""
    return {"kind": "fourier", "num_bands": num_bands, "max_resolution": max_resolution}


def parse_arguments(
    arg: str,
    *,
    exclusive: Sequence[Sequence[str]] = (),
    **known: bool | Sequence[int],
) -> types.SimpleNamespace:
    """Parses the arguments of a config file, as in `imagenet.py:mini,cross_attends=4`.

    Args:
      arg: what follows the colon: flags and `name=number`, separated by commas.
      exclusive: groups of names of which at most one may be given.
      **known: False for a flag; the allowed numbers for an argument with a value.

    Returns:
      A namespace with all known names: True or False for a flag, the number or None otherwise.

    Raises:
      UserError: if an argument is unknown, given twice, has no or a wrong value, or contradicts
        another one.
    """
    options = {
        name: [name] if allowed is False else [f"{name}={number}" for number in allowed]
        for name, allowed in known.items()
    }
    given = {name: False if allowed is False else None for name, allowed in known.items()}
    seen = []
    for word in filter(None, (word.strip() for word in arg.split(","))):
        name, _, number = word.partition("=")
        if name not in known:
            raise config_lib.UserError(
                config_lib.unknown("argument", name, known, sum(options.values(), []))
            )
        if word not in options[name]:
            allowed = " or ".join(options[name])
            raise config_lib.UserError(f"Argument {word!r} is not possible; expected {allowed}.")
        if name in seen:
            raise config_lib.UserError(f"Argument {name!r} is given twice in {arg!r}; drop one.")
        given[name] = int(number) if number else True
        seen.append(name)
    for group in exclusive:
        clash = " and ".join(name for name in seen if name in group)
        if " and " in clash:
            raise config_lib.UserError(f"Arguments {clash} contradict each other; give one.")
    return types.SimpleNamespace(**given)
