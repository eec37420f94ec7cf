"""What `Run.predict` returns -> JSON."""

import base64
from collections.abc import Mapping
import io
import math
from typing import Any

import numpy as np
import PIL.Image

from perceiver_jax.tasks import flow_colours

ARRAYS = ("lists", "npy", "png")  # How an array is sent.


def to_json(answer: Mapping[str, Any], arrays: str = "lists") -> dict[str, Any]:
    """Returns the JSON values of an answer.

    Args:
        answer: of one example, as of `Run.predict`.
        arrays: 'lists' of numbers, null where there is none; 'npy', `{"npy": ...}`, a file in
            base64; 'png', `{"png": ...}`, the colours of a flow [H, W, 2], pictures beside each
            other of pixels [..., H, W, 3], and lists of what is neither.
    """
    return {name: _value(value, arrays) for name, value in answer.items()}


def png(pixels: np.ndarray | PIL.Image.Image) -> str:
    """Returns a PNG file, in base64, of pixels uint8 [H, W], [H, W, 1] or [H, W, 3]."""
    if isinstance(pixels, np.ndarray):
        pixels = PIL.Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
    file = io.BytesIO()
    pixels.save(file, format="png")
    return base64.b64encode(file.getvalue()).decode()


def beside(frames: np.ndarray) -> np.ndarray:
    """Puts pictures [T, H, W, channels] beside each other."""
    return np.concatenate(list(frames), axis=1)


def _value(value: Any, arrays: str) -> Any:
    if not isinstance(value, np.ndarray):
        return _finite(value)
    if arrays == "npy":
        file = io.BytesIO()
        np.save(file, value)
        return {"npy": base64.b64encode(file.getvalue()).decode()}
    if arrays == "png" and value.ndim == 3 and value.shape[2] == 2:
        return {"png": png(flow_colours.flow_picture(value))}
    if arrays == "png" and value.dtype == np.uint8 and value.ndim >= 3 and value.shape[-1] == 3:
        return {"png": png(beside(value.reshape(-1, *value.shape[-3:])))}
    return _finite(value.tolist()) if value.dtype.kind == "f" else value.tolist()


def _finite(values: Any) -> Any:
    """The same with None for what is no number of JSON."""
    if isinstance(values, list | tuple):
        return [_finite(x) for x in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
