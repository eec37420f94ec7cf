"""Batch norm: what it computes in training and evaluation, on one device and on several."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import batch_norm

X = np.random.default_rng(0).normal(3, 2, (4, 5, 7, 3)).astype(np.float32)
PARAMS = {
    "norm": {
        "scale": np.array([1, 2, 3], np.float32),
        "offset": np.array([0, 1, -1], np.float32),
        "mean": np.array([0.5, 1.0, 2.0], np.float32),
        "variance": np.array([1.0, 4.0, 2.0], np.float32),
    }
}


def normalize(x, mask=None):
    return batch_norm.BatchNorm(name="norm")(jnp.asarray(x), mask)


PURE = hk.without_apply_rng(hk.transform_with_state(normalize))


def train(params, x, mask=None, axis_name=None):
    with batch_norm.training(axis_name):
        return PURE.apply(params, {}, x, mask)


def moments(x):
    return {"mean": x.mean((0, 1, 2)), "variance": x.var((0, 1, 2))}


def standardize(x, mean, variance):
    own = PARAMS["norm"]
    return (x - mean) / np.sqrt(variance + 1e-5) * own["scale"] + own["offset"]


def moved(batch):
    return {k: 0.9 * PARAMS["norm"][k] + 0.1 * v for k, v in batch.items()}


def assert_close(a, b, atol=2e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), a, b)


def test_averages_begin_as_those_of_standardised_channels():
    params, state = PURE.init(jax.random.key(0), jnp.asarray(X))
    assert not state
    expected = {"scale": [1] * 3, "offset": [0] * 3, "mean": [0] * 3, "variance": [1] * 3}
    assert {k: v.tolist() for k, v in params["norm"].items()} == expected


def test_moving_averages_normalise_in_evaluation_and_stay():
    out, state = jax.jit(PURE.apply)(PARAMS, {}, X)
    assert_close(out, standardize(X, PARAMS["norm"]["mean"], PARAMS["norm"]["variance"]))
    assert not state


def test_the_batch_normalises_in_training_and_moves_the_averages():
    out, state = jax.jit(train)(PARAMS, X)
    assert_close(out, standardize(X, **moments(X)))
    assert_close(state, {"norm": moved(moments(X))})


def test_batch_and_averages_are_those_of_haiku():
    def theirs(x):
        return hk.BatchNorm(True, True, 0.9, name="norm")(x, is_training=True)

    pure = hk.without_apply_rng(hk.transform_with_state(theirs))
    own = {k: PARAMS["norm"][k].reshape(1, 1, 1, 3) for k in ("scale", "offset")}
    _, state = pure.init(jax.random.key(0), X)
    out, state = jax.jit(pure.apply)({"norm": own}, state, X)
    assert_close(jax.jit(train)(PARAMS, X)[0], out)
    # Haiku's average of one batch is that batch, corrected for the start.
    assert_close(moved({"variance": state["norm/~/var_ema"]["average"].ravel()})["variance"],
                 jax.jit(train)(PARAMS, X)[1]["norm"]["variance"])  # fmt: skip


def test_averages_have_no_gradient():
    def total(params, function):
        return jnp.sum(jnp.square(function(params)[0] - X))

    for function in (lambda p: train(p, X), lambda p: PURE.apply(p, {}, X)):
        grads = jax.jit(jax.grad(lambda p, f=function: total(p, f)))(PARAMS)["norm"]
        assert {k for k, g in grads.items() if not g.any()} == {"mean", "variance"}


def test_examples_that_lack_the_input_do_not_count():
    mask = np.array([True, False, True, False])
    out, state = jax.jit(train)(PARAMS, X, mask)
    assert_close(out[mask], standardize(X[mask], **moments(X[mask])))
    assert_close(state, {"norm": moved(moments(X[mask]))})
    _, state = jax.jit(train)(PARAMS, X, np.zeros(4, bool))
    assert_close(state["norm"], {k: PARAMS["norm"][k] for k in batch_norm.AVERAGES}, atol=0)


@pytest.mark.parametrize("value", [543.21, 1234.567])
def test_channels_far_from_zero_have_their_own_variance(value):
    """The mean of squares less the square of the mean would be -0.1 and 0.8 here."""
    x = np.full((4, 5, 7, 3), value, np.float32)
    out, state = jax.jit(train)(PARAMS, x)
    assert np.isfinite(out).all()
    assert_close(state["norm"]["variance"], 0.9 * PARAMS["norm"]["variance"])


def test_averages_of_bfloat16_are_float32():
    x = jnp.asarray(X, jnp.bfloat16)
    out, state = jax.jit(train)(PARAMS, x)
    assert out.dtype == jnp.bfloat16 and state["norm"]["mean"].dtype == jnp.float32
    assert_close(state, {"norm": moved(moments(np.asarray(x, np.float32)))})


@pytest.mark.parametrize("mask", [None, np.array([True, False, True, True])])
def test_statistics_are_of_all_devices(mask):
    parts = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), (X, mask))
    mapped = jax.pmap(
        lambda x, m: train(PARAMS, x, m, "devices"), axis_name="devices", devices=jax.devices()[:2]
    )
    out, state = mapped(*parts)
    expected, expected_state = jax.jit(train)(PARAMS, X, mask)
    assert_close(out.reshape(X.shape), expected)
    for device in range(2):
        assert_close(jax.tree.map(lambda x, d=device: x[d], state), expected_state)


def test_training_ends_with_its_context_also_by_an_error():
    with pytest.raises(KeyError), batch_norm.training():
        raise KeyError
    assert not jax.eval_shape(lambda: PURE.apply(PARAMS, {}, jnp.asarray(X)))[1]
