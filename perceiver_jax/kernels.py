"""What most of a step's time goes into: matrix products, and attention that streams.

`linear` and `einsum` are plain products, except on CPUs, where they are written as XLA wants them.
Which form a program has is decided when it is lowered for a platform, not when it is traced: a
program for a GPU may well be made on a machine that has none.

`attend` streams over the inputs, so that memory does not grow with their number. A running maximum
and sum of each query's scores replace the [N, M] matrix of weights. The backward pass computes each
chunk of weights anew from its scores and their log-sum-exp, which is all that is kept.

Their derivatives have a tangent and a backward pass of their own; see `derivatives`.
"""

import functools

import jax
from jax import ad_checkpoint
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from perceiver_jax import derivatives

# Scores held at once: 512 queries over 1,024 inputs are 2 MB in float32. On two CPU cores chunks of
# 512 to 7,168 inputs are equally fast (50,176 inputs of 261 channels, 0.46-0.52 s).
MAX_SCORES = 2**19
MASKED_SCORE = -1e30
ATTENDED = "attended"  # Name of what `jax.checkpoint` may keep, with the log-sum-exp.


def linear(
    x: Float[Array, "*B C"], weights: Float[Array, "C P"], bias: Float[Array, " P"]
) -> Float[Array, "*B P"]:
    """`x @ weights + bias`."""
    on_cpu = _affine_summed_wide if x.dtype == jnp.bfloat16 else _affine
    return _by_platform(on_cpu, _affine, _affine_backward_on_cpu)(x, weights, bias)


def einsum(subscripts: str, a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """`jnp.einsum` of two arrays, with a result of float32 at least.

    Only on CPUs is it written by the product itself. Elsewhere products are summed up in float32 in
    any case, and to write them as float32 would only move more bytes.
    """
    if a.dtype == jnp.bfloat16:
        return _einsum_of_bfloat16(subscripts)(a, b)
    product = jnp.einsum(subscripts, a, b)
    return product.astype(jnp.promote_types(product.dtype, jnp.float32))


def attend(
    query: Float[Array, "B N H P"],
    key: Float[Array, "B M H P"],
    value: Float[Array, "B M H V"] | None,
    mask: Bool[Array, "B M"] | None = None,
    chunk_size: int = 0,
    scale: Float[Array, "B M"] | None = None,
) -> Float[Array, "B N H V"]:
    """Equals `attention.attend`, outputs and gradients, with memory that is independent of M.

    Args:
      query: queries, already divided by √P.
      key: keys; finite, as the values are, under the mask as well.
      value: values; None if the keys, times `scale`, are the values as well.
      mask: True where an input is real. A row that may attend to nothing gives zeros.
      chunk_size: inputs a chunk; 0 = automatic.
      scale: a positive factor of each input, which keys are multiplied with chunk by chunk.

    Returns:
      The attended values.

    Raises:
      ValueError: for a negative chunk size, or a scale where values are given.
    """
    return attend_and_log_sum_exp(query, key, value, mask, chunk_size, scale)[0]


def attend_and_log_sum_exp(
    query: Float[Array, "B N H P"],
    key: Float[Array, "B M H P"],
    value: Float[Array, "B M H V"] | None,
    mask: Bool[Array, "B M"] | None = None,
    chunk_size: int = 0,
    scale: Float[Array, "B M"] | None = None,
) -> tuple[Float[Array, "B N H V"], Float[Array, "B H N"]]:
    """What `attend` returns, and the log-sum-exp of each row's scores: `MASKED_SCORE` of no input.

    Who attends to some inputs after others puts the results together by these.
    """
    if scale is not None and value is not None:
        raise ValueError("scale is given with values of their own; set value to None.")
    chunk_size = choose_chunk_size(query.shape[1], key.shape[1], chunk_size)
    query, key, value = jax.tree.map(lambda x: jnp.swapaxes(x, 1, 2), (query, key, value))
    scale = None if scale is None else scale[:, None]  # [B, 1, M]
    attended, log_sum_exp = _stream(query, key, value, mask, scale, chunk_size)
    return jnp.swapaxes(attended, 1, 2), log_sum_exp


def choose_chunk_size(num_queries: int, num_inputs: int, chunk_size: int = 0) -> int:
    """Inputs a chunk: `chunk_size`, or if that is 0 as many as `MAX_SCORES` allows; at most M."""
    if chunk_size < 0:
        raise ValueError(f"Chunk size {chunk_size}; expected 0 (automatic) or a positive number.")
    return min(chunk_size or max(MAX_SCORES // num_queries, 128), num_inputs)


@functools.partial(jax.custom_jvp, nondiff_argnums=(5,))
def _stream(query, key, value, mask, scale, chunk_size):
    """The attended values [B, H, N, V] and the log-sum-exp of scores [B, H, N].

    Arrays are [B, H, ., .] here.
    """
    wide = jnp.promote_types(query.dtype, jnp.float32)
    rows = query.shape[:-1]
    num_channels = (key if value is None else value).shape[-1]

    def step(carry, start):
        highest, total, attended = carry  # [B, H, N], [B, H, N], [B, H, N, V]
        scores, keep, _, chunk_value = _chunk(query, key, value, mask, scale, start, chunk_size)
        new_highest = jnp.maximum(highest, scores.max(axis=-1))
        weights = _where(keep, jnp.exp(scores - new_highest[..., None]), 0)
        shrink = jnp.exp(highest - new_highest)
        total = total * shrink + weights.sum(axis=-1)
        attended = attended * shrink[..., None] + _dot(
            "bhnm,bhmv->bhnv", weights.astype(chunk_value.dtype), chunk_value, wide
        )
        return (new_highest, total, attended), None

    carry = (
        jnp.full(rows, MASKED_SCORE, wide),
        jnp.zeros(rows, wide),
        jnp.zeros((*rows, num_channels), wide),
    )
    (highest, total, attended), _ = _scan(step, carry, key.shape[2], chunk_size)
    total = jnp.where(total > 0, total, 1)  # Zero of a row that may attend to nothing.
    attended = (attended / total[..., None]).astype(key.dtype)
    return attended, highest + jnp.log(total)


@functools.partial(_stream.defjvp, symbolic_zeros=True)
def _stream_jvp(chunk_size, primals, tangents):
    # Named here, not in `_stream`: a policy of `jax.checkpoint` must see the very arrays that the
    # backward pass reads, else the scan over all inputs is run again for them.
    out = tuple(ad_checkpoint.checkpoint_name(x, ATTENDED) for x in _stream(*primals, chunk_size))
    d_query, d_key, d_value, _, d_scale = tangents
    is_fixed = primals[2] is None and isinstance(d_key, jax.custom_derivatives.SymbolicZero)
    return out, derivatives.differential(
        functools.partial(_stream_tangent, chunk_size),
        functools.partial(_stream_backward, chunk_size, is_fixed),
        (*primals, *out),
        (d_query, d_key, d_value, d_scale),
        out,
    )


def _stream_tangent(chunk_size, residuals, tangents):
    """The tangents of weights w = exp(scores s - log-sum-exp) times values, o = Σ w v.

    d(log-sum-exp) = Σ w ds and do = Σ w ds v + Σ w dv - o Σ w ds, chunk by chunk.
    """
    query, key, value, mask, scale, attended, log_sum_exp = residuals
    wide = log_sum_exp.dtype

    def step(carry, start):
        d_attended, d_log_sum_exp = carry

        def chunk(query, key, value, scale):
            scores, keep, _, chunk_value = _chunk(query, key, value, mask, scale, start, chunk_size)
            return (scores, chunk_value), keep

        (scores, chunk_value), (d_scores, d_chunk_value), keep = derivatives.jvp(
            chunk, (query, key, value, scale), tangents, has_aux=True
        )
        weights = _where(keep, jnp.exp(scores - log_sum_exp[..., None]), 0)
        d_weights = weights * d_scores
        for a, b in ((d_weights, chunk_value), (weights, d_chunk_value)):
            d_attended = d_attended + _dot("bhnm,bhmv->bhnv", a.astype(b.dtype), b, wide)
        return (d_attended, d_log_sum_exp + d_weights.sum(axis=-1)), None

    zeros = jnp.zeros(attended.shape, wide), jnp.zeros_like(log_sum_exp)
    (d_attended, d_log_sum_exp), _ = _scan(step, zeros, key.shape[2], chunk_size)
    d_attended = d_attended - attended * d_log_sum_exp[..., None]
    return d_attended.astype(attended.dtype), d_log_sum_exp


def _stream_backward(chunk_size, is_fixed, residuals, cotangents):
    """The cotangents of queries, keys, values and scales; of keys that are fixed None."""
    query, key, value, mask, scale, attended, log_sum_exp = residuals
    cotangent, d_log_sum_exp = cotangents
    wide = jnp.promote_types(query.dtype, jnp.float32)
    inner = jnp.sum(cotangent.astype(wide) * attended.astype(wide), axis=-1)  # [B, H, N]
    inner = inner - d_log_sum_exp  # Zeros in first derivatives, which XLA leaves out.

    def step(carry, start):
        d_query, d_key, d_value, d_scale = carry
        scores, keep, chunk_key, chunk_value = _chunk(
            query, key, value, mask, scale, start, chunk_size
        )
        weights = _where(keep, jnp.exp(scores - log_sum_exp[..., None]), 0)
        d_weights = _dot("bhnv,bhmv->bhnm", cotangent, chunk_value, wide)
        d_scores = (weights * (d_weights - inner[..., None])).astype(query.dtype)
        d_query = d_query + _dot("bhnm,bhmp->bhnp", d_scores, chunk_key, wide)
        if is_fixed:
            # That of a factor f, of scores f q x and of values f x, needs no further product.
            if scale is not None:
                moved = (d_scores * scores + weights * d_weights).sum(axis=(1, 2))[:, None]
                d_scale = _add_at(d_scale, start, moved / _take(scale, start, chunk_size))
            return (d_query, d_key, d_value, d_scale), None
        d_chunk = _sum_over_queries(query, d_scores, wide)
        d_chunk_value = _sum_over_queries(cotangent, weights.astype(chunk_value.dtype), wide)
        if value is None:
            d_chunk = d_chunk + d_chunk_value
        else:
            d_value = _add_at(d_value, start, d_chunk_value)
        if scale is not None:
            products = d_chunk * _take(key, start, chunk_size).astype(wide)
            d_scale = _add_at(d_scale, start, products.sum(axis=(1, 3))[:, None])
            d_chunk = d_chunk * _take(scale, start, chunk_size)[..., None]
        d_key = _add_at(d_key, start, d_chunk)
        return (d_query, d_key, d_value, d_scale), None

    found = (None if is_fixed else key, value, scale)
    zeros = jnp.zeros(query.shape, wide), *jax.tree.map(jnp.zeros_like, found)
    (d_query, d_key, d_value, d_scale), _ = _scan(step, zeros, key.shape[2], chunk_size)
    return d_query.astype(query.dtype), d_key, d_value, d_scale


def _scan(step, carry, num_inputs, chunk_size):
    """Runs `step` at the start of each chunk; the last may overlap the one before."""
    if chunk_size == num_inputs:
        return step(carry, 0)
    return jax.lax.scan(step, carry, jnp.arange(0, num_inputs, chunk_size))


def _chunk(query, key, value, mask, scale, start, chunk_size):
    """Scores [B, H, N, m] of the inputs from `start`, which of them count, keys and values."""
    num_inputs = key.shape[2]
    keep = None  # [B or 1, 1, 1, m]
    if num_inputs % chunk_size:
        begin = jnp.minimum(start, num_inputs - chunk_size)
        keep = (begin + jnp.arange(chunk_size) >= start)[None, None, None]
    if mask is not None:
        real = _take(mask[:, None], start, chunk_size)[:, :, None]
        keep = real if keep is None else real & keep
    wide = jnp.promote_types(query.dtype, jnp.float32)
    chunk_key = _take(key, start, chunk_size)
    if scale is not None:
        factor = _take(scale, start, chunk_size)[..., None]
        chunk_key = (chunk_key.astype(wide) * factor).astype(key.dtype)
    chunk_value = chunk_key if value is None else _take(value, start, chunk_size)
    scores = _dot("bhnp,bhmp->bhnm", query, chunk_key, wide)
    return _where(keep, scores, MASKED_SCORE), keep, chunk_key, chunk_value


def _take(x, start, chunk_size):
    """The inputs from `start`, or the last ones: a slice must not leave the array."""
    begin = jnp.minimum(start, x.shape[2] - chunk_size)
    return jax.lax.dynamic_slice_in_dim(x, begin, chunk_size, axis=2)


def _where(keep, x, otherwise):
    return x if keep is None else jnp.where(keep, x, otherwise)


def _add_at(total, start, update):
    begin = jnp.minimum(start, total.shape[2] - update.shape[2])
    update = _take(total, start, update.shape[2]) + update.astype(total.dtype)
    return jax.lax.dynamic_update_slice_in_dim(total, update, begin, axis=2)


def _sum_over_queries(rows, weights, dtype):
    """Sums of rows [B, H, N, P] with weights [B, H, N, m], one [P] an input: [B, H, m, P].

    On a CPU this is 1.7 times as fast as the product in the order of its result, for which XLA
    would transpose the weights.
    """
    return jnp.swapaxes(_dot("bhnp,bhnm->bhpm", rows, weights, dtype), 2, 3)


def _dot(subscripts, a, b, dtype):
    return jnp.einsum(subscripts, a, b, preferred_element_type=dtype)


def _affine(x, weights, bias):
    return x @ weights + jnp.expand_dims(bias, tuple(range(x.ndim - 1)))


def _affine_summed_wide(x, weights, bias):
    """For bfloat16, of which the sum, the bias included, is rounded once.

    On a CPU with bfloat16 units (AVX512-BF16) XLA uses them, at twice float32's rate, only for rows
    times columns ([.., K] x [K, N], nothing transposed) whose result is float32. All other products
    are computed in float32 after conversion (JAX 0.10.2).
    """
    product = jnp.matmul(x, weights, preferred_element_type=jnp.float32)
    return (product + jnp.expand_dims(bias, tuple(range(x.ndim - 1)))).astype(x.dtype)


def _affine_backward_on_cpu(x, weights, bias, cotangent):
    """Written out, for XLA would merge sums of residual gradients into a transposing copy.

    It does so for the gradient of each `weights`, unless the barrier keeps the sum apart: a third
    more time a step in small models (JAX 0.10.2, AMD EPYC).
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    d_bias = cotangent.astype(wide).sum(axis=tuple(range(x.ndim - 1))).astype(bias.dtype)
    cotangent = jax.lax.optimization_barrier(cotangent)
    rows, row_cotangents = (a.reshape(-1, a.shape[-1]) for a in (x, cotangent))
    return cotangent @ weights.T, rows.T @ row_cotangents, d_bias


# Cached, as is `_by_platform`: of branches that are the same objects JAX remembers the traces.
@functools.cache
def _einsum_of_bfloat16(subscripts):
    plain = functools.partial(jnp.einsum, subscripts)
    return _by_platform(
        functools.partial(plain, preferred_element_type=jnp.float32),
        lambda a, b: plain(a, b).astype(jnp.float32),
    )


@functools.cache
def _by_platform(on_cpu, elsewhere, backward_on_cpu=None):
    """A differentiable function of arrays that has two forms of the same numbers.

    The choice lies inside of the custom derivative. Outside JAX would differentiate the choice, and
    what `jax.checkpoint` is to keep by name would be hidden in a branch of it.
    """
    backward = functools.partial(
        _choose, backward_on_cpu or _backward_of(on_cpu), _backward_of(elsewhere)
    )

    @jax.custom_jvp
    def function(*primals):
        return _choose(on_cpu, elsewhere, *primals)

    @functools.partial(function.defjvp, symbolic_zeros=True)
    def _(primals, tangents):
        out = function(*primals)
        return out, derivatives.differential(
            lambda primals, tangents: derivatives.jvp(elsewhere, primals, tangents)[1],
            lambda primals, cotangent: backward(*primals, cotangent),
            primals,
            tangents,
            out,
        )

    return function


def _choose(on_cpu, elsewhere, *args):
    if on_cpu is elsewhere:
        return elsewhere(*args)
    return jax.lax.platform_dependent(*args, cpu=on_cpu, default=elsewhere)


def _backward_of(function):
    return lambda *args: jax.vjp(function, *args[:-1])[1](args[-1])
