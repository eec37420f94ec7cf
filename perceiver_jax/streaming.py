"""Attention that streams over the inputs: memory does not grow with their number.

A running maximum and sum of each query's scores replace the [N, M] matrix of weights, and the
backward pass computes each chunk of weights anew from its scores and their log-sum-exp, which is
all that the forward pass keeps.
"""

import functools

import jax
from jax import ad_checkpoint
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Scores held at once: 512 queries over 1,024 inputs are 2 MB in float32. On two CPU cores chunks of
# 512 to 7,168 inputs are equally fast (50,176 inputs of 261 channels, 0.46-0.52 s).
MAX_SCORES = 2**19
MASKED_SCORE = -1e30
ATTENDED = "attended"  # Name of what `jax.checkpoint` may keep, with the log-sum-exp.


def attend(
    query: Float[Array, "B N H P"],
    key: Float[Array, "B M H P"],
    value: Float[Array, "B M H V"],
    mask: Bool[Array, "B M"] | None = None,
    chunk_size: int = 0,
) -> Float[Array, "B N H V"]:
    """Equals `attention.attend`, outputs and gradients, with memory that is independent of M.

    Args:
      query: queries, already divided by √P.
      key: keys.
      value: values.
      mask: True where an input is real. A row that may attend to nothing gives zeros.
      chunk_size: inputs a chunk; 0 = automatic.

    Returns:
      The attended values.

    Raises:
      ValueError: for a negative chunk size.
    """
    chunk_size = choose_chunk_size(query.shape[1], key.shape[1], chunk_size)
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))  # [B, H, ., .]
    return jnp.swapaxes(_stream(query, key, value, mask, chunk_size), 1, 2)


def choose_chunk_size(num_queries: int, num_inputs: int, chunk_size: int = 0) -> int:
    """Inputs a chunk: `chunk_size`, or if that is 0 as many as `MAX_SCORES` allows; at most M."""
    if chunk_size < 0:
        raise ValueError(f"Chunk size {chunk_size}; expected 0 (automatic) or a positive number.")
    return min(chunk_size or max(MAX_SCORES // num_queries, 128), num_inputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _stream(query, key, value, mask, chunk_size):
    return _stream_forward(query, key, value, mask, chunk_size)[0]


def _stream_forward(query, key, value, mask, chunk_size):
    """Returns the attended values [B, H, N, V], and what the backward pass needs."""
    wide = jnp.promote_types(query.dtype, jnp.float32)
    rows = query.shape[:-1]

    def step(carry, start):
        highest, total, attended = carry  # [B, H, N], [B, H, N], [B, H, N, V]
        scores, keep, _, chunk_value = _chunk(query, key, value, mask, start, chunk_size)
        new_highest = jnp.maximum(highest, scores.max(axis=-1))
        weights = _where(keep, jnp.exp(scores - new_highest[..., None]), 0)
        shrink = jnp.exp(highest - new_highest)
        total = total * shrink + weights.sum(axis=-1)
        attended = attended * shrink[..., None] + _dot(
            "bhnm,bhmv->bhnv", weights.astype(value.dtype), chunk_value, wide
        )
        return (new_highest, total, attended), None

    carry = (
        jnp.full(rows, MASKED_SCORE, wide),
        jnp.zeros(rows, wide),
        jnp.zeros((*rows, value.shape[-1]), wide),
    )
    (highest, total, attended), _ = _scan(step, carry, key.shape[2], chunk_size)
    some = total > 0  # False for a row that may attend to nothing
    total = jnp.where(some, total, 1)
    attended = (attended / total[..., None]).astype(value.dtype)
    log_sum_exp = jnp.where(some, highest + jnp.log(total), 0)
    attended, log_sum_exp = (
        ad_checkpoint.checkpoint_name(x, ATTENDED) for x in (attended, log_sum_exp)
    )
    return attended, (query, key, value, mask, attended, log_sum_exp)


def _stream_backward(chunk_size, residuals, cotangent):
    query, key, value, mask, attended, log_sum_exp = residuals
    wide = jnp.promote_types(query.dtype, jnp.float32)
    inner = jnp.sum(cotangent.astype(wide) * attended.astype(wide), axis=-1)  # [B, H, N]

    def step(carry, start):
        d_query, d_key, d_value = carry
        scores, keep, chunk_key, chunk_value = _chunk(query, key, value, mask, start, chunk_size)
        weights = _where(keep, jnp.exp(scores - log_sum_exp[..., None]), 0)
        d_weights = _dot("bhnv,bhmv->bhnm", cotangent, chunk_value, wide)
        d_scores = (weights * (d_weights - inner[..., None])).astype(query.dtype)
        weights = weights.astype(value.dtype)
        d_query = d_query + _dot("bhnm,bhmp->bhnp", d_scores, chunk_key, wide)
        d_key = _add_at(d_key, start, _sum_over_queries(query, d_scores, wide))
        d_value = _add_at(d_value, start, _sum_over_queries(cotangent, weights, wide))
        return (d_query, d_key, d_value), None

    zeros = (jnp.zeros(query.shape, wide), jnp.zeros_like(key), jnp.zeros_like(value))
    (d_query, d_key, d_value), _ = _scan(step, zeros, key.shape[2], chunk_size)
    return d_query.astype(query.dtype), d_key, d_value, None


_stream.defvjp(_stream_forward, _stream_backward)


def _scan(step, carry, num_inputs, chunk_size):
    """Runs `step` at the start of each chunk; the last may overlap the one before."""
    if chunk_size == num_inputs:
        return step(carry, 0)
    return jax.lax.scan(step, carry, jnp.arange(0, num_inputs, chunk_size))


def _chunk(query, key, value, mask, start, chunk_size):
    """Scores [B, H, N, m] of the inputs from `start`, which of them count, keys and values."""
    num_inputs = key.shape[2]
    begin = jnp.minimum(start, num_inputs - chunk_size)  # the slice must not leave the array
    keep = None  # [B or 1, 1, 1, m]
    if num_inputs % chunk_size:
        keep = (begin + jnp.arange(chunk_size) >= start)[None, None, None]
    if mask is not None:
        real = jax.lax.dynamic_slice_in_dim(mask, begin, chunk_size, axis=1)[:, None, None]
        keep = real if keep is None else real & keep
    chunk_key = jax.lax.dynamic_slice_in_dim(key, begin, chunk_size, axis=2)
    chunk_value = jax.lax.dynamic_slice_in_dim(value, begin, chunk_size, axis=2)
    wide = jnp.promote_types(query.dtype, jnp.float32)
    scores = _dot("bhnp,bhmp->bhnm", query, chunk_key, wide)
    return _where(keep, scores, MASKED_SCORE), keep, chunk_key, chunk_value


def _where(keep, x, otherwise):
    return x if keep is None else jnp.where(keep, x, otherwise)


def _add_at(total, start, update):
    begin = jnp.minimum(start, total.shape[2] - update.shape[2])
    here = jax.lax.dynamic_slice_in_dim(total, begin, update.shape[2], axis=2)
    return jax.lax.dynamic_update_slice_in_dim(
        total, here + update.astype(total.dtype), begin, axis=2
    )


def _sum_over_queries(rows, weights, dtype):
    """Sums of rows [B, H, N, P] with weights [B, H, N, m], one [P] an input: [B, H, m, P].

    On a CPU this is 1.7 times as fast as the product in the order of its result, for which XLA
    would transpose the weights.
    """
    return jnp.swapaxes(_dot("bhnp,bhnm->bhpm", rows, weights, dtype), 2, 3)


def _dot(subscripts, a, b, dtype):
    return jnp.einsum(subscripts, a, b, preferred_element_type=dtype)
