"""Arrays in memory make the same kind of batches as a data set on disk."""

import inspect
import json

import numpy as np
import pytest

from perceiver_jax import data
from perceiver_jax.data.fields import array as array_field
from perceiver_jax.data.fields import label, number
from tests.data.test_pipeline import indices, take


def make(rng, labels=None, **changes):
    arrays = {"signal": rng.normal(size=(12, 7, 3)), "tone": rng.normal(size=(12, 5))}
    arguments = {
        "inputs": arrays,
        "targets": np.arange(12) % 3 if labels is None else labels,
        "test_inputs": {name: array[:5] for name, array in arrays.items()},
        "test_targets": np.arange(5) % 3 if labels is None else labels[:5],
        "batch_size": 6,
    }
    return arrays, data.from_arrays(**arguments | changes)


def test_batches_hold_the_arrays_rows(rng):
    arrays, made = make(rng)
    spec = {name: (array.shape, array.dtype) for name, array in made.zero_batch().items()}
    for batch in take(made.train_batches(seed=0), 4):
        assert {name: (array.shape, array.dtype) for name, array in batch.items()} == spec
        for name, array in arrays.items():
            np.testing.assert_array_equal(
                batch[name], array[batch["example_id"]].astype(np.float32)
            )
        np.testing.assert_array_equal(batch["label"], batch["example_id"] % 3)


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
    assert (first["signal"] != arrays["signal"][first["example_id"]].astype(np.float32)).all()
    np.testing.assert_array_equal(first["signal"], again["signal"])
    (tested,) = list(made.test_batches(5, 1))
    np.testing.assert_array_equal(tested["signal"], arrays["signal"][:5].astype(np.float32))


def test_several_labels_stay_as_they_are(rng):
    labels = (rng.random((12, 4)) < 0.5).astype(int)
    _, made = make(rng, labels)
    assert made.fields["label"] == array_field.MultiHot(4, multi_label=True)
    (batch,) = take(made.train_batches(seed=0), 1)
    np.testing.assert_array_equal(batch["label"], labels[batch["example_id"]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": np.zeros(11, int)}, "Got 12 examples of 'signal' and 11 labels"),
        ({"targets": np.zeros(12)}, r"labels float64 \[12\]; expected integers"),
        ({"inputs": {"signal": np.zeros((12, 7, 3))}}, "Got 'tone' as nothing to train on"),
        ({"inputs": {}}, "Got no inputs"),
        ({"inputs": {"tone": np.zeros((12, 5), object)}}, r"inputs\['tone'\] as object; expected"),
        ({"inputs": {"tone": [[1, 2], [3]]}}, r"inputs\['tone'\] that make no array"),
        ({"inputs": {"tone": np.ma.masked_less(np.eye(12), 1)}}, "masked values.*Fill them in"),
        (
            {"inputs": {"example_id": np.zeros((12, 5))}},
            "input 'example_id', which each batch has already",
        ),
        ({"class_names": ["a", "b"]}, "Got 2 class names for 3 classes"),
        ({"class_names": "abc"}, "class_names='abc'; expected a list"),
        ({"class_names": ["a", "b", "a"]}, r"class names \['a'\] twice"),
        ({"augment": {"sound": abs}}, r"augment for \['sound'\]; expected some of \['signal'"),
    ],
)
def test_arrays_that_do_not_fit_are_explained(rng, changes, message):
    with pytest.raises(ValueError, match=message):
        make(rng, **changes)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int64", "uint16", "float16", "float64"])
def test_numbers_of_any_type_are_those_as_float32(rng, dtype):
    tone = rng.integers(0, 100, (12, 5)).astype(dtype)
    made = data.from_arrays({"tone": tone}, [0, 1] * 6, {"tone": tone}, [0, 1] * 6, batch_size=6)
    (batch,) = take(made.train_batches(seed=0), 1)
    assert batch["tone"].dtype == np.float32
    np.testing.assert_array_equal(batch["tone"], tone[batch["example_id"]].astype(np.float32))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.arange(12)[:, None] % 3, np.arange(12) % 3),
        (np.arange(12)[:, None].astype(np.uint8) % 3, np.arange(12) % 3),
        (np.arange(12) % 2 == 1, np.arange(12) % 2),
    ],
    ids=["column", "column of bytes", "booleans"],
)
def test_classes_may_be_a_column_or_booleans(rng, labels, expected):
    _, made = make(rng, labels)
    (batch,) = take(made.train_batches(seed=0), 1)
    assert made.fields["label"] == label.Label(int(expected.max()) + 1, multi_label=False)
    np.testing.assert_array_equal(batch["label"], expected[batch["example_id"]])


CLASSES = np.arange(12) % 3
SEVERAL = np.eye(3)[CLASSES]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (CLASSES - 1, r"no classes, in 4 of 12 examples \(0: -1, 3: -1, 6: -1, 9: -1\)"),
        (CLASSES + 10**9, "no classes, in 12 of 12 examples"),
        (CLASSES + 0.5, r"labels float64 \[12\]; expected integers"),
        (CLASSES[:, None] * 1.0, r"labels float64 \[12, 1\]; expected integers"),
        (np.array(["cat", "dog"] * 6), "labels <U3.*return_inverse=True"),
        (SEVERAL * 2, r"labels \[12, 3\] that are not only zeros and ones, in 12 of 12"),
        (SEVERAL * 0.9, "not only zeros and ones"),
        (np.where(SEVERAL, SEVERAL, np.nan), "not only zeros and ones"),
        (SEVERAL[..., None], r"labels float64 \[12, 3, 1\]"),
    ],
)
@pytest.mark.parametrize("argument", ["targets", "test_targets"])
def test_labels_that_are_no_classes_are_refused(rng, labels, message, argument):
    wrong = {argument: labels}
    if argument == "test_targets":
        wrong["test_inputs"] = {"signal": np.ones((12, 7, 3)), "tone": np.ones((12, 5))}
    with pytest.raises(ValueError, match=message):
        make(rng, **wrong)


def test_more_names_than_classes_that_occur_are_kept(rng):
    _, made = make(rng, class_names=np.array(["a", "b", "c", "d"]))
    assert made.class_names("label") == ("a", "b", "c", "d")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("argument", ["inputs", "test_inputs"])
def test_examples_that_are_not_finite_are_named(rng, value, argument):
    tone = np.ones((12, 5))
    tone[[4, 7], 2] = value
    split = {"signal": np.ones((12, 7, 3)), "tone": tone}
    with pytest.raises(ValueError, match=rf"{argument}\['tone'\], in 2 of 12 examples \(4, 7\)"):
        make(rng, **{argument: split, "test_targets": np.arange(12) % 3})


def test_a_mask_stays_a_mask_and_may_hide_what_is_not_finite(rng):
    signal, mask = rng.normal(size=(12, 7, 3)), rng.random((12, 7)) < 0.7
    signal[~mask] = np.nan
    split = {"signal": signal, "signal_mask": mask}
    made = data.from_arrays(split, CLASSES, split, CLASSES, batch_size=6)
    (batch,) = take(made.train_batches(seed=0), 1)
    np.testing.assert_array_equal(batch["signal_mask"], mask[batch["example_id"]])
    mask[5, 2], signal[5, 2] = True, np.nan
    with pytest.raises(ValueError, match=r"in 1 of 12 examples \(5\)"):
        data.from_arrays(split, CLASSES, split, CLASSES, batch_size=6)


class OfADevice:
    """As a tensor that numpy can't read."""

    def __array__(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": {"b": 1, "a": 0, "c": 2}}, "class_names={'b': 1.*expected a list"),
        ({"class_names": {"b", "a", "c"}}, "class_names={.*expected a list of names"),
        ({"class_names": 3}, "class_names=3; expected a list"),
        ({"class_names": np.array([["a"], ["b"], ["c"]])}, "class_names=array"),
        ({"class_names": ["a", None, ""]}, r"\[None, ''\] among the class names"),
        ({"class_names": [b"a", b"b", b"c"]}, "among the class names; expected texts"),
        ({"inputs": np.ones((12, 5))}, "inputs of type ndarray; expected an array by the name"),
        ({"inputs": {3: np.ones((12, 5))}}, r"inputs of type dict with keys \[3\]; expected"),
        ({"inputs": {"tone": OfADevice()}}, r"inputs\['tone'\] that make no array: can't convert"),
        ({"inputs": {"tone": np.ones((12, 0))}}, r"\[12, 0\], whose examples hold nothing"),
        ({"inputs": {"bad_records": np.ones(12)}}, "which each batch has already"),
        ({"augment": abs}, "augment of type builtin.*; expected a function by the name"),
        ({"augment": {"tone": 3}}, "augment of 'tone' of type int; expected a function of"),
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"batch_size": 2.0}, "batch_size is 2.0; expected a whole number"),
        ({"num_workers": -1}, "num_workers is -1; expected at least 0"),
        ({"num_workers": None}, "num_workers is None; expected"),
    ],
)
def test_what_would_be_taken_for_something_else_is_refused(rng, changes, message, monkeypatch):
    unchecked = inspect.unwrap(data.from_arrays)  # Users have no checks of types.
    monkeypatch.setattr(data, "from_arrays", unchecked)
    with pytest.raises(ValueError, match=message):
        make(rng, **changes)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((12, 7, 5), np.nan), "not only true and false, in 12 of 12"),
        (np.full((12, 7, 5), 255), "true where 'grid' is to be read"),
        (np.ones((12, 5, 7), bool), r"\[5, 7\] an example for 'grid' of \[7, 5, 3\]; expected"),
        (np.ones((12, 7, 5, 3), bool), r"one of \[\], \[1\], \[7, 5\], \[35\]"),
    ],
)
def test_a_mask_is_of_true_and_false_in_the_shape_of_the_grid(mask, message):
    split = {"grid": np.ones((12, 7, 5, 3)), "grid_mask": mask}
    with pytest.raises(ValueError, match=message):
        data.from_arrays(split, CLASSES, split, CLASSES, batch_size=6)


def test_one_number_an_example_may_have_a_mask():
    split = {"x": np.ones(12), "x_mask": np.ones(12)}
    made = data.from_arrays(split, CLASSES, split, CLASSES, batch_size=np.int64(6))
    assert made.zero_batch()["x_mask"].dtype == bool
    json.dumps(made.describe())


@pytest.mark.parametrize(
    ("labels", "test_labels", "names", "unseen"),
    [
        (CLASSES + 1, CLASSES + 1, None, "1 of the classes: 0. If"),
        (CLASSES * 7, CLASSES, None, "12 of the classes: 1, 2, 3, 4, 5, ...."),
        (CLASSES, CLASSES + 1, list("abcde"), "1 of the classes: 3."),
        (CLASSES, CLASSES, list("abcde"), ""),
    ],
)
def test_classes_without_a_training_example_are_told(labels, test_labels, names, unseen, caplog):
    split = {"x": np.ones((12, 5))}
    data.from_arrays(split, labels, split, test_labels, batch_size=6, class_names=names)
    assert unseen in caplog.text
    assert bool(caplog.records) == bool(unseen)


def make_named(targets, test_targets=None, **changes):
    make = inspect.unwrap(data.from_arrays)  # Users have no checks of types.
    split = {"tone": np.ones((12, 5))}
    test_targets = targets if test_targets is None else test_targets
    return make(split, targets, split, test_targets, batch_size=6, **changes)


def test_targets_with_names_are_labels_or_numbers_by_their_types(rng):
    weight, place = rng.normal(size=12), rng.normal(size=(12, 2)).astype(np.float16)
    targets = {"species": CLASSES, "tags": SEVERAL.astype(bool), "weight": weight, "place": place}
    made = make_named(targets, class_names={"species": ["ant", "bee", "cat"]})
    assert made.labels == {
        "species": label.Label(3, multi_label=False),
        "tags": array_field.MultiHot(3, multi_label=True),
    }
    assert (made.fields["weight"], made.fields["place"]) == (number.Number(1), number.Number(2))
    assert made.class_names("species") == ("ant", "bee", "cat")
    assert made.class_names("tags") == ("0", "1", "2")
    assert made.class_names("weight") == ()
    (batch,) = take(made.train_batches(seed=0), 1)
    shown = batch["example_id"]
    np.testing.assert_array_equal(batch["species"], CLASSES[shown])
    np.testing.assert_array_equal(batch["tags"], SEVERAL[shown])
    np.testing.assert_array_equal(batch["weight"], weight[shown, None].astype(np.float32))
    np.testing.assert_array_equal(batch["place"], place[shown].astype(np.float32))
    assert "label" not in batch


def test_the_values_of_numbers_tell_other_data(rng):
    weight = rng.normal(size=12)
    first, again, other = (
        make_named({"weight": values}).fingerprint() for values in (weight, weight, weight[::-1])
    )
    assert first == again
    assert first["train"] != other["train"]
    assert first["classes"] == []


@pytest.mark.parametrize(
    ("targets", "changes", "message"),
    [
        ({"y": np.full(12, np.nan)}, {}, r"in targets\['y'\], in 12 of 12 .*Leave out these"),
        ({"y": np.full(12, 1e300)}, {}, "more than float32 can hold"),
        ({"y": np.ones((12, 2, 2))}, {}, r"targets\['y'\] float64 \[12, 2, 2\]; expected floats"),
        ({"y": np.ones((0, 2))}, {}, "12 examples of 'tone' and 0 of 'y'"),
        ({"y": np.ones((12, 0))}, {}, r"float64 \[12, 0\]; expected floats"),
        ({"y": np.full(12, -1)}, {}, r"targets\['y'\] that are no classes.*array.astype.float"),
        (np.full(12, 0.5), {}, r"labels float64 \[12\]; .* to be predicted need a name"),
        ({"y": np.array(["a"] * 12)}, {}, "np.unique"),
        ({"y": np.ones(11)}, {}, "12 examples of 'tone' and 11 of 'y'"),
        ({"y": np.ones(12), "z": np.ones(11)}, {}, "11 examples of 'z' and 12 of 'y'"),
        ({}, {}, "Got no targets"),
        ({1: np.ones(12)}, {}, "by the name of each target"),
        ({"tone": np.ones(12)}, {}, "an input 'tone', which each batch has already"),
        ({"tone_mask": np.ones(12)}, {}, "expected another name than .*tone_mask"),
        ({"mask": np.ones(12)}, {}, "a target 'mask', which each batch has already"),
        ({"y": np.ones(12)}, {"class_names": {"y": ["a"]}}, r"class_names for \['y'\]"),
        ({"y": np.arange(12)}, {"class_names": ["a"] * 12}, "a list by the name of each label"),
        (
            {"y": np.eye(12, 3)},
            {"test_targets": {"y": np.eye(12, 3, dtype=int)}},
            r"as numbers float32 \[E, 3\] to train on and float32 \[E, 3\] to test on",
        ),
        ({"y": np.ones(12)}, {"test_targets": {"x": np.ones(12)}}, "'x' as nothing to train on"),
    ],
)
def test_targets_with_names_that_can_not_be_used_are_explained(targets, changes, message):
    with pytest.raises(ValueError, match=message):
        make_named(targets, **changes)
