import jax
import jax.numpy as jnp

from perceiver_jax import flops


def test_a_product_counts_two_for_each_multiply_add():
    a, b = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((5, 3, 7), (5, 7, 11)))
    assert flops.count_flops(jnp.matmul, a, b) == 2 * 5 * 3 * 7 * 11


def test_a_scan_counts_once_a_step_also_inside_jit_and_checkpoint():
    step = jax.checkpoint(lambda x, _: (x @ x, None))
    function = jax.jit(lambda x: jax.lax.scan(step, x, None, length=13)[0])
    assert flops.count_flops(function, jnp.zeros((3, 3))) == 13 * 2 * 27
