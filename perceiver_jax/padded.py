"""Attention to inputs of several modalities, without the channels that only fill them up.

A fused byte array has as many channels as its widest modality. Where that is a label of some 700,
most channels of every pixel are the same learned vector. What that vector adds to a score is one
number a query, and what is attended to of it is the vector times a sum of weights. So a channel of
ones takes its place, and each modality is attended to with the channels that it has.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from perceiver_jax import kernels, tokens

_WORTH_IT = 0.75  # Of the fused array's numbers; as many may be left.


class Part(NamedTuple):
    """Inputs of one modality, whose channels end with the same ones for all inputs of an example.

    Attributes:
      values: m inputs of c channels of their own.
      padding: the C - c channels that follow them.
      mask: True where an input is real; None if all are.
    """

    values: Float[Array, "B m c"]
    padding: Float[Array, "B C-c"]
    mask: Bool[Array, "B m"] | None = None


class Fused(NamedTuple):
    """Tokens, and the parts that they were made of.

    Who reads the parts leaves `values` alone, and a compiler makes none of what nobody reads.
    """

    values: Float[Array, "B M C"]
    mask: Bool[Array, "B M"] | None
    parts: tuple[Part, ...]


def fuse(parts: Sequence[Part]) -> tokens.Tokens | Fused:
    """Joins inputs `[B, m, c]` to `[B, M, C]`, and keeps the parts where they are much less."""
    whole = jnp.concatenate([_filled_up(part) for part in parts], axis=1)
    mask = None
    if any(part.mask is not None for part in parts):
        mask = jnp.concatenate(
            [
                jnp.ones(part.values.shape[:2], bool) if part.mask is None else part.mask
                for part in parts
            ],
            axis=1,
        )
    left = sum(part.values.shape[1] * (part.values.shape[2] + 1) for part in parts)
    if left < _WORTH_IT * whole.shape[1] * whole.shape[2]:
        return Fused(whole, mask, tuple(parts))
    return tokens.Tokens(whole, mask)


def prepare(part: Part) -> tuple[Part, Float[Array, "*B m"]]:
    """Returns the part as `attend` takes it, and the variance of each input over all channels.

    Values under the mask are blanked, and followed by the channel that stands for the padding; the
    variance is in float32 at least.
    """
    values = tokens.blank(part.values, part.mask)
    wide = jnp.promote_types(values.dtype, jnp.float32)
    channels = values.astype(wide), part.padding[..., None, :].astype(wide)
    number = sum(x.shape[-1] for x in channels)
    mean = sum(x.sum(axis=-1, keepdims=True) for x in channels) / number
    variance = sum(jnp.square(x - mean).sum(axis=-1) for x in channels) / number
    with_ones = jnp.concatenate([values, jnp.ones_like(values[..., :1])], axis=-1)
    return part._replace(values=with_ones), variance


def attend(
    query: Float[Array, "B N C"],
    parts: Sequence[Part],
    scales: Sequence[Float[Array, "B _"]],
    chunk_size: int = 0,
) -> Float[Array, "B N C"]:
    """One-head attention to all parts, whose inputs, times their scales, are keys and values.

    Args:
      query: of C channels, divided by the root of its own number.
      parts: of `prepare`.
      scales: a factor of each input.
      chunk_size: inputs a streamed chunk, 0 = automatic.

    Returns:
      The attended inputs. A row that may attend to nothing gives zeros.
    """
    found, log_sum_exps = [], []
    for part, scale in zip(parts, scales, strict=True):
        own = part.values.shape[-1] - 1
        padding = part.padding[:, None]  # [B, 1, C - c]
        of_padding = jnp.sum(query[..., own:] * padding, axis=-1, keepdims=True)
        own_query = jnp.concatenate([query[..., :own], of_padding], axis=-1)
        attended, log_sum_exp = kernels.attend_and_log_sum_exp(
            own_query[:, :, None], part.values[:, :, None], None, part.mask, chunk_size, scale
        )
        attended = attended[:, :, 0]
        found.append(jnp.concatenate([attended[..., :own], attended[..., own:] * padding], axis=-1))
        log_sum_exps.append(log_sum_exp[:, 0])
    shares = jax.nn.softmax(jnp.stack(log_sum_exps), axis=0)[..., None]  # [parts, B, N, 1]
    return sum(share * x for share, x in zip(shares, found, strict=True)).astype(query.dtype)


def _filled_up(part):
    shape = *part.values.shape[:2], part.padding.shape[-1]
    return jnp.concatenate([part.values, jnp.broadcast_to(part.padding[:, None], shape)], axis=-1)
