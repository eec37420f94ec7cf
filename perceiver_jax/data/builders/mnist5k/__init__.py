"""mnist5k: 5,000 handwritten digits, a small stand-in for ImageNet with the same features."""

from collections.abc import Iterator
import io
import pathlib

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from perceiver_jax.data.builders import base

CLASSES = tuple(str(digit) for digit in range(10))
SIZES = {"train": 4_000, "test": 1_000}

_PATH = pathlib.Path(__file__).parent / "mnist5k.npz"


class Mnist5k(base.EmbeddedBuilder):
    """Every fifth of the digits, which are sorted by class, is a test example."""

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples of each split."""
        return SIZES

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="5,000 digits of MNIST, 500 of each class.",
            license="CC BY-SA 3.0, see LICENSE.md beside the builder",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                }
            ),
        )

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        with np.load(_PATH) as arrays:
            digits, labels = arrays["image"], arrays["label"]
        for i, (image, label) in enumerate(zip(digits, labels, strict=True)):
            if _is_test(i) == (split == "test"):
                yield f"{i:04d}", {"image": _encode_png(image), "label": int(label)}


def images(split: str) -> np.ndarray:
    """Returns the digits of a split as an array, uint8 [E, 28, 28]."""
    with np.load(_PATH) as arrays:
        chosen = _is_test(np.arange(len(arrays["image"]))) == (split == "test")
        return arrays["image"][chosen]


def _is_test(number):
    return number % 5 == 4


def _encode_png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()  # Given an array, TFDS would encode it with TensorFlow.
    PIL.Image.fromarray(image).save(buffer, format="png")
    return buffer.getvalue()
