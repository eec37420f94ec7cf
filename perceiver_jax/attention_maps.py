"""What attention attends to: scores and weights of each head, in the plain form.

They are computed on demand from the latents that a layer gets; the layer itself keeps nothing.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from perceiver_jax import attention, kernels, tokens

# `scores` before the softmax, query times key over √P, -inf where the mask is False; and `weights`
# after it, which sum to one over all that is read, or to zero where nothing is. Both are
# [B, H, N, *M], float32 at least; where latents are chosen, N counts these. A plain dict, for
# programs made by `jax.export` can return it to those who don't have this package.
AttentionMap = dict[str, jax.Array]


def of_cross_attend(
    params: attention.Params,
    latents: Float[Array, "B N D"],
    inputs: Float[Array, "B M C"],
    mask: Bool[Array, "B M"] | None = None,
    num_heads: int = 1,
    chosen: Int[Array, " n"] | None = None,
) -> AttentionMap:
    """The map `[B, H, N, M]` of `attention.cross_attend`, of the same arguments.

    Of `chosen` latents it is `[B, H, n, M]`, for which no more memory is taken.
    """
    inputs = tokens.blank(inputs, mask)
    query = attention.linear(params["query"], attention.layer_norm(params["query_norm"], latents))
    key = attention.linear(params["key"], attention.layer_norm(params["input_norm"], inputs))
    return _map(_take(query, chosen), key, mask, num_heads)


def of_self_attend(
    params: attention.Params,
    latents: Float[Array, "B N D"],
    num_heads: int = 8,
    chosen: Int[Array, " n"] | None = None,
) -> AttentionMap:
    """The map `[B, H, N, N]` of `attention.self_attend`, or `[B, H, n, N]` of `chosen` latents."""
    normed = attention.layer_norm(params["norm"], latents)
    query, key = (attention.linear(params[name], normed) for name in ("query", "key"))
    return _map(_take(query, chosen), key, None, num_heads)


def _take(query, chosen):
    return query if chosen is None else query[:, chosen]


def _map(query, key, mask, num_heads):
    query, key = (x.reshape(*x.shape[:2], num_heads, -1) for x in (query, key))
    scores = kernels.einsum("bnhp,bmhp->bhnm", query / query.shape[-1] ** 0.5, key)
    if mask is None:
        return {"scores": scores, "weights": jax.nn.softmax(scores)}
    keep = jnp.expand_dims(mask, (1, 2))  # [B, 1, 1, M]
    weights = jax.nn.softmax(jnp.where(keep, scores, kernels.MASKED_SCORE))
    return {"scores": jnp.where(keep, scores, -jnp.inf), "weights": jnp.where(keep, weights, 0)}
