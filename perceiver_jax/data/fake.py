"""Random batches in the form of any config's, to test and to time what comes after the data."""

from collections.abc import Iterator

import numpy as np

from perceiver_jax.data import fields as fields_lib
from perceiver_jax.data import pipeline
from perceiver_jax.data.fields import label


def fake_batches(data: pipeline.Data, seed: int) -> Iterator[pipeline.Batch]:
    """Yields endless batches of noise and random labels; needs no data set on disk.

    Args:
        data: whose `zero_batch` the batches have.
        seed: decides the contents.
    """
    spec = data.zero_batch()
    rng = np.random.default_rng(seed)
    while True:
        names = [
            name
            for field_name, field in data.fields.items()
            if field_name not in data.labels
            for name in fields_lib.named(field_name, field.zeros())
        ]
        batch = {name: _noise(rng, spec[name]) for name in names}
        for name, field in data.labels.items():
            classes = rng.integers(field.num_classes, size=data.batch_size, dtype=np.int32)
            one_hot = label.one_hot(classes, field.num_classes)
            batch[name] = one_hot if spec[name].ndim == 2 else classes
        masks = spec.keys() & {f"{name}_mask" for name in data.inputs}
        batch |= {name: np.ones(data.batch_size, bool) for name in masks}
        batch["example_id"] = np.arange(data.batch_size, dtype=np.int32)
        batch["mask"] = np.ones(data.batch_size, bool)
        yield batch


def _noise(rng: np.random.Generator, spec: np.ndarray) -> np.ndarray:
    if spec.dtype == np.uint8:
        return rng.integers(256, size=spec.shape, dtype=np.uint8)
    if spec.dtype.kind in "bi":  # Masks, and numbers of something, of which there are at least 2.
        return rng.integers(2, size=spec.shape).astype(spec.dtype)
    return rng.uniform(-1, 1, spec.shape).astype(spec.dtype)
