"""Small runs of random parameters, as `load_run` returns them."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import perceiver_jax
from perceiver_jax import config as config_lib
from perceiver_jax import runs, tasks
from perceiver_jax.data import fields as fields_lib

ENCODER = {
    "num_latents": 5,
    "latent_channels": 8,
    "layers": ("cross_attend_0", "latent_transformer_0"),
    "num_self_attends": 1,
    "num_cross_attend_heads": 1,
    "num_self_attend_heads": 1,
}
LABEL = {"kind": "label", "num_classes": 3, "multi_label": False}
QUERY = {"num_heads": 1, "use_query_residual": False}
SCALES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def fourier(*resolution):
    return {"kind": "fourier", "num_bands": 2, "max_resolution": resolution}


def learned(channels):
    return {"kind": "learned", "num_channels": channels}


def _draw(rng, name, shape):
    if name == "variance":  # A moving average; of a negative one the root is NaN.
        return rng.uniform(0.5, 1.5, shape)
    return (name == "scale") + rng.normal(0, 0.3, shape)


def make_run(fields, inputs, outputs, task, class_names=None, may_lack=(), **model):
    """A run of random parameters."""
    fields = {
        name: x if hasattr(x, "read") else config_lib.build_from_table(fields_lib.FIELDS, x, name)
        for name, x in fields.items()
    }
    section = {"inputs": inputs, "outputs": outputs, "encoder": ENCODER, **model}
    config = ml_collections.ConfigDict({"model": section, "task": task})
    made = perceiver_jax.build_model(config.model)
    run = runs.Run(
        pathlib.Path("nowhere"),
        0,
        config,
        made,
        {},
        tasks.build_task(config.task, fields),
        fields,
        class_names or {},
        may_lack,
    )
    example = {
        key: np.asarray(x)[None]
        for name, field in fields.items()
        if name in inputs
        for key, x in fields_lib.named(name, field.zeros()).items()
    }
    rng = np.random.default_rng(1)  # Nothing is compiled for it.
    shapes = jax.eval_shape(made.init, jax.random.key(0), example)
    params = {
        module: {
            name: jnp.asarray(_draw(rng, name, x.shape), x.dtype) for name, x in leaves.items()
        }
        for module, leaves in shapes.items()
    }
    object.__setattr__(run, "params", params)
    return run


@functools.cache
def classifier():
    """Pictures -> three classes."""
    return make_run(
        {
            "image": {"kind": "image", "image_size": 7},
            "label": LABEL,
        },
        {
            "image": {
                "kind": "image",
                **SCALES,
                "position_encoding": fourier(7, 7),
            }
        },
        {"label": {"kind": "mean_pool", "size": 3}},
        {"kind": "classification", "target": "label"},
        {"label": ("a cat", "a dog", "a cow")},
    )


@functools.cache
def language():
    """A text with gaps -> itself."""
    return make_run(
        {"text": {"kind": "masked_text", "max_length": 23, "cls_sep": True}},
        {
            "text": {
                "kind": "text",
                "vocab_size": 262,
                "num_channels": 8,
                "max_length": 23,
                "position_encoding": learned(8),
            }
        },
        {
            "text": {
                "kind": "text",
                "size": 262,
                "position_encoding": learned(8),
                **QUERY,
            }
        },
        {"kind": "masked_text", "target": "text"},
    )


@functools.cache
def flow():
    """Two frames -> their flow."""
    size = (7, 11)
    return make_run(
        {
            "frames": {"kind": "frames", "image_size": size},
            "flow": {"kind": "flow", "image_size": size},
        },
        {
            "frames": {
                "kind": "frames",
                **SCALES,
                "num_channels": 5,
                "position_encoding": fourier(*size),
            }
        },
        {"flow": {"kind": "flow", "reads": "frames", **QUERY}},
        {"kind": "flow", "target": "flow"},
    )


@functools.cache
def clips():
    """Sound and frames -> the same, and one of three classes."""
    audio, video = fourier(960), fourier(2, 8, 8)
    return make_run(
        {
            "audio": {"kind": "audio", "num_samples": 3_840},
            "video": {"kind": "video", "num_frames": 2, "image_size": 8},
            "label": LABEL,
        },
        {
            "audio": {"kind": "audio", "patch_size": 16, "position_encoding": audio},
            "label": {"kind": "label", "num_classes": 3},
            "video": {
                "kind": "video",
                "mean": (0.0, 0.0, 0.0),
                "std": (1.0, 1.0, 1.0),
                "patch_size": (1, 4, 4),
                "position_encoding": video,
            },
        },
        {
            "audio": {"kind": "grid", "index_dims": (240,), "size": 16, "position_encoding": audio},
            "label": {"kind": "query", "size": 3, "query_channels": 8},
            "video": {
                "kind": "grid",
                "index_dims": (2, 8, 8),
                "size": 3,
                "position_encoding": video,
            },
        },
        {"kind": "autoencoding", "weights": {"audio": 1.0, "video": 0.03, "label": 1e-4}},
        {"label": ("walking", "running", "sitting")},
        fusion={
            "modality_channels": 4,
            "mask_rates": {"label": 0.5},
            "masked_in_evaluation": ("label",),
        },
        decoder={"query_padding": 2, "channels": 8, "num_heads": 1},
    )
