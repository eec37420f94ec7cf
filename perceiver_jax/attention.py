"""Attention and the two blocks that a Perceiver is made of.

Modules hold parameters, functions do the arithmetic. `CrossAttention` and `SelfAttention` can be
called on any `[B, M, C]` array; the encoder instead takes their `parameters()` and runs the
functions below under a scan, so that forty-eight shared layers compile as one.

Pre-norm residual blocks: Jaegle et al. 2021, section 3.1 and appendix C.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import haiku as hk
import jax
from jax import ad_checkpoint
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from perceiver_jax import config, dropout, kernels, padded, tokens

Params = Mapping[str, Mapping[str, jax.Array]]

NORM_EPSILON = 1e-5
GELUS = ("tanh", "exact")

# Names of what costs most to compute anew (`jax.checkpoint_policies.save_only_these_names`).
PRODUCT = "product"
ATTENDED = kernels.ATTENDED


def inverse_deviation(x: Float[Array, "*B C"]) -> Float[Array, "*B"]:
    """1 / √(variance over channels + ε), in float32 at least."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return jax.lax.rsqrt(jnp.square(_centre(x)).mean(axis=-1) + NORM_EPSILON)


def layer_norm(params: Mapping[str, jax.Array], x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
    """Layer norm over channels with a learned scale and offset."""
    x32 = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    standardized = _centre(x32) * jnp.expand_dims(inverse_deviation(x32), -1)
    return _scale_and_offset(params, standardized.astype(x.dtype))


def linear(params: Mapping[str, jax.Array], x: Float[Array, "*B C"]) -> Float[Array, "*B P"]:
    """Affine map of the channels."""
    return ad_checkpoint.checkpoint_name(kernels.linear(x, params["w"], params["b"]), PRODUCT)


def attend(
    query: Float[Array, "B N H P"],
    key: Float[Array, "B M H P"],
    value: Float[Array, "B M H V"],
    mask: Bool[Array, "B M"] | None = None,
) -> Float[Array, "B N H V"]:
    """Softmax attention: softmax(q kᵀ) v. The readable reference of the streaming form.

    Args:
      query: queries, already divided by √P.
      key: keys; finite, as the values are, under the mask as well.
      value: values.
      mask: True where an input is real. A row that may attend to nothing gives zeros.

    Returns:
      The attended values, one row a query.
    """
    scores = kernels.einsum("bnhp,bmhp->bhnm", query, key)  # [B, H, N, M], float32 at least
    keep = None if mask is None else jnp.expand_dims(mask, (1, 2))  # [B, 1, 1, M]
    if keep is not None:
        scores = jnp.where(keep, scores, kernels.MASKED_SCORE)
    highest = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    weights = jnp.exp(scores - highest)
    if keep is not None:
        weights = jnp.where(keep, weights, 0)
    # Dividing what was attended to, not the weights, saves passes over [N, M].
    total = jnp.swapaxes(weights.sum(axis=-1, keepdims=True), 1, 2)  # [B, N, H, 1]
    weights = weights.astype(value.dtype)
    attended = kernels.einsum("bhnm,bmhv->bnhv", weights, value)
    return (attended / jnp.where(total > 0, total, jnp.ones_like(total))).astype(value.dtype)


def attend_absorbed(
    params: Params,
    query: Float[Array, "B N P"],
    inputs: Float[Array, "B M C"] | tuple[padded.Part, ...],
    input_scale: Float[Array, "B M"] | tuple[Float[Array, "B _"], ...],
    mask: Bool[Array, "B M"] | None = None,
    chunk_size: int = 0,
) -> Float[Array, "B N V"]:
    """One-head attention to normalised inputs, neither projected nor normalised anywhere.

    With x the inputs, r the inverse of the standard deviation of each, s and o the scale and offset
    of their norm, and c( ) = less the mean over channels:

        scores = c((q Wkᵀ) ∘ s) (r ∘ x)ᵀ        output = (c(A (r ∘ x)) ∘ s + o) Wv + bv

    since c(a) · b = a · c(b). The key bias and the norm's offset add the same number to all scores
    of a query, which the softmax ignores; the rows of A sum to one. So the results equal those of
    projected keys and values, and the gradient of the key bias is exactly zero. The byte array
    serves every cross-attend as it is.

    Args:
      params: needs `input_norm`, `key` and `value`.
      query: projected queries of one head, already divided by √P.
      inputs: the byte array; or its parts, see `padded.attend`.
      input_scale: `inverse_deviation(inputs)`, or that of each part.
      mask: True where an input is real.
      chunk_size: inputs a streamed chunk, 0 = automatic.

    Returns:
      The attended values, before the output projection.
    """
    scale = params["input_norm"]["scale"]
    inward = _centre((query @ params["key"]["w"].T) * jnp.expand_dims(scale, (0, 1)))  # [B, N, C]
    if isinstance(inputs, tuple):
        attended = padded.attend(inward, inputs, input_scale, chunk_size)  # [B, N, C]
    else:
        attended = _attend_streaming(
            inward[:, :, None], inputs[:, :, None], None, mask, chunk_size, input_scale
        )[:, :, 0]
    attended = linear(params["value"], _scale_and_offset(params["input_norm"], _centre(attended)))
    if mask is None:
        return attended
    return jnp.where(jnp.any(mask, axis=-1)[:, None, None], attended, 0)


def cross_attend(
    params: Params,
    latents: Float[Array, "B N D"],
    inputs: Float[Array, "B M C"] | tuple[padded.Part, ...],
    mask: Bool[Array, "B M"] | None = None,
    input_scale: Float[Array, "B M"] | tuple[Float[Array, "B _"], ...] | None = None,
    *,
    num_heads: int = 1,
    use_query_residual: bool = True,
    streaming: bool = True,
    chunk_size: int = 0,
    dropout_rate: float = 0.0,
    gelu: str = "tanh",
    rng: Key[Array, " B"] | None = None,
) -> Float[Array, "B N D"]:
    """A cross-attend block: attention of the latents to the inputs, then an MLP.

    Args:
      params: `CrossAttention.parameters()`.
      latents: the queries.
      inputs: the byte array; or its parts, for streaming with one head.
      mask: True where an input is real.
      input_scale: `inverse_deviation(inputs)`, which serves several blocks; the inputs are finite
        then, under the mask as well. None blanks the inputs under the mask and computes it.
      num_heads: attention heads; 1 in the paper.
      use_query_residual: whether the latents are added to what they attended to.
      streaming: absorb the projections (one head) and stream over the inputs; same numbers.
      chunk_size: inputs a streamed chunk, 0 = automatic.
      dropout_rate: dropout of both residual branches; none in the paper.
      gelu: see `mlp`.
      rng: one key an example; None turns dropout off.

    Returns:
      The updated latents.
    """
    if input_scale is None:
        inputs = tokens.blank(inputs, mask)
    query = project_queries(params, latents, num_heads)
    if streaming and num_heads == 1:
        if input_scale is None:
            input_scale = inverse_deviation(inputs)
        attended = attend_absorbed(params, query, inputs, input_scale, mask, chunk_size)
    else:
        key, value = keys_and_values(params, inputs, num_heads)
        query = _split_heads(query, num_heads)
        attended = (
            _attend_streaming(query, key, value, mask, chunk_size)
            if streaming
            else attend(query, key, value, mask)
        )
        attended = attended.reshape(*attended.shape[:2], -1)
    attended = linear(params["output"], attended)
    attended = dropout.dropout(attended, dropout_rate, dropout.fold_in(rng, 0))
    latents = latents + attended if use_query_residual else attended
    return latents + dropout.dropout(
        mlp(params, latents, gelu), dropout_rate, dropout.fold_in(rng, 1)
    )


def project_queries(
    params: Params, x: Float[Array, "B N D"], num_heads: int
) -> Float[Array, "B N P"]:
    """Queries of a cross-attend block, all heads beside each other, divided by √P of one."""
    query = linear(params["query"], layer_norm(params["query_norm"], x))
    return query / (query.shape[-1] // num_heads) ** 0.5


def keys_and_values(
    params: Params, inputs: Float[Array, "B M C"], num_heads: int
) -> tuple[Float[Array, "B M H P"], Float[Array, "B M H V"]]:
    """What inputs are to all queries of a cross-attend block."""
    normed = layer_norm(params["input_norm"], inputs)
    key, value = (linear(params[name], normed) for name in ("key", "value"))
    return _split_heads(key, num_heads), _split_heads(value, num_heads)


def self_attend(
    params: Params, latents: Float[Array, "B N D"], **options: Any
) -> Float[Array, "B N D"]:
    """A layer of the latent Transformer: self-attention, then an MLP; see `self_attend_rows`."""
    rows = latents.reshape(-1, latents.shape[-1])
    return self_attend_rows(params, rows, latents.shape[0], **options).reshape(latents.shape)


def self_attend_rows(
    params: Params,
    rows: Float[Array, "BN D"],
    batch_size: Any,
    *,
    num_heads: int = 8,
    streaming: bool = True,
    dropout_rate: float = 0.0,
    gelu: str = "tanh",
    rng: Key[Array, " B"] | None = None,
) -> Float[Array, "BN D"]:
    """`self_attend` of latents [B, N, D] as the matrix [B * N, D] that products take and give.

    With a reshape between layers XLA for CPUs would sum up the gradients of all later branches anew
    for each layer: of 26 layers of 1,280 channels, 1.5 times as long (JAX 0.10.2).

    Args:
      params: `SelfAttention.parameters()`.
      rows: of all examples, one after the other.
      batch_size: a number or the symbol of one.
      num_heads: attention heads.
      streaming: where attention weights are many, compute them anew in the backward pass.
      dropout_rate: dropout of both residual branches; none in the paper.
      gelu: see `mlp`.
      rng: one key an example; None turns dropout off.
    """

    def drop(branch, index):
        if dropout_rate == 0 or rng is None:  # No reshape there, for the reason above.
            return branch
        by_example = branch.reshape(batch_size, -1, branch.shape[-1])
        dropped = dropout.dropout(by_example, dropout_rate, dropout.fold_in(rng, index))
        return dropped.reshape(branch.shape)

    normed = layer_norm(params["norm"], rows)
    query, key, value = (
        _split_heads(linear(params[name], normed).reshape(batch_size, -1, width), num_heads)
        for name, width in ((name, len(params[name]["b"])) for name in ("query", "key", "value"))
    )
    query = query / query.shape[-1] ** 0.5
    attended = (_attend_streaming if streaming else attend)(query, key, value)
    attended = attended.reshape(rows.shape[0], -1)
    rows = rows + drop(linear(params["output"], attended), 0)
    return rows + drop(mlp(params, rows, gelu), 1)


def mlp(params: Params, x: Float[Array, "*B D"], gelu: str = "tanh") -> Float[Array, "*B D"]:
    """The dense block after each attention: layer norm, linear, GELU, linear.

    GELU is the tanh approximation, with which the authors' checkpoints were trained, unless it is
    to be 'exact', as in Hugging Face's port of them.
    """
    return linear(params["mlp_output"], mlp_hidden(params, x, gelu))


def mlp_hidden(params: Params, x: Float[Array, "*B D"], gelu: str) -> Float[Array, "*B F"]:
    """All of `mlp` but its last layer."""
    hidden = linear(params["mlp_hidden"], layer_norm(params["mlp_norm"], x))
    return jax.nn.gelu(hidden, approximate=gelu == "tanh")


@dataclasses.dataclass
class CrossAttention(hk.Module):
    """Parameters of a cross-attend block; see `cross_attend`.

    The key bias of a one-head block has a gradient of exactly zero: it adds the same number to
    all scores of a query. It stays a parameter because the authors' checkpoints have it.

    Attributes:
      num_heads: attention heads; must divide the query/key and the value channels.
      qk_channels: channels of queries and keys; None takes those of the inputs, as the authors do.
      v_channels: channels of the values; None takes qk_channels.
      widening_factor: width of the MLP's hidden layer over its input; 1 in the paper.
      use_query_residual: whether the latents are added to what they attended to.
      streaming: absorbed and streaming form, else the plain one.
    """

    num_heads: int = 1
    qk_channels: int | None = None
    v_channels: int | None = None
    widening_factor: int = 1
    use_query_residual: bool = True
    streaming: bool = True
    name: str | None = None

    @hk.name_like("__call__")
    def parameters(self, latent_channels: int, input_channels: int) -> Params:
        """Parameters for latents of `latent_channels` over inputs of `input_channels`."""
        qk_channels = self.qk_channels or input_channels
        v_channels = self.v_channels or qk_channels
        _check_heads(self.num_heads, qk_channels, "query and key channels")
        _check_heads(self.num_heads, v_channels, "value channels")
        return {
            "query_norm": Norm("query_norm").parameters(latent_channels),
            "input_norm": Norm("input_norm").parameters(input_channels),
            "query": Linear("query").parameters(latent_channels, qk_channels),
            "key": Linear("key").parameters(input_channels, qk_channels),
            "value": Linear("value").parameters(input_channels, v_channels),
            "output": Linear("output").parameters(v_channels, latent_channels),
            **_mlp_parameters(latent_channels, self.widening_factor),
        }

    def __call__(
        self,
        latents: Float[Array, "B N D"],
        inputs: Float[Array, "B M C"],
        mask: Bool[Array, "B M"] | None = None,
    ) -> Float[Array, "B N D"]:
        """Updates latents `[B, N, D]` from inputs `[B, M, C]` that are not yet normalised."""
        return cross_attend(
            self.parameters(latents.shape[-1], inputs.shape[-1]),
            latents,
            inputs,
            mask,
            num_heads=self.num_heads,
            use_query_residual=self.use_query_residual,
            streaming=self.streaming,
        )


@dataclasses.dataclass
class SelfAttention(hk.Module):
    """Parameters of a layer of the latent Transformer; see `self_attend`.

    Attributes:
      num_heads: attention heads; must divide the channels.
      widening_factor: width of the MLP's hidden layer over its input; 1 in the paper.
      qk_channels: channels of queries and keys; None takes those of the latents.
      v_channels: channels of the values; None takes qk_channels.
    """

    num_heads: int = 8
    widening_factor: int = 1
    qk_channels: int | None = None
    v_channels: int | None = None
    name: str | None = None

    @hk.name_like("__call__")
    def parameters(self, channels: int) -> Params:
        """Parameters for latents of `channels`."""
        qk_channels = self.qk_channels or channels
        v_channels = self.v_channels or qk_channels
        _check_heads(self.num_heads, qk_channels, "query and key channels of the latents")
        _check_heads(self.num_heads, v_channels, "value channels of the latents")
        return {
            "norm": Norm("norm").parameters(channels),
            "query": Linear("query").parameters(channels, qk_channels),
            "key": Linear("key").parameters(channels, qk_channels),
            "value": Linear("value").parameters(channels, v_channels),
            "output": Linear("output").parameters(v_channels, channels),
            **_mlp_parameters(channels, self.widening_factor),
        }

    def __call__(self, latents: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Updates latents `[B, N, D]`."""
        return self_attend(self.parameters(latents.shape[-1]), latents, num_heads=self.num_heads)


@dataclasses.dataclass
class Linear(hk.Module):
    """Weights and biases of an affine map; zero biases.

    Attributes:
      init: of the weights; None: fan-in variance scaling.
    """

    name: str
    init: Callable | None = None

    @hk.name_like("__call__")
    def parameters(self, input_channels: int, output_channels: int) -> dict[str, jax.Array]:
        """`w` of [input_channels, output_channels] and `b` of [output_channels]."""
        init = self.init or hk.initializers.VarianceScaling(1.0)
        return {
            "w": hk.get_parameter("w", [input_channels, output_channels], init=init),
            "b": hk.get_parameter("b", [output_channels], init=jnp.zeros),
        }


class Norm(hk.Module):
    """Scale and offset of a layer norm."""

    @hk.name_like("__call__")
    def parameters(self, channels: int) -> dict[str, jax.Array]:
        """`scale` (ones) and `offset` (zeros) of [channels]."""
        return {
            "scale": hk.get_parameter("scale", [channels], init=jnp.ones),
            "offset": hk.get_parameter("offset", [channels], init=jnp.zeros),
        }


def _mlp_parameters(channels: int, widening_factor: int) -> Params:
    hidden = widening_factor * channels
    return {
        "mlp_norm": Norm("mlp_norm").parameters(channels),
        "mlp_hidden": Linear("mlp_hidden").parameters(channels, hidden),
        "mlp_output": Linear("mlp_output").parameters(hidden, channels),
    }


def _attend_streaming(query, key, value, mask=None, chunk_size=0, scale=None):
    """Streams where the scores are many; few are kept, so that they aren't computed twice."""
    _, num_queries, num_heads, _ = query.shape
    num_inputs = key.shape[1]
    chunk_size = kernels.choose_chunk_size(num_queries, num_inputs, chunk_size)
    if chunk_size < num_inputs or num_queries * num_heads * num_inputs > kernels.MAX_SCORES:
        return kernels.attend(query, key, value, mask, chunk_size, scale)
    if scale is not None:
        key = (key * scale[:, :, None, None]).astype(key.dtype)
    return attend(query, key, key if value is None else value, mask)


def _split_heads(x: jax.Array, num_heads: int) -> jax.Array:
    return x.reshape(*x.shape[:-1], num_heads, -1)


def _centre(x: jax.Array) -> jax.Array:
    return x - x.mean(axis=-1, keepdims=True)


def _scale_and_offset(params: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    leading = tuple(range(x.ndim - 1))
    scale, offset = (jnp.expand_dims(params[name], leading) for name in ("scale", "offset"))
    return x * scale + offset


def check_channels(keys: Mapping[str, Any]) -> None:
    """Checks what all that attends has in a config: `qk_channels`, `v_channels` and `gelu`."""
    config.check_known("gelu", keys["gelu"], GELUS)
    for name in ("qk_channels", "v_channels"):
        if keys[name] is not None:
            config.AT_LEAST_ONE.check(name, keys[name], keys[name])


def _check_heads(num_heads: int, channels: int, what: str) -> None:
    if num_heads < 1 or channels % num_heads:
        raise config.UserError(
            f"{num_heads} attention heads don't divide {channels} {what}; "
            "the number of heads must be at least 1 and divide them. Change one of the two."
        )
