"""Models for tests: small ones with random weights, and a stub without any."""

import pathlib
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import perceiver_jax
from perceiver_jax import config as config_lib
from perceiver_jax import data, predictions, runs, tasks
from perceiver_jax.data import fields as fields_lib

ENCODER = {
    "num_latents": 5,
    "latent_channels": 8,
    "layers": ("cross_attend_0", "latent_transformer_0"),
    "num_self_attends": 1,
    "num_cross_attend_heads": 1,
    "num_self_attend_heads": 1,
}
INPUTS = ("audio", "points", "text", "video")  # Of stubs.


def fourier(*resolution):
    return {"kind": "fourier", "num_bands": 2, "max_resolution": resolution}


def read_fields(sections):
    return {
        name: config_lib.build_from_table(fields_lib.FIELDS, section, name)
        for name, section in sections.items()
    }


def classifier(name, field, section, class_names, **encoder):
    """A run of one input, whose parameters are random; nothing is compiled for them."""
    label = {"kind": "label", "num_classes": len(class_names), "multi_label": False}
    fields = read_fields({name: field, "label": label})
    outputs = {"label": {"kind": "mean_pool", "size": len(class_names)}}
    model = {"inputs": {name: section}, "outputs": outputs, "encoder": ENCODER | encoder}
    task = {"kind": "classification", "target": "label"}
    config = ml_collections.ConfigDict({"model": model, "task": task})
    made = perceiver_jax.build_model(config.model)
    shapes = jax.eval_shape(made.init, jax.random.key(0), fields_lib.zero_batch(fields))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.array(rng.normal(0, 0.5, x.shape), jnp.float32), shapes)
    build = tasks.build_task(config.task, fields)
    named = {"label": tuple(class_names)}
    return runs.Run(pathlib.Path("nowhere"), 0, config, made, params, build, fields, named, ())


class Stub:
    """What is asked of a run, without a model: outputs are a function of a batch."""

    hidden, may_lack, workdir = [], (), pathlib.Path("nowhere")
    task = types.SimpleNamespace(
        predict=lambda outputs: outputs, outputs={"label": 3}, description="a stub"
    )

    def __init__(self, compute, class_names=(), **fields):
        self._compute, self.fields = compute, read_fields(fields)
        inputs = [name for name, field in self.fields.items() if not field.is_target]
        kind = {"label": {"kind": "mean_pool"}} if class_names else {"flow": {"kind": "flow"}}
        self.class_names = {"label": class_names} if class_names else {}
        encoder = {"layers": ENCODER["layers"]}
        model = {"inputs": dict.fromkeys(inputs, {}), "outputs": kind, "encoder": encoder}
        self.config = ml_collections.ConfigDict({"model": model})

    def __call__(self, batch):
        return self._compute(batch)

    def reader(self, num_windows=1, up="y"):
        return data.make_reader(self.fields, num_windows=num_windows, up=up)

    def predict(self, *examples, **options):
        return predictions.predict(self, examples, **options)


def three_classes(batch):
    """Probabilities that depend on all of a row, and on nothing else."""
    rows = [x.reshape(len(x), -1).astype(np.float64) for n, x in batch.items() if n in INPUTS]
    scores = sum(x @ np.sin(np.arange(x.shape[1] * 3)).reshape(-1, 3) for x in rows)
    scores = scores / (1 + np.abs(scores).max(axis=1, keepdims=True))
    odds = np.exp(scores)
    return {"label": (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)}
