"""The encoder: latents that attend to the inputs again and again (sections 3.1 and 3.2)."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from perceiver_jax import attention, attention_maps, config, dropout, padded, tokens
from perceiver_jax import layers as layers_lib


@dataclasses.dataclass
class PerceiverEncoder(hk.Module):
    """Iterated cross-attention of a learned latent array to the inputs.

    "Unrolled in depth, a Perceiver is an RNN" (section 3.1): what each cross-attend reads may be
    all inputs again, or one modality after the other, or one part of a sequence after the other.
    Where an example has nothing of what a cross-attend reads, its latents pass unchanged.

    Attributes:
      num_latents: N.
      latent_channels: D.
      layers: the weights that each cross-attend and each latent Transformer uses, in order, such
        as ('cross_attend_0', 'latent_transformer_0', 'cross_attend_1', 'latent_transformer_0');
        see `layers.make_layers`.
      num_self_attends: layers of a latent Transformer.
      num_cross_attend_heads: heads of a cross-attend; 1 in the paper.
      num_self_attend_heads: heads of a self-attend; 8 in the paper.
      dropout_rate: dropout of all residual branches; 0 in the paper, where it hurt.
      latent_init_scale: standard deviation of the latent array at the start.
      streaming: absorbed and streaming attention, which keeps no weights for the backward pass,
        else the plain forms; the same numbers.
      chunk_size: inputs a streamed chunk; 0 = automatic.
      scan: run repeated cross-attends and latent Transformers under a scan, which compiles each
        once; else unrolled.
      remat: recompute each layer's activations in the backward pass instead of keeping them.
      reads: what each cross-attend reads, in order: 'all' inputs fused; one input by its name, with
        that input's own channels; or a part, such as 'all[0]' or 'video[3]'. All that is read in
        parts is cut into as many, along its first axis. None: all cross-attends read 'all'.
      qk_channels: channels of all queries and keys; None takes those of the inputs for a
        cross-attend, D for a self-attend.
      v_channels: channels of all values; None takes those of the keys.
      cross_attend_widening_factor: width of a cross-attend's MLP over D; 1 in the paper.
      self_attend_widening_factor: width of a self-attend's MLP over D; 1 in the paper.
      gelu: see `attention.mlp`.
    """

    num_latents: int
    latent_channels: int
    layers: Sequence[str]
    num_self_attends: int = 6
    num_cross_attend_heads: int = 1
    num_self_attend_heads: int = 8
    dropout_rate: float = 0.0
    latent_init_scale: float = 0.02
    streaming: bool = True
    chunk_size: int = 0
    scan: bool = True
    remat: bool = False
    reads: Sequence[str] = ()
    qk_channels: int | None = None
    v_channels: int | None = None
    cross_attend_widening_factor: int = 1
    self_attend_widening_factor: int = 1
    gelu: str = "tanh"
    name: str | None = None

    def __post_init__(self):
        """Checks what does not depend on the inputs."""
        super().__post_init__()
        config.check(
            vars(self),
            num_latents=config.AT_LEAST_ONE,
            latent_channels=config.AT_LEAST_ONE,
            num_self_attends=config.AT_LEAST_ONE,  # `layers` says where there are none.
            num_cross_attend_heads=config.AT_LEAST_ONE,
            num_self_attend_heads=config.AT_LEAST_ONE,
            dropout_rate=config.BELOW_ONE,
            latent_init_scale=config.POSITIVE,
            chunk_size=config.COUNT,
            cross_attend_widening_factor=config.AT_LEAST_ONE,
            self_attend_widening_factor=config.AT_LEAST_ONE,
        )
        attention.check_channels(vars(self))
        resolved = self.resolved
        if not any(layer.is_cross_attend for layer in resolved):
            got = list(self.layers) if self.layers else "empty"
            raise config.UserError(f"layers is {got}; expected at least one cross-attend. Add it.")
        channels = self.qk_channels or self.latent_channels
        if channels % self.num_self_attend_heads:
            key = "qk_channels" if self.qk_channels else "latent_channels"
            raise config.UserError(
                f"{key} is {channels}, which num_self_attend_heads = "
                f"{self.num_self_attend_heads} does not divide; expected a multiple. Change one of "
                "the two."
            )

    @property
    def resolved(self) -> tuple[layers_lib.Layer, ...]:
        """The layers with what they read."""
        return layers_lib.resolve(self.layers, self.reads)

    def __call__(
        self,
        inputs: Float[Array, "B M C"] | Mapping[str, tokens.Tokens | padded.Fused],
        mask: Bool[Array, "B M"] | None = None,
        rng: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B N D"]:
        """Encodes a byte array, or several.

        Args:
          inputs: the byte array; or tokens by what `reads` names, 'all' and 'video', say. What is
            read in parts is called 'video[]', and has an axis of parts before the others.
          mask: True where an input is real; None if all are, or if tokens are given.
          rng: one key an example for dropout; None turns it off.

        Returns:
          The final latents.
        """
        if not isinstance(inputs, Mapping):
            inputs = {layers_lib.ALL: tokens.Tokens(inputs, mask)}
        values = next(iter(inputs.values())).values
        latents = self.initial_latents(values.shape[-3], values.dtype)
        return self.update(latents, inputs, self.resolved, rng)

    @hk.name_like("__call__")
    def initial_latents(self, batch_size: Any, dtype: Any) -> Float[Array, "B N D"]:
        """The learned latent array, once for each of B examples (a number or a symbol)."""
        latents = hk.get_parameter(
            "latents",
            [self.num_latents, self.latent_channels],
            init=hk.initializers.TruncatedNormal(self.latent_init_scale),
        )
        latents = latents.astype(dtype)
        return jnp.broadcast_to(latents[None], (batch_size, *latents.shape))

    @hk.name_like("__call__")
    def update(
        self,
        latents: Float[Array, "B N D"],
        inputs: Mapping[str, tokens.Tokens | padded.Fused],
        layers: Sequence[layers_lib.Layer],
        rng: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B N D"]:
        """Applies layers to latents; the other arguments are as in `__call__`."""
        in_parts = self.streaming and self.num_cross_attend_heads == 1
        sources = {name: _source(x, in_parts) for name, x in inputs.items()}
        weights = self._all_weights(layers, inputs)
        rng = rng if self.dropout_rate else None

        if not self.scan:
            for index, layer in enumerate(layers):
                rng_here = dropout.fold_in(rng, index)
                params, read = weights[layer.weights], _read(sources, layer)
                latents = self._layer(params, latents, read, rng_here, scanned=False)
            return latents

        index = 0
        for run in layers_lib.find_runs(layers):
            latents = _run(self._layer, run, weights, sources, latents, rng, index)
            index += run.num_layers
        return latents

    @hk.name_like("__call__")
    def attention_maps(
        self,
        inputs: Mapping[str, tokens.Tokens | padded.Fused],
        indices: Sequence[int],
        chosen: Int[Array, " n"] | None = None,
    ) -> dict[int, dict[str, attention_maps.AttentionMap]]:
        """What the layers of the given indices attend to, without dropout.

        Args:
          inputs: as in `__call__`.
          indices: of layers.
          chosen: latents whose maps are wanted; None: all.

        Returns:
          By index: the map of a cross-attend over all that it reads, by its source; or those of all
          self-attends, as 'self_attend_0' and so on.
        """
        layers, maps, done = self.resolved, {}, 0
        values = next(iter(inputs.values())).values
        latents = self.initial_latents(values.shape[-3], values.dtype)
        for index in sorted(set(indices)):
            latents = self.update(latents, inputs, layers[done:index])
            maps[index], latents = self._map_layer(latents, inputs, layers[index], chosen)
            done = index + 1
        return maps

    @hk.name_like("__call__")
    def _map_layer(self, latents, inputs, layer, chosen):
        """What a layer attends to, and the latents after it."""
        sources = {name: _source(x) for name, x in inputs.items()}
        params, read = self._all_weights([layer], inputs)[layer.weights], _read(sources, layer)
        if read is not None:
            found = attention_maps.of_cross_attend(
                params, latents, read.values, read.mask, self.num_cross_attend_heads, chosen
            )
            return {layer.source: found}, self._layer(params, latents, read, None, scanned=False)
        maps = {}
        for i, block in enumerate(params):
            heads = self.num_self_attend_heads
            maps[f"self_attend_{i}"] = attention_maps.of_self_attend(block, latents, heads, chosen)
            latents = self._layer([block], latents, None, None, scanned=False)
        return maps, latents

    def _all_weights(self, layers, inputs):
        """The parameters behind each name; made in the order of the layers."""
        weights = {}
        for layer in layers:
            channels = inputs[layer.source].values.shape[-1] if layer.is_cross_attend else 0
            if channels == 1:
                raise config.UserError(
                    f"Inputs {layer.source.removesuffix('[]')!r} have 1 channel, which the layer "
                    "norm in front of a cross-attend makes 0 whatever it is; expected at least 2. "
                    "Give them a position_encoding, or what maps them to more channels (a stem of "
                    "pictures, num_channels of arrays)."
                )
            weights[layer.weights] = self._weights(layer, channels)
        return weights

    @hk.name_like("__call__")
    def _weights(self, layer, input_channels):
        """The parameters behind a layer's name; of a latent Transformer, one set a self-attend."""
        if layer.is_cross_attend:
            block = attention.CrossAttention(
                self.num_cross_attend_heads,
                self.qk_channels,
                self.v_channels,
                self.cross_attend_widening_factor,
                name=layer.weights,
            )
            return block.parameters(self.latent_channels, input_channels)
        with hk.name_scope(layer.weights):
            return [
                attention.SelfAttention(
                    self.num_self_attend_heads,
                    self.self_attend_widening_factor,
                    self.qk_channels,
                    self.v_channels,
                    name=f"self_attend_{i}",
                ).parameters(self.latent_channels)
                for i in range(self.num_self_attends)
            ]

    def _layer(self, params, latents, read, rng, scanned):
        """Applies a cross-attend, or all self-attends of a latent Transformer."""
        remat = _remat(self.remat, scanned)
        if read is not None:
            attend = remat(
                functools.partial(
                    attention.cross_attend,
                    num_heads=self.num_cross_attend_heads,
                    streaming=self.streaming,
                    chunk_size=self.chunk_size,
                    dropout_rate=self.dropout_rate,
                    gelu=self.gelu,
                )
            )
            updated = attend(params, latents, *read, rng=rng)
            if read.mask is None:
                return updated
            return jnp.where(jnp.any(read.mask, axis=-1)[:, None, None], updated, latents)

        attend = remat(
            functools.partial(
                attention.self_attend_rows,
                batch_size=latents.shape[0],
                num_heads=self.num_self_attend_heads,
                streaming=self.streaming,
                dropout_rate=self.dropout_rate,
                gelu=self.gelu,
            )
        )

        # No scan: to stack the weights and their gradients takes more time and memory.
        rows = latents.reshape(-1, latents.shape[-1])
        for index, block in enumerate(params):
            rows = attend(block, rows, rng=dropout.fold_in(rng, index))
        return rows.reshape(latents.shape)


class _Source(NamedTuple):
    """What cross-attends read; made once for all of them."""

    # [B, M, C], or [T, B, M, C] of T parts of time; or of each modality, see `padded`.
    values: jax.Array | tuple[padded.Part, ...]
    mask: jax.Array | None
    input_scale: jax.Array | tuple[jax.Array, ...]


def _source(inputs, in_parts=False):
    if in_parts and isinstance(inputs, padded.Fused):
        parts, variances = zip(*map(padded.prepare, inputs.parts), strict=True)
        scales = tuple(jax.lax.rsqrt(x + attention.NORM_EPSILON) for x in variances)
        return _Source(parts, inputs.mask, scales)
    values = tokens.blank(inputs.values, inputs.mask)
    return _Source(values, inputs.mask, attention.inverse_deviation(values))


def _read(sources, layer):
    """What a layer reads; None of a latent Transformer."""
    if not layer.is_cross_attend:
        return None
    source = sources[layer.source]
    return jax.tree.map(lambda x: x[layer.part], source) if layer.source.endswith("[]") else source


def _run(apply_layer, run, weights, sources, latents, rng, first_index):
    """Applies a run of layers, under a scan if it has several repeats."""
    # None marks weights that all repeats share, and what all of them read; the others are scanned.
    own_weights, own_reads = [], []
    for layers in run.pattern:
        names = [layer.weights for layer in layers]
        shared = len(set(names)) == 1
        own_weights.append(None if shared else _stack([weights[name] for name in names]))
        parts = [layer.part for layer in layers]
        own_reads.append(None if len(set(parts)) == 1 else _take(sources[layers[0].source], parts))

    def repeat(latents, xs):
        index, own_weights, own_reads = xs
        for layers, params, read in zip(run.pattern, own_weights, own_reads, strict=True):
            params = weights[layers[0].weights] if params is None else params
            read = _read(sources, layers[0]) if read is None else read
            rng_here = dropout.fold_in(rng, index)
            latents = apply_layer(params, latents, read, rng_here, scanned=run.repeats > 1)
            index += 1
        return latents, None

    if run.repeats == 1:
        return repeat(latents, (first_index, own_weights, own_reads))[0]
    indices = first_index + len(run.pattern) * jnp.arange(run.repeats)
    return jax.lax.scan(repeat, latents, (indices, own_weights, own_reads))[0]


def _take(source, parts):
    """Parts of a source in the given order; all of them in their own order cost no copy."""
    if parts == list(range(jax.tree.leaves(source)[0].shape[0])):
        return source
    return jax.tree.map(lambda x: x[jnp.array(parts)], source)


def _remat(everything: bool, scanned: bool):
    """What of a layer is computed anew in the backward pass: all of it, or what costs little.

    A scan writes all that is kept to memory and reads it again; norms, GELUs and sums are computed
    sooner than that.
    """
    if not everything and not scanned:
        return lambda f: f
    names = () if everything else (attention.PRODUCT, attention.ATTENDED)
    policy = jax.checkpoint_policies.save_only_these_names(*names)
    # Forward and backward passes of a scan are loops of their own, which XLA does not merge.
    return functools.partial(jax.checkpoint, policy=policy, prevent_cse=not scanned)


def _stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
