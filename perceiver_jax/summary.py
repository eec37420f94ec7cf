"""What a config builds, in numbers: inputs, weights and where they are used, size, cost."""

from collections.abc import Mapping
import math
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np
import rich.console
import rich.table
import rich.text

import perceiver_jax
from perceiver_jax import checks, flops
from perceiver_jax import config as config_lib
from perceiver_jax import layers as layers_lib


def describe_model(
    config: ml_collections.ConfigDict, batch: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Describes the model of a config.

    Args:
      config: the whole config.
      batch: arrays of the shapes and dtypes of a training batch; the values don't matter.

    Returns:
      What `python -m experiments.describe --json` prints: `inputs` by modality and `input` for all
      of them fused (number and channels; None if no cross-attend reads that), `latents`, `layers`
      (weight set by layer), `reads` (what each reads; None for a latent Transformer), `weights`
      (parameters and layers by weight set), `parameters`, `flops` of the forward pass of one
      example, counted as the paper does (`paper`: keys and values projected as written) and as
      executed (`executed`).
    """
    shapes, params, sizes = _describe_sizes(config, batch)
    encoder = config.model.encoder
    layers = layers_lib.of_encoder(encoder)
    weights = {}
    for path, arrays in params.items():
        name = path.split("/")[1] if path.startswith("encoder/") else path
        name = {"encoder": "latents"}.get(name, name)
        row = weights.setdefault(name, {"parameters": 0, "layers": []})
        row["parameters"] += perceiver_jax.param_count({path: arrays})
        row["layers"] = [i for i, layer in enumerate(layers) if layer.weights == name]
    return (
        {"experiment": config.experiment}
        | sizes
        | {
            "layers": [layer.weights for layer in layers],
            "reads": [layer.reads for layer in layers],
            "weights": weights,
            "flops": {
                "paper": _paper_flops(config, params, shapes),
                "executed": _flops(config.model, params, shapes),
            },
        }
    )


def activation_bytes(
    config: ml_collections.ConfigDict, batch: Mapping[str, np.ndarray]
) -> dict[str, int]:
    """Estimates what a training step keeps for the backward pass for each example, in bytes.

    It is what one more example adds to the residuals of `jax.vjp`; XLA may need less or more.

    Args:
      config: the whole config.
      batch: as of `describe_model`.

    Returns:
      Bytes by dtype, float32 and the config's own.
    """
    _, shapes, params = _build(config, batch)
    return {
        dtype: _residual_bytes(_with(config.model, dtype=dtype), params, shapes, 2)
        - _residual_bytes(_with(config.model, dtype=dtype), params, shapes, 1)
        for dtype in dict.fromkeys(["float32", config.model.dtype])
    }


def print_summary(
    console: rich.console.Console,
    config: ml_collections.ConfigDict,
    data: Any,
    task: Any,
    batch: Mapping[str, np.ndarray],
    workdir: pathlib.Path,
) -> None:
    """Prints what is about to be trained.

    Args:
      console: where to.
      config: the whole config.
      data: the `Data` of it.
      task: what it is trained for.
      batch: as of `describe_model`.
      workdir: where results go.
    """
    shapes, params, model = _describe_sizes(config, batch)  # All that is shown, for it takes time.
    inputs = ", ".join(f"{name} {_format_size(x)}" for name, x in model["inputs"].items())
    if len(model["inputs"]) > 1 and model["input"]:
        inputs += f"; together {_format_size(model['input'])}"
    epochs = config.train.steps * data.batch_size / data.num_train
    count = format_count(_paper_flops(config, params, shapes))
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}, {config.train.parallelism}"
    if jax.process_count() > 1:
        devices += f", {jax.process_count()} processes"
    frozen = config_lib.matching("frozen", config.optimizer.frozen, checks.shapes(params))
    trained = sum(math.prod(x) for p, x in checks.shapes(params).items() if p not in frozen)
    resumes = any((workdir / "checkpoints").glob("[0-9]*"))
    title = rich.text.Text(config.experiment)
    table = rich.table.Table(title=title, title_justify="left", show_header=False)
    rows = {
        "inputs": inputs,
        "model": f"{_format_size(model['latents'])} latents, {model['parameters']:,} parameters, "
        f"{count}FLOP an example, {config.model.dtype}",
        "data": f"{data.name}: {data.num_train:,} to train on, {data.num_test:,} to test,"
        f" {task.description}",
        "training": f"{config.train.steps:,} steps of {data.batch_size} = {epochs:.4g} "
        f"epochs, {config.optimizer.name}, learning rate {config.optimizer.learning_rate:g}",
        "trained": f"{trained:,} of {model['parameters']:,} parameters" if frozen else "",
        "start": config.init.source,
        "devices": devices,
        "workdir": f"{workdir} ({'resumes' if resumes else 'new'})",
    }
    for name, text in filter(all, rows.items()):
        table.add_row(name, rich.text.Text(text, overflow="fold"))
    console.print(table)


def format_count(number: int | float) -> str:
    """Returns 44,912,254 as '44.9 M'."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return f"{number:.0f}"


def _build(config, batch):
    """The model, the shapes of its inputs for one example, and those of its parameters."""
    model = perceiver_jax.build_model(config.model)
    shapes = {
        name: _shape(1, x)
        for name, x in batch.items()
        if name.removesuffix("_mask") in config.model.inputs
    }
    return model, shapes, jax.eval_shape(model.init, jax.random.key(0), shapes)


def _describe_sizes(config, batch):
    """Shapes of the inputs and parameters, and what `describe_model` says of sizes."""
    model, shapes, params = _build(config, batch)
    encoder = config.model.encoder
    layers = layers_lib.of_encoder(encoder)
    sources = {layer.source for layer in layers} or {layers_lib.ALL}

    def size(name):
        """Of an input, or of all fused; of all parts of it if it is read in parts only."""
        whole = name in sources or layers_lib.ALL in sources
        parts = 1 if whole else max(layers_lib.num_parts(layers), 1)
        reads = name if parts == 1 else f"{name}[0]"
        tokens = jax.eval_shape(lambda p, b: model.tokens(p, None, b, reads=reads), params, shapes)
        _, number, channels = tokens.values.shape
        return {"number": number * parts, "channels": channels}

    inputs = {name: size(name) for name in config.model.inputs}
    fused = sources & {layers_lib.ALL, f"{layers_lib.ALL}[]"}
    sizes = {
        "inputs": inputs,
        "input": size(layers_lib.ALL) if fused or len(inputs) == 1 else None,
        "latents": _latents(model, encoder, shapes, params),
        "parameters": perceiver_jax.param_count(params),
    }
    return shapes, params, sizes


def _latents(model, encoder, shapes, params):
    """The size of the final latents; of a baseline that of its features."""
    if "kind" not in encoder:
        return {"number": encoder.num_latents, "channels": encoder.latent_channels}
    _, number, channels = jax.eval_shape(model.latents, params, shapes).shape
    return {"number": number, "channels": channels}


def _format_size(size: Mapping[str, int]) -> str:
    return f"{size['number']:,} x {size['channels']:,}"


def _shape(batch_size: int, x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype)


def _with(model: ml_collections.ConfigDict, **keys: Any) -> ml_collections.ConfigDict:
    """A copy of a model section with other keys of the encoder or of its own."""
    model = model.copy_and_resolve_references()
    for key, value in keys.items():
        section = model if key in model else model.encoder
        section[key] = value
    return model


def _flops(model_config, params, shapes) -> int:
    model = perceiver_jax.build_model(model_config)
    return flops.count_flops(lambda p, b: model.apply(p, None, b), params, shapes)


def _paper_flops(config, params, shapes) -> int:
    keys = {} if "kind" in config.model.encoder else {"streaming": False}
    return _flops(_with(config.model, **keys), params, shapes)


def _residual_bytes(model_config, params, shapes, batch_size: int) -> int:
    """Size of what the backward pass needs of the forward pass, parameters included."""
    model = perceiver_jax.build_model(model_config)
    batch = {name: _shape(batch_size, x) for name, x in shapes.items()}
    rng = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch_size))

    def backward(params, rng, batch):
        return jax.vjp(lambda p: model.apply(p, rng, batch, is_training=True), params)[1]

    leaves = jax.tree.leaves(jax.eval_shape(backward, params, rng, batch))
    return sum(x.size * x.dtype.itemsize for x in leaves)
