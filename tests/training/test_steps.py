"""The update is the same function of its arguments wherever it runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax.training import state as state_lib
from perceiver_jax.training import steps


@pytest.fixture(scope="module")
def toy(make_toy):
    return make_toy()


@pytest.fixture(scope="module")
def toy_update(toy):
    return jax.jit(toy.update())


def _assert_close(a, b, rtol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6), a, b)


def test_randomness_differs_between_steps_and_between_examples(make_toy, toy_batch):
    seen = []

    def apply(params, rng, batch, axis_name):
        jax.debug.callback(seen.append, jax.vmap(jax.random.uniform)(rng))
        return {"label": jnp.zeros((8, 7)) + params["logits"]["b"][None]}, {}

    toy = make_toy()
    update = jax.jit(steps.make_update(apply, toy.task, toy.optimizer))
    state, _ = update(toy.state, toy_batch(8), jax.random.key(0))
    update(state, toy_batch(8), jax.random.key(0))
    jax.effects_barrier()
    assert len(np.unique(np.array(seen))) == 16


def test_examples_without_weight_have_no_influence(toy, toy_update, toy_batch):
    batch = toy_batch(20)
    batch["mask"][5:] = False
    expected = toy_update(toy.state, batch, jax.random.key(0))
    batch["points"][5:] = 13.0
    batch["label"][5:] = 0
    _assert_close(expected, toy_update(toy.state, batch, jax.random.key(0)), rtol=0)


def test_top1_of_several_labels_asks_for_one_with_the_largest_share(make_toy, toy_batch):
    def apply(params, rng, batch, axis_name):
        return {"label": jnp.eye(5, 7) + 0.0 * params["logits"]["b"][None]}, {}

    toy = make_toy(loss="sigmoid")
    update = jax.jit(steps.make_update(apply, toy.task, toy.optimizer))
    label = np.zeros((5, 7), np.float32)
    label[0, [0, 3]] = label[1, 2] = label[2, 2] = 1.0  # Right, wrong, right, and none.
    label[4, [4, 5]] = 0.4, 0.6  # Mixed, and wrong.
    _, metrics = update(toy.state, {"label": jnp.asarray(label)}, jax.random.key(0))
    assert metrics["top1"] == pytest.approx(0.4)


def test_metrics_are_the_unclipped_gradient_norm_and_the_learning_rate(toy, toy_update, toy_batch):
    steep = jax.tree.map(lambda x: 100 * x, toy.state.params)
    steep = toy.state._replace(params=steep)
    state, metrics = toy_update(steep, toy_batch(20), jax.random.key(0))
    assert metrics["grad_norm"] > 1.0  # Clipped to 1.
    np.testing.assert_allclose(metrics["learning_rate"], toy.optimizer.learning_rate(0))
    assert state.step == 1


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_update_that_is_not_finite_changes_nothing_but_the_step(toy, toy_update, toy_batch, bad):
    state, _ = toy_update(toy.state, toy_batch(20), jax.random.key(0))
    batch = toy_batch(20)
    batch["points"][3] = bad
    after, metrics = toy_update(state, batch, jax.random.key(0))
    _assert_close(after, state._replace(step=2), rtol=0)
    assert metrics["skipped"] == 1.0
    _, metrics = toy_update(after, toy_batch(20), jax.random.key(0))
    assert metrics["skipped"] == 0.0


def test_moving_average_forgets_the_start_faster_at_first(make_toy, toy_batch):
    toy, batch = make_toy(ema_decay=0.15), toy_batch(8)
    update, states = jax.jit(toy.update()), [toy.state]
    for _ in range(2):
        states.append(update(states[-1], batch, jax.random.key(0))[0])
    expected = states[0].params
    for state, decay in zip(states[1:], (1 / 10, 0.15), strict=True):  # (1 + t) / (10 + t), 0.15
        expected = jax.tree.map(lambda a, b, d=decay: d * a + (1 - d) * b, expected, state.params)
    _assert_close(states[-1].ema_params, expected)
    assert state_lib.evaluation_params(states[-1]) is states[-1].ema_params


def test_no_moving_average_is_kept_where_it_is_off(make_toy, toy_batch):
    toy = make_toy(ema_decay=0.0)
    state, _ = jax.eval_shape(toy.update(), toy.state, toy_batch(8), jax.random.key(0))
    assert state.ema_params is None
    assert state_lib.evaluation_params(state) is state.params


def test_accumulation_that_cannot_be_says_what_can(toy, toy_batch):
    with pytest.raises(ValueError, match="20 examples .* in 3 steps; .* batch_size to a multiple"):
        toy.update(accumulate_steps=3)(toy.state, toy_batch(20), jax.random.key(0))


def test_eight_examples_are_learnt_by_heart(make_toy, toy_batch):
    toy = make_toy(steps=200, ema_decay=0.0, name="adam", weight_decay=0.0)
    update, state, batch = jax.jit(toy.update()), toy.state, toy_batch(8)
    for _ in range(200):
        state, _ = update(state, batch, jax.random.key(0))
    rows = jax.jit(toy.eval_step())(state.params, batch)
    np.testing.assert_array_equal(rows["scores"].argmax(axis=-1), batch["label"])
    assert rows["loss"].mean() < 0.05


def test_what_is_frozen_stays_to_the_bit_and_has_no_state(make_toy, toy_batch):
    toy = make_toy(frozen=("hidden/*",), ema_decay=0.9)
    first = toy.state.params["hidden"]["w"] / 3.0  # Of which sums round.
    toy.state.params["hidden"]["w"] = first
    state = toy.state._replace(ema_params=jax.tree.map(jnp.copy, toy.state.params))
    update = jax.jit(toy.update())
    for _ in range(3):
        state, _ = update(state, toy_batch(8), jax.random.key(0))
    for params in (state.params, state.ema_params):
        np.testing.assert_array_equal(params["hidden"]["w"], first)
        assert (params["logits"]["w"] != toy.state.params["logits"]["w"]).all()
    moments = [x.shape for x in jax.tree.leaves(state.opt_state)]
    assert moments.count((12, 7)) == 2 and (5, 12) not in moments


def test_the_norm_of_the_gradient_is_that_of_what_is_trained(make_toy, toy, toy_batch):
    def norm(part):
        some = make_toy(frozen=part)
        return jax.jit(some.update())(some.state, toy_batch(8), jax.random.key(0))[1]["grad_norm"]

    both = jax.jit(toy.update())(toy.state, toy_batch(8), jax.random.key(0))[1]["grad_norm"]
    np.testing.assert_allclose(np.hypot(norm(("hidden/*",)), norm(("logits/*",))), both, rtol=1e-5)


def test_the_backward_pass_through_what_is_frozen_is_not_computed(make_toy, toy_batch):
    def products(**options):
        toy = make_toy(**options)
        text = jax.jit(toy.update()).lower(toy.state, toy_batch(8), jax.random.key(0))
        return text.as_text().count("dot_general")

    assert products(frozen=("hidden/*",)) == products() - 2  # By weights, and by activations.
