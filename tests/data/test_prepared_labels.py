"""Labels of a set on disk that are no classes, and what tells a set from one prepared otherwise."""

import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from perceiver_jax import data
from perceiver_jax.data import datasets
from tests.data.conftest import encode_picture

IMAGE = {"image": {"kind": "image", "image_size": 11, "crop": "none"}}
LIMIT = {"max_bad_records": 10}


class Pets(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Pictures of as many classes as are named; a test split whose labels can be set."""

    VERSION = tfds.core.Version("1.0.0")
    classes: tuple = ("cat", "dog", "fish")
    several = False
    size = 40
    test_labels: tuple = (0, 1, 2, 0, 1)

    def _info(self):
        label = tfds.features.ClassLabel(names=list(self.classes))
        features = {
            "image": tfds.features.Image(encoding_format="png"),
            "label": tfds.features.Sequence(label) if self.several else label,
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        train = [i % len(self.classes) for i in range(self.size)]
        return {
            "train": self._generate_examples(train),
            "test": self._generate_examples(self.test_labels),
        }

    def _generate_examples(self, labels):
        for i, label in enumerate(labels):
            picture = encode_picture(np.full((11, 11, 3), i, np.uint8))
            yield i, {"image": picture, "label": [label, 0] if self.several else label}


@pytest.fixture
def pets(tmp_path, make_data):
    def make(settings=None, **attributes):
        shutil.rmtree(tmp_path / "pets", ignore_errors=True)
        builder = type("Pets", (Pets,), attributes, skip_registration=True)
        datasets.build(builder(data_dir=tmp_path))
        fixed = {"data_dir": str(tmp_path), "fields": IMAGE}
        return make_data("pets", **fixed | (settings or {}))

    return make


@pytest.mark.parametrize(
    ("attributes", "label"),
    [
        ({"test_labels": (-1,) * 5}, "-1; expected 0 to 2"),
        ({"test_labels": (0, 1, 2, 1, -1)}, "-1; expected 0 to 2"),
        ({"test_labels": (-1,) * 5, "several": True}, "-1; expected 0 to 2"),
    ],
    ids=["all hidden", "one hidden", "of several labels"],
)
def test_labels_that_are_hidden_are_said_before_training(pets, attributes, label):
    made = pets(**attributes)
    with pytest.raises(ValueError, match=rf"split test, has a .*{label}.*config.data.test_split"):
        made.check_labels()


def test_any_other_label_that_is_no_class_is_said_when_it_is_read(pets):
    made = pets(test_labels=(0, 1, -1, 1, 0))
    with pytest.raises(data.BadDataError, match="split test: label that is no class: -1"):
        list(made.test_batches(5, 1))


def test_examples_without_a_class_are_left_out_like_other_bad_records(pets):
    made = pets(LIMIT, test_labels=(0, 1, -1, 1, 2))
    batches = made.test_batches(5, 1)
    (batch,) = batches
    assert batch["mask"].sum() == 4
    assert len(batches.bad_records) == 1


def test_a_set_prepared_again_from_the_same_is_the_same(pets):
    first = pets().fingerprint()
    assert first["classes"] == ["cat", "dog", "fish"]
    assert first["train"]["examples"] == 40
    assert first == pets().fingerprint()


@pytest.mark.parametrize(
    ("attributes", "changed"),
    [
        ({"classes": ("ant", "cat", "dog")}, {"classes"}),
        ({"size": 20}, {"train"}),
        ({"test_labels": (0, 1, 2, 1, 0)}, {"test"}),
    ],
    ids=["classes", "half of it", "labels"],
)
def test_a_set_prepared_from_something_else_is_another_one(pets, attributes, changed):
    before, after = pets().fingerprint(), pets(**attributes).fingerprint()
    assert {key for key in before if before[key] != after[key]} == changed


def test_arrays_in_another_order_are_other_data():
    x, labels = np.ones((12, 3)), np.arange(12) % 3
    first, again, other = (
        data.from_arrays({"x": x}, order, {"x": x}, labels, batch_size=4).fingerprint()
        for order in (labels, labels, labels[::-1])
    )
    assert first == again
    assert first["train"] != other["train"]
