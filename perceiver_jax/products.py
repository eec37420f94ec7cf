"""Matrix products, written so that XLA finds its fast code for them on a CPU, too.

The numbers are those of `x @ weights`. What JAX 0.10.2 does on an AMD EPYC with AVX512-BF16:

- In the backward pass of a plain `x @ weights` XLA merges the sum of the residual gradients into a
  transposing copy for each weights' gradient: a third more time a step in small models.
- Products of bfloat16 use the processor's bfloat16 units, at twice float32's rate, only as rows
  times columns ([.., K] x [K, N], nothing transposed) with a float32 result. All others are
  computed in float32 after conversion.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float


@jax.custom_vjp
def product(x: Float[Array, "*B C"], weights: Float[Array, "C P"]) -> Float[Array, "*B P"]:
    """`x @ weights`; its dtype is `accumulator(x.dtype)` if there is one, else that of x."""
    return jnp.matmul(x, weights, preferred_element_type=accumulator(x.dtype))


def accumulator(dtype: DTypeLike) -> type | None:
    """The dtype that products of `dtype` should give; None: their own.

    It is float32 for bfloat16 on a CPU. Elsewhere products accumulate in float32 in any case, and
    to write them as float32 would only move more bytes.
    """
    return jnp.float32 if dtype == jnp.bfloat16 and jax.default_backend() == "cpu" else None


def _forward(x, weights):
    return product(x, weights), (x, weights)


def _backward(residuals, cotangent):
    x, weights = residuals
    cotangent = jax.lax.optimization_barrier(cotangent.astype(x.dtype))
    rows, row_cotangents = (a.reshape(-1, a.shape[-1]) for a in (x, cotangent))
    return cotangent @ weights.T, rows.T @ row_cotangents


product.defvjp(_forward, _backward)
