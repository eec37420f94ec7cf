"""What the products and the streaming attention are lowered to, and their derivatives."""

import collections
import functools
import re

import jax
from jax import export
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import kernels

B, N, M, C, P, H, V = 2, 5, 13, 7, 11, 3, 17
ACCELERATORS = ("cuda", "tpu")
SCORES = "bnhp,bmhp->bhnm"


def arrays(dtype, *shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def lowered(function, args, *platforms):
    text = export.export(jax.jit(function), platforms=platforms)(*args).mlir_module()
    return re.sub(r" loc\(.*|^#loc.*", "", text, flags=re.MULTILINE)


def with_gradients(function):
    def both(*args):
        out, vjp = jax.vjp(function, *args[:-1])
        return out, vjp(args[-1])

    return both


def plain_linear(x, weights, bias):
    return x @ weights + bias[None, None]


def plain_einsum(a, b):
    return jnp.einsum(SCORES, a, b).astype(jnp.promote_types(a.dtype, jnp.float32))


FORMS = {
    "linear": (kernels.linear, plain_linear, [(B, N, C), (C, P), (P,), (B, N, P)]),
    "einsum": (
        functools.partial(kernels.einsum, SCORES),
        plain_einsum,
        [(B, N, H, P), (B, M, H, P), (B, H, N, M)],
    ),
}


def operations(text):
    """How often each operation is there with each type, but for the choice of a platform."""
    found = re.findall(r"stablehlo\.(\w+)\b.*?(: .*)?$", text, re.MULTILINE)
    return collections.Counter(x for x in found if x[0] not in ("case", "constant", "return"))


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("platform", ACCELERATORS)
def test_accelerators_get_the_plain_form_lowered_on_a_cpu(platform, dtype, name):
    form, plain, shapes = FORMS[name]
    args = arrays(dtype, *shapes)
    if name == "einsum":
        args[-1] = args[-1].astype(jnp.float32)
    got, expected = (operations(lowered(with_gradients(f), args, platform)) for f in (form, plain))
    assert got == expected
    assert sum(count for (operation, _), count in got.items() if operation == "dot_general") == 3


def test_a_cpu_gets_float32_sums_and_gradients_that_are_kept_apart():
    _, _, shapes = FORMS["linear"]
    text = lowered(with_gradients(kernels.linear), arrays(jnp.bfloat16, *shapes), "cpu")
    assert "(tensor<2x5x7xbf16>, tensor<7x11xbf16>) -> tensor<2x5x11xf32>" in text
    assert text.count("optimization_barrier") == 1


def test_linear_has_the_gradients_of_a_product():
    x, weights, bias, cotangent = arrays(jnp.float32, *FORMS["linear"][2])
    got = with_gradients(kernels.linear)(x, weights, bias, cotangent)
    expected = (
        x @ weights + bias[None, None],
        (
            cotangent @ weights.T,
            sum(x[b].T @ cotangent[b] for b in range(B)),
            cotangent.sum((0, 1)),
        ),
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_results_and_gradients_have_the_dtype_of_what_they_are_of(dtype):
    args = arrays(dtype, *FORMS["linear"][2])
    leaves = jax.tree.leaves(jax.eval_shape(with_gradients(kernels.linear), *args))
    assert [x.dtype for x in leaves] == [dtype] * 4


def test_einsum_of_bfloat16_gives_float32_and_gradients_of_bfloat16():
    args = arrays(jnp.bfloat16, *FORMS["einsum"][2])
    form = functools.partial(kernels.einsum, SCORES)
    out, vjp = jax.vjp(form, *args[:2])
    assert out.dtype == jnp.float32
    assert [x.dtype for x in vjp(out)] == [jnp.bfloat16] * 2
