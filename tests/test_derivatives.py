"""Derivatives of a model, of every mode and order, against finite differences in float64."""

import functools

import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver_jax
from perceiver_jax import kernels

B, M, C, N, P, V = 3, 11, 3, 5, 7, 13
STEP = 1e-5
MEAN_POOL = dict(kind="mean_pool", size=4)
QUERY = dict(kind="query", size=4, query_channels=8)
FORMS = {  # Layers of each kind, the encoder's form, and what reads its latents.
    "plain": (1, dict(streaming=False, scan=False), QUERY),
    "streaming": (1, dict(chunk_size=4), MEAN_POOL),  # Of 11 inputs, so the last chunks overlap.
    "scan": (3, dict(chunk_size=4), QUERY),  # Two of the three.
    "remat": (1, dict(chunk_size=4, remat=True, num_cross_attend_heads=4), MEAN_POOL),
}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def make_function(form):
    """Logits as a function of all parameters and the inputs; a point, and a direction from it."""
    num_layers, encoder, output = FORMS[form]
    layers = perceiver_jax.make_layers(num_layers, num_layers)
    small = dict(num_latents=2, latent_channels=8, layers=layers, num_self_attends=1)
    encoding = dict(kind="fourier", num_bands=2)
    model = perceiver_jax.build_model(
        dict(
            inputs=dict(x=dict(kind="array", position_encoding=encoding)),
            encoder=small | encoder,
            outputs=dict(y=output),
            dtype="float64",
        )
    )
    rng = np.random.default_rng(0)
    x, d_x = rng.normal(size=(2, B, M, C))
    mask = np.arange(M)[None] < np.array([[M], [7], [0]])
    shapes = jax.eval_shape(model.init, jax.random.key(0), dict(x=x))
    params, unravel = flatten_util.ravel_pytree(
        jax.tree.map(lambda leaf: rng.normal(0, 0.4, leaf.shape), shapes)
    )

    def function(params, x):
        return model.apply(unravel(params), None, dict(x=x, x_mask=mask))["y"]

    return function, (params, x), (rng.normal(0, 0.1, size=params.shape), d_x)


def finite_difference(function, point, direction):
    ahead, behind = (
        function(*(p + sign * STEP * d for p, d in zip(point, direction, strict=True)))
        for sign in (1, -1)
    )
    return jax.tree.map(lambda a, b: (a - b) / (2 * STEP), ahead, behind)


def assert_close(got, expected, rtol=1e-6):
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(got, expected, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize("form", FORMS)
def test_forward_mode_equals_finite_differences(form):
    function, point, direction = make_function(form)
    got = jax.jit(lambda *x: jax.jvp(function, *x)[1])(point, direction)
    assert_close(got, finite_difference(jax.jit(function), point, direction))


def test_jacobians_of_both_modes_and_linearize_agree():
    function, (params, x), (_, d_x) = make_function("streaming")
    of_inputs = functools.partial(function, params)
    forward, reverse = (jax.jit(j(of_inputs))(x) for j in (jax.jacfwd, jax.jacrev))
    assert_close(forward, reverse, 1e-12)
    _, linear = jax.jit(lambda x: jax.linearize(of_inputs, x))(x)
    assert_close(linear(d_x), np.einsum("blxmc,xmc->bl", forward, d_x), 1e-12)


def test_second_derivatives_of_every_order_of_modes_equal_finite_differences():
    function, (params, x), (d_params, _) = make_function("streaming")

    def loss(params):
        return jnp.sin(function(params, x)).sum()

    def derivative(params):
        return jax.jvp(loss, (params,), (d_params,))[1]

    gradient = jax.jit(jax.grad(loss))
    forward_over_reverse, reverse_over_forward, reverse_over_reverse = jax.jit(
        lambda params: (
            jax.jvp(jax.grad(loss), (params,), (d_params,))[1],
            jax.grad(derivative)(params),
            jax.grad(lambda params: jnp.vdot(jax.grad(loss)(params), d_params))(params),
        )
    )(params)
    assert_close(forward_over_reverse, finite_difference(gradient, (params,), (d_params,)))
    assert_close(reverse_over_forward, forward_over_reverse, 1e-12)
    assert_close(reverse_over_reverse, forward_over_reverse, 1e-12)


def test_a_hessian_is_symmetric_and_that_of_finite_differences():
    function, (params, x), _ = make_function("streaming")
    row = np.zeros_like(x)
    row[0, 5] = 1

    def loss(of_one):  # Of one input's channels.
        return jnp.sin(function(params, x + row * of_one[None, None])).sum()

    hessian = jax.jit(jax.hessian(loss))(np.zeros(C))
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-12)
    gradient = jax.jit(jax.grad(loss))
    expected = [finite_difference(gradient, (np.zeros(C),), (d,)) for d in np.eye(C)]
    assert_close(hessian, np.stack(expected))


@pytest.mark.parametrize("scaled", [False, True])
def test_streaming_attention_has_derivatives_of_every_order_of_modes(scaled):
    rng = np.random.default_rng(0)
    query, key, value = (rng.normal(size=(B, n, 1, p)) for n, p in ((N, P), (M, P), (M, V)))
    scale = rng.normal(1, 0.3, size=(B, M)) if scaled else None
    args = jax.tree.map(jnp.asarray, (query, key, scale if scaled else value))
    direction = jax.tree.map(lambda x: rng.normal(size=x.shape), args)
    mask = np.arange(M)[None] < np.array([[M], [7], [0]])

    def stream(chunk_size, query, key, other):
        value, scale = (None, other) if scaled else (other, None)
        return kernels.attend(query, key, value, jnp.asarray(mask), chunk_size, scale)

    function = functools.partial(stream, 4)

    def tangent(*args):
        return jax.jvp(function, args, direction)[1]

    def gradient_of(function):
        return lambda *args: jax.grad(lambda args: jnp.sin(function(*args)).sum())(args)

    @jax.jit
    def derivatives(args):
        forward_over_reverse = jax.jvp(gradient_of(function), args, direction)[1]
        return tangent(*args), forward_over_reverse, gradient_of(tangent)(*args)

    first, forward_over_reverse, reverse_over_forward = derivatives(args)
    assert_close(first, finite_difference(jax.jit(function), args, direction))
    expected = finite_difference(jax.jit(gradient_of(function)), args, direction)
    jax.tree.map(assert_close, forward_over_reverse, expected)
    change = finite_difference(lambda *args: jnp.sin(tangent(*args)).sum(), args, direction)
    inner = jax.tree.map(jnp.vdot, reverse_over_forward, direction)
    assert_close(sum(inner), change)
