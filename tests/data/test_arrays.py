"""Arrays in memory make the same kind of batches as a data set on disk."""

import numpy as np
import pytest

from perceiver_jax import data
from tests.data.test_pipeline import indices, take


def make(rng, labels=None, **changes):
    arrays = {"signal": rng.normal(size=(12, 7, 3)), "tone": rng.normal(size=(12, 5))}
    arguments = {
        "inputs": arrays,
        "labels": np.arange(12) % 3 if labels is None else labels,
        "test_inputs": {name: array[:5] for name, array in arrays.items()},
        "test_labels": np.arange(5) % 3 if labels is None else labels[:5],
        "batch_size": 6,
    }
    return arrays, data.from_arrays(**arguments | changes)


def test_batches_hold_the_arrays_rows(rng):
    arrays, made = make(rng)
    spec = {name: (array.shape, array.dtype) for name, array in made.batch_spec().items()}
    for batch in take(made.train_batches(seed=0), 4):
        assert {name: (array.shape, array.dtype) for name, array in batch.items()} == spec
        for name, array in arrays.items():
            np.testing.assert_array_equal(batch[name], array[batch["index"]].astype(np.float32))
        np.testing.assert_array_equal(batch["label"], batch["index"] % 3)


def test_an_epoch_has_every_row_once_and_a_test_too(rng):
    _, made = make(rng)
    order = indices(take(made.train_batches(seed=0), 4))
    assert sorted(order[:6].tolist() + order[6:12].tolist()) == list(range(12))
    assert (order[:12] != order[12:]).any()
    tested = list(made.test_batches(3, 1))
    assert sorted(indices(tested).tolist()) == [-1, 0, 1, 2, 3, 4]


def test_augmentation_is_of_training_only_and_the_same_again(rng):
    def add_noise(signal, rng):
        return signal + rng.normal(size=signal.shape)

    arrays, made = make(rng, augment={"signal": add_noise})
    first, again = (take(made.train_batches(seed=1), 1)[0] for _ in range(2))
    assert (first["signal"] != arrays["signal"][first["index"]].astype(np.float32)).all()
    np.testing.assert_array_equal(first["signal"], again["signal"])
    (tested,) = list(made.test_batches(5, 1))
    np.testing.assert_array_equal(tested["signal"], arrays["signal"][:5].astype(np.float32))


def test_several_labels_stay_as_they_are(rng):
    labels = (rng.random((12, 4)) < 0.5).astype(int)
    _, made = make(rng, labels)
    assert made.multi_label and made.num_classes == 4
    (batch,) = take(made.train_batches(seed=0), 1)
    np.testing.assert_array_equal(batch["label"], labels[batch["index"]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros(11, int)}, "Got 12 examples of 'signal' and 11 labels"),
        ({"labels": np.zeros(12)}, r"labels float64 \[12\]; expected integers"),
        ({"inputs": {"signal": np.zeros((12, 7, 3))}}, "Got 'tone' as nothing to train on"),
        ({"inputs": {}}, "Got no inputs"),
        ({"inputs": {"tone": np.zeros((12, 5), int)}}, "Got input 'tone' as int64; expected float"),
        ({"class_names": ["a", "b"]}, "Got 2 class names for 3 classes"),
        ({"augment": {"sound": abs}}, r"augment for \['sound'\]; expected some of \['signal'"),
    ],
)
def test_arrays_that_do_not_fit_are_explained(rng, changes, message):
    with pytest.raises(ValueError, match=message):
        make(rng, **changes)
