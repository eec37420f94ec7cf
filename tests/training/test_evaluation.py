"""Evaluation counts every example once, whatever its windows and padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import tasks
from perceiver_jax.data.fields import label
from perceiver_jax.training import devices, evaluation


def _evaluate(batches, kind="pmap", num_classes=2, multi_label=False):
    """Evaluates a 'model' whose probabilities are in the batch."""
    sharding = devices.build_sharding(kind, jax.devices()[:2])
    keys = {"kind": "classification", "target": "label"}
    task = tasks.build_task(keys, {"label": label.Label(num_classes, multi_label)})

    def eval_step(params, batch):
        return {"scores": batch["p"] * params, "target": batch["label"], "loss": batch["p"][:, 0]}

    evaluate = evaluation.make_evaluate(eval_step, task, sharding)
    return evaluate(sharding.place_state(jnp.float32(1.0)), batches)


def _batch(rows, label):
    """Rows are (index, weight, probabilities); labels are by index."""
    index, weight, p = zip(*rows, strict=True)
    index = np.array(index, np.int32)
    return {
        "example_id": index,
        "mask": np.array(weight, bool),
        "p": np.array(p, np.float32),
        "label": np.array(label)[index],
    }


@pytest.mark.parametrize("kind", ["pmap", "fsdp"])
def test_probabilities_are_averaged_over_windows_in_any_batch(kind):
    first = _batch([(0, 1, (1.0, 0.0)), (1, 1, (0.25, 0.75))], [1, 1])
    second = _batch([(0, 1, (0.0, 1.0)), (0, 1, (0.5, 0.5))], [1, 1])
    result = _evaluate([first, second], kind)
    np.testing.assert_allclose(result.rows["scores"], [[0.5, 0.5], [0.25, 0.75]])
    assert result.num_windows == 4
    assert result.metrics["loss"] == pytest.approx((0.5 + 0.25) / 2)


def test_padding_does_not_count():
    real = [(0, 1, (0.1, 0.9)), (2, 1, (0.8, 0.2))]
    padding = [(0, 0, (1.0, 0.0)), (1, 0, (1.0, 0.0))]
    result = _evaluate([_batch(real + padding, [1, 1, 1])])
    np.testing.assert_allclose(result.rows["scores"], [[0.1, 0.9], [0.8, 0.2]])
    assert result.metrics["top1"] == 0.5


def test_labels_of_several_classes_are_kept_and_judged_by_map():
    label = np.array([[1.0, 0.0], [1.0, 1.0]], np.float32)
    rows = [(1, 1, (0.6, 0.7)), (0, 1, (0.9, 0.8))]
    result = _evaluate([_batch(rows, label)], multi_label=True)
    np.testing.assert_array_equal(result.rows["target"], label)
    assert result.metrics["mAP"] == pytest.approx((1.0 + 0.5) / 2)


def test_several_labels_are_judged_by_auc_and_d_prime_too():
    label = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.float32)
    rows = [(0, 1, (0.6, 0.7)), (1, 1, (0.3, 0.5)), (2, 1, (0.1, 0.8)), (0, 0, (0.0, 0.0))]
    result = _evaluate([_batch(rows, label)], multi_label=True)
    assert result.metrics["AUC"] == pytest.approx((0.5 + 0.5) / 2)
    assert result.metrics["d_prime"] == pytest.approx(0, abs=1e-6)
    one = _evaluate([_batch([(0, 1, (0.1, 0.9)), (0, 0, (0.1, 0.9))], [1])])
    assert "AUC" not in one.metrics


def test_metrics_come_with_the_number_of_examples_and_windows():
    rows = [(0, 1, (0.1, 0.9)), (0, 1, (0.1, 0.9)), (2, 1, (0.8, 0.2)), (1, 0, (0.0, 0.0))]
    assert _evaluate([_batch(rows, [1, 1, 1])]).counts == {"examples": 2, "windows": 3}


def test_top5_is_there_for_more_than_five_classes_only():
    two = _evaluate([_batch([(0, 1, (0.1, 0.9)), (0, 0, (0.1, 0.9))], [1])])
    rows = [(0, 1, np.arange(7.0)), (0, 0, np.arange(7.0))]
    seven = _evaluate([_batch(rows, [2])], num_classes=7)
    assert "top5" not in two.metrics
    assert seven.metrics["top5"] == 1.0


def test_examples_whose_loss_is_not_finite_are_named(caplog):
    rows = [(0, 1, (0.1, 0.9)), (7, 1, (np.nan, 0.1)), (2, 1, (0.8, 0.2)), (9, 1, (np.inf, 0.2))]
    result = _evaluate([_batch(rows, [1] * 10)])
    assert not np.isfinite(result.metrics["loss"])
    assert "loss of 2 of 4 examples is not finite" in caplog.text
    assert "numbers 7, 9 of the test split" in caplog.text


def test_no_example_at_all_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="no examples to evaluate; expected at least one"):
        _evaluate([])


def test_integers_stay_integers_and_floats_become_float64():
    rows = [(5, 1, (0.1, 0.9)), (5, 1, (0.1, 0.9)), (5, 1, (0.1, 0.9)), (3, 1, (0.8, 0.2))]
    result = _evaluate([_batch(rows, [0, 0, 0, 1, 0, 1])])
    assert result.rows["target"].dtype == np.int32
    assert result.rows["scores"].dtype == np.float64
    np.testing.assert_array_equal(result.rows["target"], [1, 1])
    np.testing.assert_array_equal(result.rows["example_id"], [3, 5])
