"""Optimizers and schedules have the values of their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import config
from perceiver_jax.training import optimizers

PARAMS = {
    "encoder/self_attend_0/query": {"w": np.full((3, 5), 0.5), "b": np.zeros(5)},
    "encoder/self_attend_0/input_norm": {"scale": np.ones(3), "offset": np.zeros(3)},
    "encoder": {"latents": np.full((7, 3), 0.2), "modality_bias": np.ones(3)},
    "image": {"position_embedding": np.full((11, 2), 0.1)},
}


def _build(**options):
    defaults = {
        "name": "lamb",
        "learning_rate": 0.1,
        "schedule": {"name": "constant"},
        "total_steps": 100,
    }
    return optimizers.build_optimizer(**(defaults | options))


def _lamb_by_hand(w, gradients, decay, clip, ratio=True):
    """LAMB's equations, in numpy; the gradients are clipped as if w were the only array."""
    m = v = np.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        g = g * min(1.0, clip / np.linalg.norm(g))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        u = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + decay * w
        w = w - 0.1 * (np.linalg.norm(w) / np.linalg.norm(u) if ratio else 1.0) * u
    return w


def _run(optimizer, params, gradients):
    opt_state, update = optimizer.init(params), jax.jit(optimizer.update)
    for grads in gradients:
        updates, opt_state = update(grads, opt_state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params


@pytest.mark.parametrize(("name", "ratio"), [("lamb", True), ("adam", False)])
def test_two_steps_equal_the_computation_by_hand(name, ratio):
    rng = np.random.RandomState(0)
    w, gradients = rng.normal(size=(3, 5)), rng.normal(size=(2, 3, 5))
    optimizer = _build(name=name, weight_decay=0.01, max_grad_norm=2.0, eps=1e-6)
    got = _run(optimizer, {"a": {"w": jnp.asarray(w, jnp.float32)}}, [
        {"a": {"w": jnp.asarray(g, jnp.float32)}} for g in gradients
    ])  # fmt: skip
    expected = _lamb_by_hand(w, gradients, 0.01, 2.0, ratio)
    np.testing.assert_allclose(got["a"]["w"], expected, rtol=1e-5, atol=1e-5)


def test_weight_decay_spares_biases_and_norms_only():
    optimizer = _build(weight_decay=0.5)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32) + 1.0, PARAMS)
    after = _run(optimizer, params, [jax.tree.map(jnp.zeros_like, params)])
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), params, after)
    assert moved == {
        "encoder/self_attend_0/query": {"w": True, "b": False},
        "encoder/self_attend_0/input_norm": {"scale": False, "offset": False},
        "encoder": {"latents": True, "modality_bias": False},
        "image": {"position_embedding": True},
    }


def test_epsilon_defaults_to_the_authors_value_of_each_optimizer():
    grads = {"a": {"w": jnp.full((2,), 1e-7)}}
    params = jax.tree.map(jnp.ones_like, grads)
    lamb_like = _run(_build(name="adam", eps=1e-6), params, [grads])
    adam = _run(_build(name="adam"), params, [grads])
    # m / (sqrt(v) + eps) of a gradient of 1e-7.
    np.testing.assert_allclose(1 - lamb_like["a"]["w"], 0.1 * 0.1 / 1.1, rtol=1e-4)
    np.testing.assert_allclose(1 - adam["a"]["w"], 0.1 * 1 / 1.1, rtol=1e-4)


SCHEDULES = {
    "constant": ({"name": "constant"}, {0: 1, 50: 1, 99: 1}),
    "step": (
        {"name": "step", "boundaries": (0.7, 0.85, 0.95), "factor": 0.1},
        {0: 1, 69: 1, 70: 0.1, 84: 0.1, 85: 0.01, 94: 0.01, 95: 0.001, 99: 0.001},
    ),
    "cosine": ({"name": "cosine"}, {0: 1, 25: 0.853553, 50: 0.5, 100: 0, 120: 0}),
    "constant_cosine": (
        {"name": "constant_cosine", "constant_fraction": 0.5},
        {0: 1, 50: 1, 75: 0.5, 100: 0},
    ),
    "warm-up": ({"name": "constant", "warmup_steps": 10}, {0: 0.1, 4: 0.5, 9: 1, 50: 1}),
    "warm-up then cosine": (
        {"name": "cosine", "warmup_steps": 20},
        {0: 0.05, 9: 0.5, 19: 1, 20: 1, 60: 0.5, 100: 0},
    ),
}


@pytest.mark.parametrize("case", SCHEDULES)
def test_schedule_has_the_defined_values(case):
    options, expected = SCHEDULES[case]
    schedule = optimizers.build_schedule(options, learning_rate=0.004, total_steps=100)
    got = [schedule(step) for step in expected]
    np.testing.assert_allclose(got, [0.004 * x for x in expected.values()], rtol=1e-5, atol=1e-9)


def test_boundaries_that_fall_on_the_same_step_of_a_short_run_all_count():
    options = {"name": "step", "boundaries": (0.7, 0.85), "factor": 0.1}  # 3.5 and 4.25 of 5.
    schedule = optimizers.build_schedule(options, learning_rate=0.004, total_steps=5)
    np.testing.assert_allclose([schedule(3), schedule(4)], [0.004, 0.00004], rtol=1e-6)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "sgd"}, r"^Unknown config.optimizer.name 'sgd'; .*\['adam', 'lamb'\]"),
        ({"schedule": {"name": "linear"}}, "^Unknown config.optimizer.schedule.name 'linear'.*con"),
        ({"schedule": {"name": "cosine", "x": 1}}, "^Unknown key config.optimizer.schedule.x"),
        ({"schedule": {"name": "step"}}, "^Missing key config.optimizer.schedule.boundaries"),
        (
            {"schedule": {"name": "cosine", "warmup_steps": -1}},
            "^config.optimizer.schedule.warmup_steps is -1; expected at least 0",
        ),
        (
            {"schedule": {"name": "cosine", "warmup_steps": "x"}},
            "^config.optimizer.schedule.warmup_steps is 'x'; expected a whole number",
        ),
        (
            {"schedule": {"name": "constant", "warmup_steps": 100}},
            "^config.optimizer.schedule.warmup_steps is 100; expected less than the 100 steps",
        ),
    ],
)
def test_what_is_refused_is_named_by_its_path(keys, message):
    keys = {"name": "adam", "learning_rate": 0.1, "schedule": {"name": "constant"}} | keys
    with pytest.raises(config.UserError, match=message):
        config.build(optimizers.build_optimizer, keys, "config.optimizer", total_steps=100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1.0}, "learning_rate is -1.0; expected at least 0"),
        ({"weight_decay": float("nan")}, "weight_decay is nan"),
        ({"schedule": {"name": "step", "boundaries": (70.0, 85.0), "factor": 1.0}}, "fractions"),
        ({"schedule": {"name": "constant_cosine", "constant_fraction": 1.0}}, "less than 1"),
    ],
)
def test_numbers_out_of_range_are_errors_that_say_the_range(options, message):
    with pytest.raises(ValueError, match=message):
        _build(**options)


def test_each_layer_learns_more_slowly_than_the_next_one():
    distance = {"a/w": 3, "b/w": 2, "c/w": 0}
    params = {path[0]: {"w": jnp.ones(2)} for path in distance}
    grads = jax.tree.map(jnp.ones_like, params)
    optimizer = _build(name="adam", depth_decay=0.5, distance=distance.__getitem__)
    after = _run(optimizer, params, [grads])
    moved = [1 - float(after[x]["w"][0]) for x in "abc"]
    np.testing.assert_allclose(moved, [0.1 / 8, 0.1 / 4, 0.1], rtol=1e-5)


def test_a_layer_s_factor_leaves_the_state_of_the_optimizer_as_it_is():
    params = jax.tree.map(jnp.asarray, PARAMS)
    plain = jax.eval_shape(_build().init, params)
    scaled = jax.eval_shape(_build(depth_decay=0.5, distance=len).init, params)
    assert jax.tree.structure(plain) == jax.tree.structure(scaled)


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (("encoders/*",), "optimizer.frozen has the pattern 'encoders/.*', which.* mean 'encoder/"),
        (("image",), "mean 'image/"),
        (("encoder/*", "image/*"), "optimizer.frozen is .*, which matches all parameters"),
    ],
)
def test_patterns_that_freeze_nothing_or_everything_are_refused(frozen, message):
    with pytest.raises(config.UserError, match=message):
        _build(frozen=frozen).split(PARAMS)


def test_what_is_frozen_is_matched_by_its_path():
    trained, frozen = _build(frozen=("encoder/*/b", "*_embedding")).split(PARAMS)
    assert {module: set(leaves) for module, leaves in frozen.items()} == {
        "encoder/self_attend_0/query": {"b"},
        "image": {"position_embedding"},
    }
    assert "b" not in trained["encoder/self_attend_0/query"] and "image" not in trained
    assert optimizers.merge(trained, frozen) == PARAMS
