"""Moving averages of batch norms move with the steps, and are the same on any devices."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import batch_norm, stems, tasks
from perceiver_jax.data.fields import label
from perceiver_jax.training import devices, optimizers, state, steps

CLASSES = 7
RATE = 0.05


def _forward(images):
    features = stems.Conv(4)(images).mean(axis=(1, 2))
    return hk.Linear(CLASSES, name="logits")(features)


PURE = hk.without_apply_rng(hk.transform_with_state(_forward))


def _apply(params, rng, batch, axis_name):
    del rng
    with batch_norm.training(axis_name):
        out, averages = PURE.apply(params, {}, batch["image"])
    return {"label": out}, averages


def _evaluate(params, rng, batch, is_training):
    del rng, is_training
    return {"label": PURE.apply(params, {}, batch["image"])[0]}


def _make_batch(size=8, seed=0):
    draw = np.random.default_rng(seed)
    return {
        "image": draw.normal(1, 2, (size, 7, 9, 3)).astype(np.float32),
        "label": draw.integers(CLASSES, size=size).astype(np.int32),
    }


TASK = tasks.build_task(
    {"kind": "classification", "target": "label", "loss": "softmax"},
    {"label": label.Label(CLASSES, multi_label=False)},
)


def _make(name="lamb", sharding=None, accumulate_steps=1, frozen=()):
    """The update and the state before it."""
    optimizer = optimizers.build_optimizer(
        name=name,
        learning_rate=RATE,
        schedule={"name": "constant"},
        total_steps=5,
        weight_decay=0.1,
        max_grad_norm=1.0,
        frozen=frozen,
    )
    params, _ = jax.jit(PURE.init)(jax.random.key(0), jnp.zeros((1, 7, 9, 3)))
    apply, axis_name = _apply, None
    if sharding is not None:
        apply, axis_name = sharding.with_whole_params(_apply), sharding.axis_name
    update = steps.make_update(
        apply,
        TASK,
        optimizer,
        ema_decay=0.9,
        accumulate_steps=accumulate_steps,
        axis_name=axis_name,
    )
    return update, state.create_state(params, optimizer, ema_decay=0.9)


def _run(kind="pmap", num_devices=1, accumulate_steps=1):
    """State on the host, and metrics, after three steps."""
    sharding = devices.build_sharding(kind, jax.devices()[:num_devices])
    update, initial = _make("lamb", sharding, accumulate_steps)
    held = sharding.create_state(lambda: initial)
    batch, rng = sharding.place_batch(_make_batch()), sharding.place_key(jax.random.key(3))
    compiled = sharding.compile_update(update, held, batch, rng)
    for _ in range(3):
        held, metrics = compiled(held, batch, rng)
    return sharding.fetch_state(held), jax.device_get(metrics)


@pytest.fixture(scope="module")
def on_one_device():
    return _run()


def _assert_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), a, b)


def _averages(params):
    return {name: params["batch_norm"][name] for name in batch_norm.AVERAGES}


@pytest.mark.parametrize(("kind", "num_devices"), [("pmap", 4), ("fsdp", 4)])
def test_steps_on_several_devices_give_what_one_gives_averages_included(
    on_one_device, kind, num_devices
):
    found = _run(kind, num_devices)
    _assert_close(found, on_one_device)
    assert np.ptp(_averages(found[0].params)["mean"]) > 0.01


@pytest.mark.parametrize("name", ["lamb", "adam"])
def test_a_step_moves_averages_by_the_batch_alone(name):
    """Neither the optimizer nor weight decay touches them."""
    update, initial = _make(name)
    after, _ = jax.jit(update)(initial, _make_batch(), jax.random.key(0))
    features = jax.lax.conv_general_dilated(
        _make_batch()["image"],
        initial.params["conv"]["w"],
        (2, 2),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    expected = {
        "mean": 0.1 * features.mean((0, 1, 2)),
        "variance": 0.9 + 0.1 * features.var((0, 1, 2)),
    }
    _assert_close(_averages(after.params), expected)


def test_optimizers_leave_moving_averages_alone():
    params = {"norm": dict.fromkeys(("scale", *batch_norm.AVERAGES), jnp.array([2.0, 3.0]))}
    grads = {"norm": {"scale": jnp.ones(2)} | dict.fromkeys(batch_norm.AVERAGES, jnp.zeros(2))}
    for name in ("lamb", "adam"):
        optimizer = optimizers.build_optimizer(
            name=name,
            learning_rate=RATE,
            schedule={"name": "constant"},
            total_steps=5,
            weight_decay=0.1,
        )
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
        assert {k for k, x in updates["norm"].items() if x.any()} == {"scale"}


def test_averages_of_parts_of_a_batch_are_their_mean():
    update, initial = _make(accumulate_steps=2)
    state_, _ = jax.jit(update)(initial, _make_batch(), jax.random.key(0))
    halves = [{k: x[i::2] for k, x in _make_batch().items()} for i in range(2)]
    update, _ = _make()
    each = [
        _averages(jax.jit(update)(initial, half, jax.random.key(0))[0].params) for half in halves
    ]
    _assert_close(
        _averages(state_.params), jax.tree.map(lambda a, b: (a + b) / 2, each[0], each[1])
    )


@pytest.mark.parametrize("bad", [np.nan, 1e30])
def test_skipped_updates_move_no_averages(bad):
    """Of 1e30 the variance is infinite, but the loss is not: features are then divided by it."""
    update, initial = _make()
    batch = _make_batch()
    batch["image"][3] = bad
    after, metrics = jax.jit(update)(initial, batch, jax.random.key(0))
    assert metrics["skipped"] == 1
    jax.tree.map(np.testing.assert_array_equal, after, initial._replace(step=1))


def test_evaluation_is_of_the_moving_averages(on_one_device):
    state_, _ = on_one_device
    step = jax.jit(steps.make_eval_step(_evaluate, TASK))
    rows, alone = (
        step(state_.ema_params, {k: x[:n] for k, x in _make_batch().items()}) for n in (8, 1)
    )
    _assert_close(jax.tree.map(lambda x: x[:1], rows), alone)


def test_frozen_averages_stay_and_normalise():
    update, initial = _make(frozen=("batch_norm/*",))
    after, _ = jax.jit(update)(initial, _make_batch(), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, _averages(after.params), _averages(initial.params))
    image = jnp.asarray(_make_batch()["image"])
    outputs = []
    for frozen in ((), ("batch_norm/mean", "batch_norm/variance")):
        with batch_norm.training(None, frozen):
            outputs.append(PURE.apply(initial.params, {}, image)[0])
    evaluated = PURE.apply(initial.params, {}, image)[0]
    np.testing.assert_array_equal(outputs[1], evaluated)
    assert np.abs(outputs[0] - evaluated).max() > 0.01
