"""furniture11: 391 point clouds of household things, a small stand-in for ModelNet40."""

from collections.abc import Iterator
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from perceiver_jax.data.builders import base

CLASSES = tuple("bed cabinet chair door_window lamp person plant sofa table vehicle vessel".split())
SIZES = {"train": 318, "test": 73}
NUM_POINTS = 1_024

_PATH = pathlib.Path(__file__).parent / "furniture11_1024.npz"
_INT16_MAX = 32_767
_TEXTS = ("name", "library", "license", "creator")


class Furniture11(base.EmbeddedBuilder):
    """In each class, every fifth of the clouds is a test example. The y axis points up."""

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples of each split."""
        return SIZES

    def _info(self) -> tfds.core.DatasetInfo:
        points = tfds.features.Tensor(shape=(NUM_POINTS, 3), dtype=np.float32)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Points on the surfaces of 391 meshes of Sweet Home 3D, in [-1, 1].",
            license="CC0 1.0 or CC BY 3.0 by item (feature `license`), see LICENSE.md",
            features=tfds.features.FeaturesDict(
                {
                    "points": points,
                    "label": tfds.features.ClassLabel(names=CLASSES),
                    "size_cm": tfds.features.Tensor(shape=(3,), dtype=np.float32),
                    **{name: tfds.features.Text() for name in _TEXTS},
                }
            ),
        )

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        with np.load(_PATH) as file:
            arrays = dict(file)
        seen = np.zeros(len(CLASSES), int)  # Clouds of each class so far.
        for i, label in enumerate(arrays["label"]):
            if (seen[label] % 5 == 4) == (split == "test"):
                yield (
                    f"{i:03d}",
                    {
                        "points": arrays["points"][i].astype(np.float32) / _INT16_MAX,
                        "label": int(label),
                        "size_cm": arrays["size_cm"][i],
                        **{name: str(arrays[name][i]) for name in _TEXTS},
                    },
                )
            seen[label] += 1
