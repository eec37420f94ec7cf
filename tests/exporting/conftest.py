"""Runs of the recipes' kinds with small models of random weights."""

import functools
import os
import pathlib
import tempfile

import jax
import numpy as np
import pytest

import perceiver_jax
from perceiver_jax import data as data_lib
from perceiver_jax import exporting, runs, tasks
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.exporting import demo, folder, programs
from tests.data.photographs import photograph

RUNTIME = os.environ.get("ONNXRUNTIME_WEB")  # The folder of the package; see docs/using.md.
_FOLDER = tempfile.TemporaryDirectory(prefix="perceiver_exported_")

CONFIGS = pathlib.Path(__file__).parents[2] / "experiments" / "configs"
LAYERS = ("cross_attend_0", "latent_transformer_0", "cross_attend_0", "latent_transformer_0")
ORDERS = ("sequential", "unrolled")  # Have layers of their own.
SMALL = {"num_latents": 3, "latent_channels": 16, "num_self_attends": 1}


def _draw(rng, path, shape):
    name = path.rpartition("/")[2]
    if name in ("w", "conv_w"):  # A linear map keeps lengths.
        return rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape).astype(np.float32)
    if name in ("scale", "variance") or path.endswith("video/output/b"):  # Else all may be black.
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return rng.normal(0, 0.01 if name in ("b", "bias", "conv_b") else 0.5, shape).astype(np.float32)


@functools.cache
def make_run(recipe, **changes):
    """A run that was not trained."""
    changes = {f"model.encoder.{key}": x for key, x in SMALL.items()} | changes
    if not recipe.endswith(ORDERS):
        changes = {"model.encoder.layers": LAYERS} | changes
    config = perceiver_jax.load_config(str(CONFIGS / recipe), changes)
    data = data_lib.build_data(**config.data)
    model = perceiver_jax.build_model(config.model)
    inputs = config.model.inputs
    read = {name: x for name, x in data.fields.items() if not x.is_target or name in inputs}
    shapes = jax.eval_shape(model.init, jax.random.key(0), fields_lib.zero_batch(read))
    rng = np.random.default_rng(1)  # Of 0, all bytes of texts are predicted to be the same.
    params = {
        module: {name: _draw(rng, f"{module}/{name}", x.shape) for name, x in leaves.items()}
        for module, leaves in shapes.items()
    }
    class_names = {
        name: tuple(f"class {i}" for i in range(field.num_classes))
        for name, field in data.fields.items()
        if hasattr(field, "num_classes")
    }
    return runs.Run(
        pathlib.Path("nowhere"),
        7,
        config,
        model,
        jax.device_put(params),
        tasks.build_task(config.task, data.fields),
        data.fields,
        class_names,
        tuple(sorted(data.may_lack)),
    )


@pytest.fixture(scope="session")
def run_of():
    """Returns the run of a recipe, made once."""
    return make_run


@functools.cache
def compute(recipe):
    """A batch of three of noise, and what the run predicts of it; compiled once."""
    run = make_run(recipe)
    rng = np.random.default_rng(1)
    batch = make_batch(rng, run, 3)
    predicted = run.task.predict(run(programs.complete(run, batch)))
    return batch, jax.device_get(predicted)


def make_batch(rng, run, size):
    """A batch of noise; texts have ids of all bytes."""
    ids = {name: 262 for name, keys in run.config.model.inputs.items() if keys.kind == "text"}
    rows = [
        {
            name: rng.integers(ids[name], size=x.shape, dtype=x.dtype)
            if name in ids
            else folder.noise(rng, x)
            for name, x in programs.inputs(run).items()
        }
        for _ in range(size)
    ]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


@pytest.fixture(scope="session")
def computed_of():
    """Returns a batch and what the run of a recipe predicts of it."""
    return compute


@functools.cache
def export_digits():
    """Exports small digits with all that there is; returns the folder, which lasts a session."""
    path = pathlib.Path(_FOLDER.name)
    for number in (1, 2):
        (path / f"photo_{number}.png").write_bytes(photograph(number, file_format="png"))
    for name in demo._RUNTIME if not RUNTIME else ():  # Files that look like onnxruntime-web's.
        (path / "runtime" / name).parent.mkdir(exist_ok=True, parents=True)
        (path / "runtime" / name).write_text(f"// {name}")
    files = sorted(path.glob("*.png"))
    runtime = RUNTIME or path / "runtime"
    run = make_run("imagenet.py:mini")
    assert exporting.export(run, path / "digits", examples=files, static_demo=runtime) is None
    return path / "digits"


@pytest.fixture(scope="session")
def digits_folder():
    """The folder of small digits, with ONNX file, examples and demo."""
    return export_digits()
