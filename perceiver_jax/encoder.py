"""The encoder: latents that attend to the inputs again and again (sections 3.1 and 3.2)."""

from collections.abc import Sequence
import dataclasses
import functools

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from perceiver_jax import attention, config, layers, tokens


@dataclasses.dataclass
class PerceiverEncoder(hk.Module):
    """Iterated cross-attention of a learned latent array to the inputs.

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
        )
        if layers.CROSS_ATTEND not in [layers.kind(layer) for layer in self.layers]:
            got = list(self.layers) if self.layers else "empty"
            raise config.UserError(f"layers is {got}; expected at least one cross-attend. Add it.")
        if self.latent_channels % self.num_self_attend_heads:
            raise config.UserError(
                f"latent_channels is {self.latent_channels}, which num_self_attend_heads = "
                f"{self.num_self_attend_heads} does not divide; expected a multiple. Change one of "
                "the two."
            )

    def __call__(
        self,
        inputs: Float[Array, "B M C"],
        mask: Bool[Array, "B M"] | None = None,
        rng: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B N D"]:
        """Encodes a byte array.

        Args:
          inputs: the byte array.
          mask: True where an input is real.
          rng: one key an example for dropout; None turns it off.

        Returns:
          The final latents.
        """
        inputs = tokens.blank(inputs, mask)  # Once for all cross-attends.
        latents = hk.get_parameter(
            "latents",
            [self.num_latents, self.latent_channels],
            init=hk.initializers.TruncatedNormal(self.latent_init_scale),
        )
        latents = latents.astype(inputs.dtype)
        latents = jnp.broadcast_to(latents[None], (inputs.shape[0], *latents.shape))
        weights = {name: self._weights(name, inputs.shape[-1]) for name in self.layers}
        input_scale = attention.inverse_deviation(inputs)
        step = functools.partial(self._layer, inputs=inputs, mask=mask, input_scale=input_scale)
        rng = rng if self.dropout_rate else None

        if not self.scan:
            for index, name in enumerate(self.layers):
                rng_here = attention.fold_in(rng, index)
                latents = step(layers.kind(name), weights[name], latents, rng_here, scanned=False)
            return latents

        index = 0
        for run in layers.find_runs(self.layers):
            latents = _run(step, run, weights, latents, rng, index)
            index += run.num_layers
        return latents

    @hk.name_like("__call__")
    def _weights(self, name, input_channels):
        """The parameters behind a layer's name; of a latent Transformer, one set a self-attend."""
        if layers.kind(name) == layers.CROSS_ATTEND:
            block = attention.CrossAttention(self.num_cross_attend_heads, name=name)
            return block.parameters(self.latent_channels, input_channels)
        with hk.name_scope(name):
            return [
                attention.SelfAttention(
                    self.num_self_attend_heads, name=f"self_attend_{i}"
                ).parameters(self.latent_channels)
                for i in range(self.num_self_attends)
            ]

    def _layer(self, kind, params, latents, rng, scanned, *, inputs, mask, input_scale):
        """Applies a cross-attend, or all self-attends of a latent Transformer."""
        remat = _remat(self.remat, scanned)
        if kind == layers.CROSS_ATTEND:
            attend = remat(
                functools.partial(
                    attention.cross_attend,
                    num_heads=self.num_cross_attend_heads,
                    streaming=self.streaming,
                    chunk_size=self.chunk_size,
                    dropout_rate=self.dropout_rate,
                )
            )
            return attend(params, latents, inputs, mask, input_scale, rng=rng)

        attend = remat(
            functools.partial(
                attention.self_attend,
                num_heads=self.num_self_attend_heads,
                streaming=self.streaming,
                dropout_rate=self.dropout_rate,
            )
        )

        # No scan: to stack the weights and their gradients takes more time and memory.
        for index, block in enumerate(params):
            latents = attend(block, latents, rng=attention.fold_in(rng, index))
        return latents


def _run(step, run, weights, latents, rng, first_index):
    """Applies a run of layers, under a scan if it has several repeats."""
    # None marks weights that all repeats share; the others are scanned over.
    stacked = tuple(
        None if len(set(names)) == 1 else _stack([weights[name] for name in names])
        for names in run.pattern
    )

    def repeat(latents, xs):
        index, own = xs
        for names, params in zip(run.pattern, own, strict=True):
            params = weights[names[0]] if params is None else params
            rng_here = attention.fold_in(rng, index)
            latents = step(
                layers.kind(names[0]), params, latents, rng_here, scanned=run.repeats > 1
            )
            index += 1
        return latents, None

    if run.repeats == 1:
        return repeat(latents, (first_index, stacked))[0]
    indices = first_index + len(run.pattern) * jnp.arange(run.repeats)
    return jax.lax.scan(repeat, latents, (indices, stacked))[0]


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
