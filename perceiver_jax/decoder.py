"""Output queries attend to the latents: any number of outputs (Perceiver IO, section 3)."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from perceiver_jax import attention, config
from perceiver_jax import tokens as tokens_lib

# Numbers that a chunk of queries may take: scores, channels and what a block keeps of them.
_MAX_NUMBERS = 2**24


Affine = Mapping[str, jax.Array]  # `w` and `b` of a linear layer.


class Context(NamedTuple):
    """What outputs may ask for beside the latents.

    Attributes:
      inputs: the preprocessors by name of the input.
      shapes: of the arrays that the batch has of them.
      tokens: what became of those that outputs name in `reads`.
    """

    inputs: Mapping[str, Any] = {}
    shapes: Mapping[str, tuple[Any, ...]] = {}
    tokens: Mapping[str, tokens_lib.Tokens] = {}


NOTHING = Context()


class Queries(NamedTuple):
    """Output queries, made when they are needed: there may be more than memory holds.

    Attributes:
      number: O, how many there are.
      channels: C of each.
      take: gives those of indices [n] or [B, n]: [1, n, C] or [B, n, C].
      mask: False for those that attend to nothing; None: there are none.
    """

    number: int
    channels: int
    take: Callable[[Int[Array, "*B n"]], Float[Array, "B n C"]]
    mask: Bool[Array, "B O"] | None = None


@dataclasses.dataclass
class Attending(hk.Module):
    """How output queries attend to latents; the outputs that have queries are such modules.

    Attributes:
      num_heads: of the attention; must divide its channels.
      qk_channels: channels of queries and keys; None takes D.
      v_channels: channels of the values; None takes qk_channels.
      widening_factor: width of the MLP's hidden layer over the queries' channels.
      use_query_residual: whether queries are added to what they attended to.
      chunk_size: queries that are decoded at a time, so that memory does not grow with their
        number; 0 = automatic.
      streaming: multiply weights by each other first where that saves work, see `decode`; the same
        numbers.
      gelu: see `attention.mlp`.
    """

    _: dataclasses.KW_ONLY
    num_heads: int = 1
    qk_channels: int | None = None
    v_channels: int | None = None
    widening_factor: int = 1
    use_query_residual: bool = False
    chunk_size: int = 0
    streaming: bool = True
    gelu: str = "tanh"
    name: str | None = None

    def __post_init__(self):
        """Checks the numbers."""
        super().__post_init__()
        config.check(
            vars(self),
            num_heads=config.AT_LEAST_ONE,
            widening_factor=config.AT_LEAST_ONE,
            chunk_size=config.COUNT,
        )
        attention.check_channels(vars(self))

    @hk.name_like("__call__")
    def decode(
        self,
        latents: Float[Array, "B N D"],
        queries: Queries,
        head: Sequence[Affine],
        indices: Int[Array, "*B O"] | None = None,
    ) -> Float[Array, "B O F"]:
        """Decodes all queries, or those of the given indices.

        Queries are often many and their outputs small. Then products of weights pay, exactly:

        - of the keys and the queries' projection, q = x Wq + bq: q k = x (Wq k) + bq k; and of the
          values and the output's projection, (A v) Wo = A (v Wo). For one head.
        - of the MLP's last layer and all layers of the head, nothing being in between.

        Args:
          latents: the final ones.
          queries: of the output.
          head: linear layers that decoded queries go through; in chunks as well, for there may not
            be room for all of their channels.
          indices: which queries; None: all of them. What is decoded of one that there is not is
            NaN: it can't be refused while a function is traced, and must not count as another.
        """
        if indices is not None:
            exist = (indices >= 0) & (indices < queries.number)
            decoded = self._decode(latents, queries, head, jnp.where(exist, indices, 0))
            return jnp.where(
                jnp.broadcast_to(exist, decoded.shape[:2])[..., None], decoded, jnp.nan
            )
        return self._decode(latents, queries, head, None)

    @hk.name_like("__call__")
    def _decode(self, latents, queries, head, indices):
        params = attention.CrossAttention(
            self.num_heads,
            self.qk_channels or latents.shape[-1],
            self.v_channels,
            self.widening_factor,
            name="cross_attend",
        ).parameters(queries.channels, latents.shape[-1])
        batch_size, num_latents = latents.shape[:2]
        number = queries.number if indices is None else indices.shape[-1]

        def take(indices):
            return queries.take(indices).astype(latents.dtype)

        one_head = self.streaming and self.num_heads == 1
        if one_head and number < num_latents and queries.mask is None:
            query = take(jnp.arange(number) if indices is None else indices)
            query = jnp.broadcast_to(query, (batch_size, *query.shape[1:]))
            residual = {"use_query_residual": self.use_query_residual}
            decoded = attention.cross_attend(params, query, latents, gelu=self.gelu, **residual)
            return _through(head, decoded)

        key, value = attention.keys_and_values(params, latents, self.num_heads)
        width = key.shape[-1]
        plain = width * (queries.channels + num_latents)
        absorbed = one_head and number > num_latents and num_latents * queries.channels < plain
        if absorbed:
            key, value = _absorb(params, key, value)
        composed = self.streaming and number > queries.channels
        last = [_compose([params["mlp_output"], *head])] if composed else [*head]
        around = _compose(head) if composed else None

        def decode(indices):
            query = take(indices)  # [1, n, C] if the same for all examples, else [B, n, C].
            mask = None if queries.mask is None else take_rows(queries.mask, indices)
            projected = (
                _with_one(attention.layer_norm(params["query_norm"], query)) / width**0.5
                if absorbed
                else attention.project_queries(params, query, self.num_heads)
            )
            projected = jnp.broadcast_to(projected, (batch_size, *projected.shape[1:]))
            projected = projected.reshape(*projected.shape[:2], self.num_heads, -1)
            x = attention.attend(projected, key, value)
            x = tokens_lib.blank(x.reshape(*x.shape[:2], -1), mask)
            x = (
                x + jnp.expand_dims(params["output"]["b"], (0, 1))
                if absorbed
                else attention.linear(params["output"], x)
            )
            x = query + x if self.use_query_residual else x
            hidden = attention.mlp_hidden(params, x, self.gelu)
            if not composed:
                return _through(last, x + attention.linear(params["mlp_output"], hidden))
            return x @ around["w"] + _through(last, hidden)

        # Two arrays of scores, and what a block keeps of queries.
        numbers = num_latents * self.num_heads + 2 * queries.channels + 2 * latents.shape[-1]
        chunk_size = self.chunk_size or max(_MAX_NUMBERS // numbers, 1)
        if chunk_size >= number:
            return decode(jnp.arange(number) if indices is None else indices)
        num_chunks = -(-number // chunk_size)
        chunk_size = -(-number // num_chunks)  # As equal as can be.

        def chunk(index):
            # The last chunk may repeat the last query.
            places = jnp.minimum(index * chunk_size + jnp.arange(chunk_size), number - 1)
            return decode(places if indices is None else indices[..., places])

        # Nothing of a chunk is kept for the backward pass.
        chunks = jax.lax.map(jax.checkpoint(chunk), jnp.arange(num_chunks))  # [chunks, B, n, F]
        rows = jnp.swapaxes(chunks, 0, 1).reshape(batch_size, -1, chunks.shape[-1])
        return rows[:, :number]


_GIVEN = ("gelu", "name", "streaming")  # Not by sections of outputs.
SETTINGS = tuple(x.name for x in dataclasses.fields(Attending) if x.name not in _GIVEN)


@dataclasses.dataclass
class SharedDecoder(Attending):
    """One decoder for several outputs, whose queries a learned vector fills to the same width.

    Perceiver IO's multimodal autoencoder (appendix I): a query for each output element of each
    modality; all attend with the same weights, then each modality has a linear layer of its own.

    Attributes:
      channels: of the linear layer that all outputs share.
      query_padding: learned channels of the widest output's queries; the others have more.
    """

    channels: int
    query_padding: int = 2

    def __post_init__(self):
        """Checks the numbers."""
        super().__post_init__()
        config.check(vars(self), channels=config.AT_LEAST_ONE, query_padding=config.AT_LEAST_ONE)

    @hk.name_like("__call__")
    def within(self, make: Callable[[], Any]) -> Any:
        """Calls a function whose modules become parts of this one."""
        return make()

    def __call__(
        self,
        latents: Float[Array, "B N D"],
        outputs: Mapping[str, Any],
        context: Context = NOTHING,
        indices: Mapping[str, Int[Array, "*B O"]] | None = None,
    ) -> dict[str, Float[Array, "B *X F"]]:
        """Decodes outputs, modules of `outputs/` that have queries.

        Args:
          latents: the final ones.
          outputs: by name.
          context: of all of them.
          indices: by name which of its queries to decode, where it is not all of them.
        """
        indices = indices or {}
        queries = {name: output.queries(context) for name, output in outputs.items()}
        width = self.query_padding + max(x.channels for x in queries.values())
        project = attention.Linear("output").parameters(width, self.channels)
        made = {}
        for name, output in outputs.items():
            padded = _padded(queries[name], output.padding(width - queries[name].channels))
            head = [project, output.head(self.channels, context, "output")]
            decoded = self.decode(latents, padded, head, indices.get(name))
            made[name] = decoded if name in indices else output.arrange(decoded, context)
        return made


def _through(head, x):
    for layer in head:
        x = attention.linear(layer, x)
    return x


def _compose(layers):
    """The linear layer that equals several after each other."""
    first, *others = layers
    for layer in others:
        first = {"w": first["w"] @ layer["w"], "b": first["b"] @ layer["w"] + layer["b"]}
    return first


def _absorb(params, key, value):
    """Keys and values [B, N, 1, .] of normed queries, with a channel for the queries' bias."""
    query, output = params["query"], params["output"]
    bias = jnp.sum(key * jnp.expand_dims(query["b"], (0, 1, 2)), axis=-1, keepdims=True)
    return jnp.concatenate([key @ query["w"].T, bias], axis=-1), value @ output["w"]


def _with_one(x):
    return jnp.concatenate([x, jnp.ones((*x.shape[:-1], 1), x.dtype)], axis=-1)


def _padded(queries: Queries, padding: jax.Array) -> Queries:
    def take(indices):
        taken = queries.take(indices)
        tail = jnp.expand_dims(padding.astype(taken.dtype), (0, 1))
        tail = jnp.broadcast_to(tail, (*taken.shape[:2], padding.shape[0]))
        return jnp.concatenate([taken, tail], axis=-1)

    return queries._replace(channels=queries.channels + padding.shape[0], take=take)


def take_rows(values: Shaped[Array, "B O *C"], indices: Int[Array, "*B n"]) -> Array:
    """Rows [B, n, *C] of indices, the same for all examples or each its own."""
    if indices.ndim == 1:
        return values[:, indices]
    return jax.vmap(lambda rows, i: rows[i])(values, indices)
