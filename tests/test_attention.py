import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import attention, dropout, kernels

B, N, M, H, P, V = 2, 5, 23, 3, 7, 11


def arrays(seed=0, num_heads=H):
    keys = jax.random.split(jax.random.key(seed), 4)
    query, key, value, cotangent = (
        jax.random.normal(k, shape)
        for k, shape in zip(
            keys,
            [
                (B, N, num_heads, P),
                (B, M, num_heads, P),
                (B, M, num_heads, V),
                (B, N, num_heads, V),
            ],
            strict=True,
        )
    )
    mask = jnp.asarray(np.random.default_rng(seed).random((B, M)) < 0.6)
    return query, key, value, mask, cotangent


def outputs_and_gradients(function, query, key, value, cotangent):
    out, vjp = jax.vjp(function, query, key, value)
    return out, *vjp(cotangent)


def test_attend_equals_a_numpy_reference():
    query, key, value, mask, _ = arrays()
    got = attention.attend(query, key, value, mask)
    for b in range(B):
        kept = np.flatnonzero(mask[b])
        for h in range(H):
            scores = np.asarray(query)[b, :, h] @ np.asarray(key)[b, kept, h].T
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            expected = weights @ np.asarray(value)[b, kept, h]
            np.testing.assert_allclose(got[b, :, h], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 5, 8, 23])
def test_streaming_equals_plain_attention(chunk_size, masked):
    query, key, value, mask, cotangent = arrays()
    mask = mask if masked else None
    got = jax.jit(
        lambda *x: outputs_and_gradients(
            lambda q, k, v: kernels.attend(q, k, v, mask, chunk_size), *x
        )
    )(query, key, value, cotangent)
    expected = outputs_and_gradients(
        lambda q, k, v: attention.attend(q, k, v, mask), query, key, value, cotangent
    )
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_streaming_equals_plain_attention_in_float64():
    with jax.enable_x64(True):
        doubles = [jnp.asarray(x, jnp.float64) for x in arrays()[:3]]
        got, expected = kernels.attend(*doubles, None, 8), attention.attend(*doubles)
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, expected, rtol=1e-13)


def test_a_self_attend_with_many_scores_keeps_none_and_gives_the_same(monkeypatch):
    block = hk.without_apply_rng(
        hk.transform(lambda: attention.SelfAttention(H, name="block").parameters(12))
    )
    params = block.apply(block.init(jax.random.key(0)))
    latents = jax.random.normal(jax.random.key(2), (B, N, 12))
    monkeypatch.setattr(kernels, "MAX_SCORES", N * N * H - 1)

    def residuals_and_gradients(streaming):
        def loss(p):
            return jnp.sum(attention.self_attend(p, latents, num_heads=H, streaming=streaming) ** 2)

        kept = jax.tree.leaves(jax.eval_shape(lambda p: jax.vjp(loss, p)[1], params))
        return [x.shape for x in kept], jax.jit(jax.value_and_grad(loss))(params)

    kept, got = residuals_and_gradients(streaming=True)
    plain_kept, expected = residuals_and_gradients(streaming=False)
    assert (B, H, N, N) in plain_kept and (B, H, N, N) not in kept
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, expected)


def test_streaming_survives_scores_that_overflow_exp():
    query, key, value, _, _ = arrays()
    got = kernels.attend(1e3 * query, key, value, None, 8)
    np.testing.assert_allclose(got, attention.attend(1e3 * query, key, value), atol=1e-4)


@pytest.mark.parametrize("form", [attention.attend, lambda *x: kernels.attend(*x, 8)])
def test_a_fully_masked_example_gives_zeros_and_finite_gradients(form):
    query, key, value, _, cotangent = arrays()
    mask = jnp.asarray([[False] * M, [True] * M])
    out, *grads = outputs_and_gradients(
        lambda q, k, v: form(q, k, v, mask), query, key, value, cotangent
    )
    assert not out[0].any() and out[1].all()
    for grad in grads:
        assert jnp.isfinite(grad).all() and not grad[0].any() and grad[1].any()


def cross_attention(**keys):
    """Parameters of a block with random biases and norms, and its inputs."""
    block = hk.without_apply_rng(
        hk.transform(lambda: attention.CrossAttention(**keys, name="block").parameters(13, 17))
    )
    params = block.apply(block.init(jax.random.key(0)))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    latents = jax.random.normal(jax.random.key(2), (B, N, 13))
    inputs = jax.random.normal(jax.random.key(3), (B, M, 17))
    return jax.tree.unflatten(tree, leaves), latents, inputs


def test_key_bias_of_an_absorbed_cross_attend_has_no_gradient_and_others_have():
    params, latents, inputs = cross_attention()
    grads = jax.grad(lambda p: jnp.sum(attention.cross_attend(p, latents, inputs) ** 2))(params)
    assert not grads["key"]["b"].any()
    others = {f"{m}/{n}": g for m, leaves in grads.items() for n, g in leaves.items()}
    del others["key/b"]
    assert [name for name, g in others.items() if not g.any()] == []


@pytest.mark.parametrize("chunk_size", [5, M])
def test_absorbed_cross_attend_of_inputs_that_are_not_centred_equals_the_plain_one(chunk_size):
    params, latents, inputs = cross_attention()
    inputs = 2.0 + 3.0 * inputs

    def out_and_gradients(**keys):
        def loss(*x):
            return jnp.sum(attention.cross_attend(*x, arrays()[3], **keys) ** 2)

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(params, latents, inputs)

    got = out_and_gradients(chunk_size=chunk_size)
    expected = out_and_gradients(streaming=False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, expected)


def test_scale_is_for_keys_that_are_the_values_as_well():
    query, key, value, _, _ = arrays()
    with pytest.raises(ValueError, match="scale is given with values of their own"):
        kernels.attend(query, key, value, scale=jnp.ones((B, M)))


def test_key_bias_of_several_heads_has_no_influence_either():
    params, latents, inputs = cross_attention(num_heads=2, qk_channels=14, v_channels=14)
    changed = {**params, "key": {**params["key"], "b": params["key"]["b"] + 3.0}}
    outs = [attention.cross_attend(p, latents, inputs, num_heads=2) for p in (params, changed)]
    np.testing.assert_allclose(*outs, atol=1e-5)


def test_bfloat16_stays_close_to_float32():
    params, latents, inputs = cross_attention()
    mask = arrays()[3]
    expected = attention.cross_attend(params, latents, inputs, mask)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (params, latents, inputs))
    got = attention.cross_attend(*half, mask, chunk_size=5)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(jnp.float32), expected, atol=0.15)


def test_dropout_of_an_example_depends_on_its_own_key_alone():
    x = jnp.ones((3, 101))
    keys = jax.random.split(jax.random.key(0), 3)
    whole = dropout.dropout(x, 0.4, keys)
    np.testing.assert_array_equal(dropout.dropout(x[2:], 0.4, keys[2:]), whole[2:])
    assert (whole[0] != whole[1]).any()
    np.testing.assert_allclose(whole.mean(), 1.0, atol=0.15)


def test_heads_that_do_not_divide_the_channels_are_an_error():
    with pytest.raises(ValueError, match="3 attention heads don't divide 17 query and key"):
        cross_attention(num_heads=3)


def test_a_negative_chunk_size_is_an_error():
    query, key, value, _, _ = arrays()
    with pytest.raises(ValueError, match="Chunk size -1; expected 0"):
        kernels.attend(query, key, value, None, -1)
