"""The classical baseline: learns what it can, from the same examples, and refuses what it can't."""

import numpy as np
import pytest

from perceiver_jax import classical, data
from perceiver_jax import config as config_lib


def of_arrays(inputs, labels, num_train, fields=None):
    split = [slice(num_train), slice(num_train, None)]
    (train, test), (labels, test_labels) = (
        [{name: x[part] for name, x in inputs.items()} for part in split],
        [labels[part] for part in split],
    )
    return data.from_arrays(train, labels, test, test_labels, batch_size=7, fields=fields)


def test_digits_are_recognised_as_well_as_scikit_learn_does():
    result = classical.fit(
        data.build_data(
            dataset="mnist5k",
            data_dir="",
            train_split="train[:25%]",
            test_split="test",
            batch_size=8,
            num_workers=0,
            fields={
                "image": {"kind": "image", "image_size": 28, "channels": 1, "crop": "none"},
                "label": {"kind": "label"},
            },
        )
    )
    assert result.num_train == 1_000
    assert 0.88 < result.metrics["top1"] < 0.96  # An SVM on all pixels of 1,000 digits has 0.91.
    assert abs(result.metrics["class_accuracy"] - result.metrics["top1"]) < 1e-9  # 100 of each.


def test_series_are_told_apart_by_their_spectrum_and_masked_values_do_not_matter():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=90)
    phase, time = rng.uniform(0, 6, (90, 1)), np.arange(48)
    waves = np.sin(phase + time * np.where(labels, 0.5, 0.9)[:, None])[..., None]
    there = rng.random((90, 48)) < 0.8
    waves[~there] = np.nan
    result = classical.fit(of_arrays({"x": waves, "x_mask": there}, labels, 60))
    assert result.metrics["top1"] > 0.9


def test_texts_are_told_apart_by_their_words():
    words = [["red", "rose"], ["blue", "sky"]]
    rng = np.random.default_rng(1)
    labels = rng.integers(2, size=60)
    texts = [" ".join(["the", *rng.choice(words[x], 2), "is"]) for x in labels]
    fields = {"text": {"kind": "text", "max_length": 31}}
    result = classical.fit(of_arrays({"text": texts}, labels, 40, fields))
    assert (result.name, result.metrics["top1"]) == ("TF-IDF and logistic regression", 1.0)


def test_several_labels_are_scored_by_average_precision():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(80, 3)).astype(np.float32)
    result = classical.fit(of_arrays({"x": x}, (x > 0).astype(np.float32), 60))
    assert result.metrics.keys() == {"mAP"} and result.metrics["mAP"] > 0.9


def test_a_class_with_one_example_needs_no_folds():
    x = np.array([[0.0], [1.0], [1.1], [0.1], [1.2]])
    assert classical.fit(of_arrays({"x": x}, np.array([0, 1, 1, 0, 1]), 3)).metrics["top1"] == 1.0


def test_numbers_have_no_such_baseline():
    made = data.from_arrays(
        {"x": np.ones((3, 2))},
        {"y": np.linspace(0, 1, 3)},
        {"x": np.ones((2, 2))},
        {"y": np.zeros(2)},
        batch_size=1,
    )
    with pytest.raises(config_lib.UserError, match="needs classes, which 'y' has not"):
        classical.fit(made, "y")


def test_the_verdict_says_who_wins_and_by_how_much():
    result = classical.Result("SVM", {"top1": 0.9}, 10, 1.0)
    assert "this model 0.9250, SVM 0.9000: 2.5 points better" in classical.compare(
        result, {"top1": 0.925}
    )
    assert "10.0 points worse" in classical.compare(result, {"top1": 0.8})
    assert classical.compare(result, {"top1": 0.9}).endswith("equal")
