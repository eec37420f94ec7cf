import jax
import jax.numpy as jnp

from perceiver_jax import flops, kernels


def test_a_product_counts_two_for_each_multiply_add():
    a, b = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((5, 3, 7), (5, 7, 11)))
    assert flops.count_flops(jnp.matmul, a, b) == 2 * 5 * 3 * 7 * 11


def test_a_scan_counts_once_a_step_also_inside_jit_and_checkpoint():
    step = jax.checkpoint(lambda x, _: (x @ x, None))
    function = jax.jit(lambda x: jax.lax.scan(step, x, None, length=13)[0])
    assert flops.count_flops(function, jnp.zeros((3, 3))) == 13 * 2 * 27


def test_gradients_that_nobody_asked_for_are_not_counted():
    query, inputs = jnp.ones((1, 5, 1, 7)), jnp.ones((1, 23, 1, 7))

    def loss(query, inputs):
        return kernels.attend(query, inputs, inputs, None, 8).sum()

    product = 2 * 5 * 8 * 7  # Of the queries and a chunk.
    count = flops.count_flops(jax.grad(loss), query, inputs)
    assert count == 3 * (2 + 3) * product  # Scores and output; scores, d_weights and d_query.
    both = flops.count_flops(jax.grad(loss, argnums=(0, 1)), query, inputs)
    assert both == count + 3 * 2 * product


def test_a_convolution_counts_as_the_products_that_it_is_and_its_gradients_as_many():
    def convolve(x, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=numbers)

    x, w = jnp.ones((5, 12, 14, 3)), jnp.ones((4, 4, 3, 11))
    products = 2 * (5 * 6 * 7) * (4 * 4 * 3) * 11
    assert flops.count_flops(convolve, x, w) == products
    for argument in (0, 1):
        gradient = jax.grad(lambda x, w: jnp.sum(jnp.square(convolve(x, w))), argument)
        assert flops.count_flops(gradient, x, w) == 2 * products
