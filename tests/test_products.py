import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import products

B, N, C, P = 2, 5, 7, 11


def test_a_product_has_the_gradients_of_one():
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((B, N, C)), rng.standard_normal((C, P))
    cotangent = rng.standard_normal((B, N, P))
    out, vjp = jax.vjp(products.product, *(jnp.asarray(a, jnp.float32) for a in (x, weights)))
    d_x, d_weights = vjp(jnp.asarray(cotangent, jnp.float32))
    np.testing.assert_allclose(out, x @ weights, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(d_x, cotangent @ weights.T, rtol=1e-4, atol=1e-5)
    expected = sum(x[b].T @ cotangent[b] for b in range(B))
    np.testing.assert_allclose(d_weights, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_have_the_dtype_of_what_they_are_of(dtype):
    x, weights = jnp.ones((B, N, C), dtype), jnp.ones((C, P), dtype)
    out, vjp = jax.vjp(products.product, x, weights)
    assert out.dtype == jnp.float32  # On a CPU, where the tests run.
    assert [grad.dtype for grad in vjp(out)] == [dtype, dtype]


def test_a_bfloat16_product_is_handed_to_xla_with_a_float32_result():
    x, weights = jnp.ones((N, C), jnp.bfloat16), jnp.ones((C, P), jnp.bfloat16)
    text = jax.jit(products.product).lower(x, weights).as_text()
    assert "(tensor<5x7xbf16>, tensor<7x11xbf16>) -> tensor<5x11xf32>" in text
