"""Optical flow: end-point errors of the pixels whose flow is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import tasks
from perceiver_jax.data.fields import flow, label

FIELDS = {"flow": flow.Flow((5, 7)), "label": label.Label(2, multi_label=False)}
TASK = tasks.build_task({"kind": "flow", "target": "flow"}, FIELDS)


def make_arrays():
    rng = np.random.RandomState(0)
    target = rng.normal(size=(3, 5, 7, 2)).astype(np.float32) * 20
    guess = target + rng.normal(size=target.shape).astype(np.float32) * 3
    known = rng.uniform(size=(3, 5, 7)) < 0.6
    known[1] = False
    target[~known] = 0
    batch = {"flow": jnp.asarray(target), "flow_mask": jnp.asarray(known)}
    return {"flow": jnp.asarray(guess)}, batch


def test_loss_and_metrics_are_end_point_errors_of_known_pixels():
    outputs, batch = make_arrays()
    errors = np.linalg.norm(np.asarray(outputs["flow"]) - batch["flow"], axis=-1)
    known = np.asarray(batch["flow_mask"])
    losses, _ = TASK.loss(outputs, batch)
    expected = [errors[i][known[i]].mean() if known[i].any() else 0.0 for i in range(3)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    rows = {name: np.asarray(x, np.float64) for name, x in TASK.rows(outputs, batch).items()}
    got = TASK.metrics(rows)
    assert got["EPE"] == pytest.approx(errors[known].mean(), rel=1e-5)
    wrong = (errors > 3) & (errors > 0.05 * np.linalg.norm(batch["flow"], axis=-1))
    assert got["outliers"] == pytest.approx(wrong[known].mean())
    assert 0 < got["outliers"] < 1


def test_a_right_flow_has_a_finite_gradient():
    _, batch = make_arrays()

    def total(guess):
        return TASK.loss({"flow": guess}, batch)[0].sum()

    value, gradient = jax.value_and_grad(total)(jnp.asarray(batch["flow"]))
    assert value < 1e-5
    assert np.isfinite(gradient).all()


def test_flow_of_another_size_is_refused():
    _, batch = make_arrays()
    with pytest.raises(ValueError, match=r"'flow' is \[5, 8, 2\] an example; expected \[5, 7, 2\]"):
        TASK.loss({"flow": jnp.zeros((3, 5, 8, 2))}, batch)


def test_classes_are_no_flow():
    with pytest.raises(ValueError, match="config.task.target is 'label', which is no flow"):
        tasks.build_task({"kind": "flow", "target": "label"}, FIELDS)


def test_flows_are_drawn_where_nothing_is_known_too():
    outputs, batch = make_arrays()
    batch = batch | {"frames": np.zeros((3, 2, 5, 7, 3), np.uint8)}
    given = (jax.device_get(batch), jax.device_get(outputs))
    ((name, figure),) = TASK.render({}, {}, lambda count: given)
    assert (name, len(figure.axes)) == ("flow.png", 15)
