"""Small models with random weights, and servers of them that many tests share."""

import io

import numpy as np
import PIL.Image
import pytest

from perceiver_jax.data.builders import mnist5k
from tests.serving import live, small


@pytest.fixture(scope="session")
def digits():
    """Grey pictures of 28 x 28 pixels, ten classes."""
    section = {"kind": "image", "mean": (0.13,), "std": (0.31,)}
    return small.classifier(
        "image",
        {"kind": "image", "image_size": 28, "channels": 1, "crop": "none"},
        section | {"position_encoding": small.fourier(28, 28)},
        "0123456789",
    )


@pytest.fixture(scope="session")
def files():
    """Digits as PNG files."""
    return [_png(digit) for digit in mnist5k.images("test")[::91]]


def _png(pixels):
    file = io.BytesIO()
    PIL.Image.fromarray(np.asarray(pixels)).save(file, format="png")
    return file.getvalue()


@pytest.fixture(scope="session")
def server(digits):
    """A server of digits, with the page."""
    with live.serving(digits, demo=True, upload_mb=2, upload_seconds=2.0) as found:
        yield found
