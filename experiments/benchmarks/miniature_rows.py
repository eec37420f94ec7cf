"""The rows of the paper's tables in miniature: what each trains, and what it is compared with.

All of a table have the same data, augmentation, steps, batches and optimizer, and those of `pixels`
and `points` with Fourier features 56,000 to 67,000 parameters; FLOPs differ, and are shown.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any, NamedTuple

import ml_collections

from experiments.configs import audioset
import perceiver_jax
from perceiver_jax import recipes

SIDE = 14  # Of mnist5k's digits, halved: a Transformer on all pixels has 196 of them.
POINTS = 256
TITLES = {
    "pixels": "Tables 1 and 2: pixels (`mnist5k`)",
    "points": "Table 4: points (`furniture11`)",
    "cross_attends": "Tables 5 and 6: number and places of cross-attends (`mnist5k`)",
    "sharing": "Table 7: sharing of weights (`mnist5k`)",
    "latent_scale": "Figure 6: initial scale of the latents (`mnist5k`)",
    "fusion": "Table 3: sound and video (`atari_clips`)",
}
PERCEIVER = {"num_latents": 32, "num_self_attends": 2, "num_self_attend_heads": 4}
DIGIT_ENCODERS = {
    "perceiver": PERCEIVER | {"latent_channels": 56},
    "resnet": {"kind": "resnet", "grid": (SIDE, SIDE), "channels": (14, 28, 56)},
    "vit": {"kind": "vit", "grid": (SIDE, SIDE), "patch_size": (2, 2), "channels": 48},
    "transformer": {"kind": "transformer", "channels": 48},
}
POINT_ENCODERS = {
    "perceiver": PERCEIVER | {"latent_channels": 48},
    "point_net": {"kind": "point_net"},
    "transformer": {"kind": "transformer", "channels": 48},
    "vit": {"kind": "vit", "grid": (16, 16), "patch_size": (2, 2), "channels": 48, "num_layers": 3},
    "resnet": {"kind": "resnet", "grid": (16, 16), "channels": (14, 28, 56)},
}
POSITIONS = {
    "fourier": "Fourier features",
    "plain": "pixels alone",
    "learned": "learned positions",
}
NAMES = {
    "perceiver": "Perceiver",
    "point_net": "PointNet",
    "resnet": "ResNet",
    "transformer": "Transformer",
    "vit": "ViT",
}


class Row(NamedTuple):
    """A row of a table.

    Attributes:
      table: of `TITLES`.
      name: as it is shown.
      folder: of its runs; rows of one folder are one model, in several tables.
      tuned: the folder of the row whose learning rate it takes; '': that of the recipe.
      against: the folder of the row that it is compared with; '': none.
      make: makes its config.
    """

    table: str
    name: str
    folder: str
    tuned: str
    against: str
    make: Callable[[], ml_collections.ConfigDict]


def all_rows() -> list[Row]:
    """Returns the rows of all tables, in their order."""
    return [*_pixels(), *_points(), *_cross_attends(), *_sharing(), *_scales(), *_fusion()]


def _pixels():
    first = "pixels/perceiver"
    for kind, encoder in DIGIT_ENCODERS.items():
        for positions, name in POSITIONS.items():
            if positions == "learned" and kind != "perceiver":
                continue  # The paper has it of a Perceiver only.
            raw = f"pixels/{kind}" + (f"_{positions}" if positions != "fourier" else "")
            make = functools.partial(digits, encoder, positions)
            against = "" if raw == first else first
            full = f"{NAMES[kind]}, {name}"
            tuned = f"pixels/{kind}"
            yield Row("pixels", full, raw, tuned, against, make)
            make = functools.partial(make, permuted=True)
            yield Row("pixels", f"{full}, permuted", f"{raw}_permuted", tuned, raw, make)


def _points():
    first = "points/perceiver"
    for kind, encoder in POINT_ENCODERS.items():
        folder = f"points/{kind}"
        name = NAMES[kind] + (" on a grid of points" if "grid" in encoder else "")
        yield Row(
            "points",
            name,
            folder,
            folder,
            "" if folder == first else first,
            functools.partial(shapes, encoder),
        )


def _deep(*layers: Any, **options: Any) -> Callable[[], ml_collections.ConfigDict]:
    """Eight latent Transformers of one self-attend, or what the layers are."""
    encoder = PERCEIVER | {"latent_channels": 48, "num_self_attends": 1, "scan": True}
    return functools.partial(
        digits, encoder | {"layers": perceiver_jax.make_layers(*layers, **options)}
    )


def _cross_attends():
    best, tuned = "deep/8_interleaved", "pixels/perceiver"
    for number in (4, 8, 12):
        make = _deep(number, 0, sharing="none")
        name = f"{number} cross-attends, no latent Transformer"
        yield Row("cross_attends", name, f"deep/{number}_alone", tuned, best, make)
    for number in (1, 2, 4, 8):
        for place in ("interleaved", "start"):
            folder = f"deep/{number}_{place}"
            if folder == "deep/1_start":
                continue  # The same model as interleaved.
            make = _deep(number, 8, placement=place)
            name = f"{number} cross-attends, {'at the ' * (place == 'start')}{place}"
            against = "" if folder == best else best
            yield Row("cross_attends", name, folder, tuned, against, make)


def _sharing():
    best, tuned = "deep/8_interleaved", "pixels/perceiver"
    for sharing, folder in (("all_but_first", best), ("all", "deep/all"), ("none", "deep/none")):
        name = {"all_but_first": "all but the first cross-attend"}.get(sharing, sharing)
        make = _deep(8, 8, sharing=sharing)
        yield Row("sharing", name, folder, tuned, "" if folder == best else best, make)


def _scales():
    usual = "pixels/perceiver"
    for scale in (0.002, 0.02, 0.1, 1.0):
        folder = usual if scale == 0.02 else f"latent_scale/{scale}"
        encoder = DIGIT_ENCODERS["perceiver"] | {"latent_init_scale": scale}
        against = "" if folder == usual else usual
        yield Row(
            "latent_scale", f"{scale}", folder, usual, against, functools.partial(digits, encoder)
        )


def _fusion():
    first = "fusion/fused"
    for folder, name, arg, rate in (
        (first, "fused, video dropped from 0.3 of the clips", "mini", 0.3),
        ("fusion/kept", "fused, video never dropped", "mini", 0.0),
        ("fusion/sequential", "one after the other, 0.3", "mini,sequential", 0.3),
    ):
        make = functools.partial(clips, arg, rate)
        yield Row("fusion", name, folder, "", "" if folder == first else first, make)


def digits(
    encoder: Mapping[str, Any], positions: str = "fourier", permuted: bool = False
) -> ml_collections.ConfigDict:
    """The augmentation and training of `imagenet.py:mini`, in a tenth of its steps."""
    jitter = {"rotation_degrees": 12.0, "scale": 0.15, "shift": 0.06}
    pixels = {"channels": 1, "mean": (0.1307,), "std": (0.3081,)}
    image, model = recipes.image(SIDE, num_bands=SIDE // 2, **pixels, **jitter)
    config = _small("mnist5k", 10, {"image": (image, model)}, encoder, steps=600)
    keys = config.model.inputs.image
    if positions == "learned":
        learned = {"kind": "learned", "num_channels": 32, "init_scale": 1.0}
        keys.position_encoding = learned
    elif positions == "plain":
        del keys.position_encoding
        if "kind" not in encoder:  # The others map pixels themselves; a norm of one leaves nothing.
            keys.stem = {"kind": "conv1x1", "num_channels": 32}
    keys.permutation_seed = 0 if permuted else -1
    config.eval.batch_size = 250
    return config


def shapes(encoder: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The augmentation and training of `modelnet40.py:mini`, but for dropout, which only it has."""
    points = recipes.points(
        POINTS, num_bands=8, max_resolution=32, axis_scale=(0.8, 1.25), flip=True
    )
    config = _small("furniture11", 11, {"points": points}, encoder, steps=400)
    config.train.ema_decay = 0.99
    config.eval.update(batch_size=73, num_windows=4)  # All of the 1,024 points.
    return config


def clips(arg: str, video_dropout: float) -> ml_collections.ConfigDict:
    """`audioset.py:mini` in a third of its steps."""
    config = audioset.get_config(arg)
    config.experiment = "miniature"
    config.model.fusion.dropout_rates.video = video_dropout
    config.train.update(steps=300, eval_every=300, checkpoint_every=150, max_checkpoints=1)
    return config


def _small(dataset, num_classes, inputs, encoder, steps):
    config = recipes.recipe(
        "miniature",
        dataset=dataset,
        num_classes=num_classes,
        inputs=inputs,
        layers=perceiver_jax.make_layers(2, 2),
        batch_size=32,
        steps=steps,
        eval_every=steps,
    )
    recipes.on_cpu(config, batch_size=32, learning_rate=1.5e-3, warmup_steps=steps // 10)
    config.task.label_smoothing = 0.1
    config.train.update(checkpoint_every=200, max_checkpoints=1)
    if "kind" in encoder:
        config.model.encoder = ml_collections.ConfigDict(dict(encoder))
    else:
        config.model.encoder.update(encoder)
    return config
