"""Writes models of the released kinds with random weights, as Hugging Face's port would."""

from collections.abc import Mapping
import json
import pathlib
from typing import Any

import jax
import numpy as np
import safetensors.numpy

import perceiver_jax
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.pretrained import configs, descriptions, names


def write(port: Mapping[str, Any], folder: pathlib.Path, seed: int = 0) -> None:
    """Writes `config.json` and `model.safetensors`, which `load_pretrained` reads.

    Args:
      port: what is in `config.json`: of `configs.RELEASED`, or smaller.
      folder: where; made if it is not there.
      seed: of the weights.
    """
    section, described = configs.from_port(port), descriptions.describe(port)
    fields = {
        name: fields_lib.FIELDS[keys["kind"]](**{k: x for k, x in keys.items() if k != "kind"})
        for name, keys in described["fields"].items()
    }
    model = perceiver_jax.build_model(section)
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), fields_lib.zero_batch(fields)
    )  # Nothing is compiled.
    rng = np.random.default_rng(seed)
    params = {
        module: {name: _draw(rng, name, x.shape) for name, x in leaves.items()}
        for module, leaves in shapes.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    tensors = names.write(params, names.table(section))
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(x) for name, x in tensors.items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "perceiver", **port}))


def _draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.standard_normal(shape, np.float32)
    if name == "w":  # A linear map keeps lengths.
        return values / np.float32(np.sqrt(max(1, np.prod(shape[:-1]))))
    return np.float32(1 if name in ("scale", "variance") else 0) + np.float32(0.02) * values
