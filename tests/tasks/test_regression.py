"""Regression predicts in the target's own units, whatever the model's are."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from perceiver_jax import tasks
from perceiver_jax.data.fields import label, number

FIELDS = {"size": number.Number(3), "label": label.Label(2, multi_label=False)}
MEAN, STD = (5.0, -2.0, 0.5), (2.0, 10.0, 0.1)


def build(**keys):
    keys = {"kind": "regression", "target": "size", "mean": MEAN, "std": STD} | keys
    return tasks.build_task(keys, FIELDS)


def make_arrays(size=11):
    rng = np.random.RandomState(0)
    outputs = rng.normal(size=(size, 3)).astype(np.float32)
    target = (rng.normal(size=(size, 3)) * STD + MEAN).astype(np.float32)
    return {"size": jnp.asarray(outputs)}, {"size": jnp.asarray(target)}


@pytest.mark.parametrize("loss", ["squared", "absolute", "huber"])
def test_losses_are_those_of_standardised_targets(loss):
    outputs, batch = make_arrays()
    standardised = (np.asarray(batch["size"]) - MEAN) / STD
    error = np.abs(np.asarray(outputs["size"]) - standardised)
    expected = {
        "squared": error**2,
        "absolute": error,
        "huber": np.where(error < 1, error**2 / 2, error - 0.5),
    }[loss]
    got, _ = build(loss=loss).loss(outputs, batch)
    np.testing.assert_allclose(got, expected.mean(axis=1), rtol=1e-5)


def test_training_reports_and_rows_hold_the_target_s_own_units():
    outputs, batch = make_arrays()
    prediction = np.asarray(outputs["size"]) * STD + MEAN
    task = build()
    _, reported = task.loss(outputs, batch)
    expected = np.abs(prediction - batch["size"]).mean(axis=1)
    np.testing.assert_allclose(reported["MAE"], expected, rtol=1e-5)
    rows = task.rows(outputs, batch)
    np.testing.assert_allclose(rows["prediction"], prediction, rtol=1e-5)
    np.testing.assert_array_equal(rows["target"], batch["size"])
    np.testing.assert_array_equal(rows["loss"], task.loss(outputs, batch)[0])


def test_metrics_equal_those_of_scikit_learn():
    task = build()
    rows = {name: np.asarray(x, np.float64) for name, x in task.rows(*make_arrays()).items()}
    pair = rows["target"], rows["prediction"]
    got = task.metrics(rows)
    assert got["MSE"] == pytest.approx(sklearn.metrics.mean_squared_error(*pair))
    assert got["MAE"] == pytest.approx(sklearn.metrics.mean_absolute_error(*pair))
    assert got["R2"] == pytest.approx(sklearn.metrics.r2_score(*pair))
    assert got["loss"] == pytest.approx(rows["loss"].mean())


def test_r2_of_one_example_or_of_nan_is_nan():
    rows = {"prediction": np.ones((1, 3)), "target": np.zeros((1, 3)), "loss": np.ones(1)}
    assert np.isnan(build().metrics(rows)["R2"])
    rows = {name: np.repeat(x, 3, axis=0) for name, x in rows.items()}
    rows["prediction"][1, 2] = np.nan
    assert np.isnan(build().metrics(rows)["R2"])


@pytest.mark.parametrize(("loss", "main"), [("squared", "MSE"), ("huber", "MAE")])
def test_a_lower_error_is_better(loss, main):
    task = build(loss=loss)
    assert (task.main_metric, task.lower_is_better) == (main, True)


def test_what_is_rendered_names_the_worst_examples_and_each_number_s_errors():
    prediction = np.zeros((7, 3))
    prediction[4, 1], prediction[2, 0] = 30.0, -3.0
    target = np.tile(np.linspace(0, 1, 7)[:, None], (1, 3))
    rows = {"prediction": prediction, "target": target, "loss": np.zeros(7)}
    files = {}
    for name, content in build().render(rows | {"example_id": np.arange(10, 17)}, {}, None):
        files[name] = content
    assert list(files[""].columns[0].cells)[:2] == ["example 14", "example 12"]
    numbers = json.loads(files["per_number.json"])
    assert len(numbers) == 3
    expected = np.abs(prediction - target).mean(axis=0)
    np.testing.assert_allclose([x["MAE"] for x in numbers], expected)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"target": "label"}, "'label', which has classes"),
        ({"loss": "l2"}, "'l2'; expected one of"),
        ({"mean": (1.0, 2.0)}, "task.mean is .1.0, 2.0.; expected one number, or 3"),
        ({"mean": {"a": 1.0}}, "task.mean is {'a': 1.0}; expected a number or a list"),
        ({"mean": -1e19}, r"task.mean is -1e\+19; expected at least -1e\+18"),
        ({"std": 0.0}, "task.std is 0.0; expected at least 1e-18"),
        ({"std": 1e-30}, "task.std is 1e-30; expected at least 1e-18"),
        ({"std": (1.0, -1.0, 1.0)}, "task.std is .1.0, -1.0, 1.0.; expected at least 1e-18"),
    ],
)
def test_a_wrong_section_says_what_is_right(keys, message):
    with pytest.raises(ValueError, match=message):
        build(**keys)
