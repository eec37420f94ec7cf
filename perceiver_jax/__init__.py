"""Perceiver (Jaegle et al. 2021) in JAX and Haiku.

Letters of shapes, everywhere in this package (M, C, N, D, K are the paper's):
B batch · M inputs · C input channels · N latents · D latent channels · H heads · P channels per
head (V for values) · K Fourier bands · X position dimensions or axes of a grid · F features ·
L numbers of an output, such as a logit a class.

Names below are imported when they are first asked for: recipes and the processes that decode data
import parts of this package, and need no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

# ruff: noqa: F401
if TYPE_CHECKING:  # What editors follow.
    from perceiver_jax.attention import CrossAttention, SelfAttention
    from perceiver_jax.config_file import load_config
    from perceiver_jax.encoder import PerceiverEncoder
    from perceiver_jax.exporting.folder import export
    from perceiver_jax.layers import make_layers
    from perceiver_jax.model import Model, build_model, param_count
    from perceiver_jax.outputs.mean_pool import MeanPoolDecoder
    from perceiver_jax.outputs.query import QueryDecoder
    from perceiver_jax.position_encoding import (
        FourierEncoding,
        LearnedEncoding,
        fourier_features,
        linear_positions,
    )
    from perceiver_jax.pretrained.load import load_pretrained
    from perceiver_jax.runs import Run, evaluate, load_run, train
    from perceiver_jax.tasks.flow_colours import flow_picture
    from perceiver_jax.tokens import Tokens

__version__ = "0.1.0"

_MODULES = {
    "CrossAttention": "attention",
    "FourierEncoding": "position_encoding",
    "LearnedEncoding": "position_encoding",
    "MeanPoolDecoder": "outputs.mean_pool",
    "Model": "model",
    "PerceiverEncoder": "encoder",
    "QueryDecoder": "outputs.query",
    "Run": "runs",
    "SelfAttention": "attention",
    "Tokens": "tokens",
    "build_model": "model",
    "evaluate": "runs",
    "export": "exporting.folder",
    "flow_picture": "tasks.flow_colours",
    "fourier_features": "position_encoding",
    "linear_positions": "position_encoding",
    "load_config": "config_file",
    "load_pretrained": "pretrained.load",
    "load_run": "runs",
    "make_layers": "layers",
    "param_count": "model",
    "train": "runs",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    globals()[name] = getattr(module, name)
    return globals()[name]


def __dir__() -> list[str]:
    return [*globals(), *__all__]
