"""Places that are trained: drawn for each example, and none in evaluation."""

import contextlib

import numpy as np
import pytest

from perceiver_jax import data as data_lib
from perceiver_jax.data.fields import indices

FIELDS = {
    "image": {"kind": "image", "image_size": 7, "channels": 1},
    "image_indices": {"kind": "indices", "num_indices": 11, "num_places": 49},
    "label": {"kind": "label"},
}


def build(tmp_path_factory, fields):
    return data_lib.build_data(
        dataset="mnist5k",
        data_dir=str(tmp_path_factory.getbasetemp() / "mnist5k"),
        fields=fields,
        train_split="train[:10]",
        test_split="test[:3]",
        batch_size=5,
        num_workers=0,
    )


def test_places_are_different_in_range_and_of_all_of_it():
    field = indices.Indices(11, 49)
    drawn = [field.read(None, 0.5, np.random.default_rng(i)) for i in range(40)]
    assert all(len(set(x)) == 11 for x in drawn)
    assert set(np.concatenate(drawn)) == set(range(49))
    assert drawn[0].dtype == np.int32


def test_few_of_many_places_take_no_memory_of_all():
    drawn = indices.Indices(512, 2**31 - 1).read(None, 0.5, np.random.default_rng(0))
    assert len(drawn) == 512


def test_batches_have_places_in_training_alone(tmp_path_factory):
    data = build(tmp_path_factory, FIELDS)
    with contextlib.closing(data.train_batches(0)) as batches:
        batch = next(batches)
    assert batch["image_indices"].shape == (5, 11)
    assert len({x.tobytes() for x in batch["image_indices"]}) == 5
    with contextlib.closing(data.test_batches(2, 1)) as batches:
        assert all("image_indices" not in batch for batch in batches)
    assert data.zero_batch()["image_indices"].shape == (5, 11)
    assert set(data.inputs) == {"image"}


def test_places_change_no_augmentation_of_what_is_read_before(tmp_path_factory):
    augmented = FIELDS | {"image": FIELDS["image"] | {"rotation_degrees": 30.0}}
    without = {name: x for name, x in augmented.items() if name != "image_indices"}
    with contextlib.closing(build(tmp_path_factory, augmented).train_batches(0)) as batches:
        first = next(batches)["image"]
    with contextlib.closing(build(tmp_path_factory, without).train_batches(0)) as batches:
        np.testing.assert_array_equal(first, next(batches)["image"])


def test_more_places_than_there_are_is_refused():
    with pytest.raises(ValueError, match="num_indices is 50; expected at most num_places, 49"):
        indices.Indices(50, 49)
