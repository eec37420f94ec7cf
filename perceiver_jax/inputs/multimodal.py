"""Several modalities, apart or as one byte array (section 4.2)."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from perceiver_jax import config, padded, tokens


@dataclasses.dataclass
class MultimodalPreprocessor(hk.Module):
    """Concatenates the inputs of all modalities, each with its learned modality embedding.

    The embedding fills every modality's inputs to the same number of channels: the widest one's
    plus `modality_channels`. It also tells the model which modality an input belongs to.

    Attributes:
      preprocessors: of each modality, by name; their order is that of the sorted names.
      modality_channels: channels of the widest modality's embedding; 4 in the paper.
      dropout_rates: probability that a training example's whole stream of a modality is set to
        zero, by name; 0.3 for video in the paper. Modalities not named are never dropped.
      mask_rates: probability that a modality is hidden from a training example: all its inputs are
        a learned mask token then, as many as before (Perceiver IO hides the label from half of
        them); by name. Those named have a token each.
      masked_in_evaluation: of those, the modalities that are hidden in evaluation.
    """

    preprocessors: Mapping[str, Callable[..., tokens.Tokens]]
    modality_channels: int = 4
    dropout_rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    mask_rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    masked_in_evaluation: Sequence[str] = ()
    name: str | None = None

    def __post_init__(self):
        """Checks numbers and names."""
        super().__post_init__()
        config.check(
            vars(self),
            modality_channels=config.AT_LEAST_ONE,
            dropout_rates=config.BELOW_ONE,
            mask_rates=config.FRACTION,
        )
        modalities = sorted(self.preprocessors)
        for key, known in (
            ("dropout_rates", modalities),
            ("mask_rates", modalities),
            ("masked_in_evaluation", sorted(self.mask_rates)),
        ):
            for name in getattr(self, key):
                if name not in known:
                    hint = config.did_you_mean(name, known) or " Correct it."
                    raise config.UserError(f"{key} names {name!r}; expected some of {known}.{hint}")

    def __call__(
        self,
        inputs: Mapping[str, Array],
        masks: Mapping[str, Array],
        rng: Key[Array, " B"] | None = None,
    ) -> tokens.Tokens:
        """Encodes each modality and joins them.

        Args:
          inputs: arrays by modality.
          masks: masks by modality, for those that have one.
          rng: one key an example; None turns modality dropout off.

        Returns:
          The inputs of all modalities.
        """
        fused = self.fuse(self.separate(inputs, masks, rng), rng)
        return tokens.Tokens(fused.values, fused.mask)

    @hk.name_like("__call__")
    def separate(
        self,
        inputs: Mapping[str, Array],
        masks: Mapping[str, Array],
        rng: Key[Array, " B"] | None = None,
    ) -> dict[str, tokens.Tokens]:
        """Encodes each of the given modalities, with its own channels; see `__call__`."""
        separate = {}
        for index, name in enumerate(sorted(self.preprocessors)):
            if name not in inputs:
                continue
            child = self.preprocessors[name](inputs[name], masks.get(name))
            kept = _drop_stream(child.values, self.dropout_rates.get(name, 0.0), rng, index)
            separate[name] = tokens.Tokens(kept, child.mask)
        return separate

    @hk.name_like("__call__")
    def fuse(
        self, children: Mapping[str, tokens.Tokens], rng: Key[Array, " B"] | None = None
    ) -> tokens.Tokens | padded.Fused:
        """Joins what `separate` returns, which got the same keys."""
        channels = self.modality_channels + max(c.values.shape[-1] for c in children.values())
        parts = [
            self._hide(name, self._embed(name, child, channels), rng)
            for name, child in children.items()
        ]
        return padded.fuse(parts)

    @hk.name_like("__call__")
    def _embed(self, name: str, child: tokens.Tokens, channels: int) -> padded.Part:
        batch_size, _, own = child.values.shape
        embedding = hk.get_parameter(
            f"{name}_embedding", [channels - own], init=hk.initializers.TruncatedNormal(0.02)
        )
        embedding = jnp.broadcast_to(embedding[None], (batch_size, *embedding.shape))
        return padded.Part(child.values, embedding.astype(child.values.dtype), child.mask)

    @hk.name_like("__call__")
    def _hide(self, name: str, part: padded.Part, rng: jax.Array | None) -> padded.Part:
        """Puts the mask token in the place of all inputs of an example, or of none."""
        if name not in self.mask_rates:
            return part
        values, padding, mask = part
        own, channels = values.shape[-1], values.shape[-1] + padding.shape[-1]
        token = hk.get_parameter(
            f"{name}_mask_token", [channels], init=hk.initializers.TruncatedNormal(0.02)
        )
        if rng is not None and self.mask_rates[name] == 0:
            return part  # And no gradient of its inputs is computed.
        if rng is None:
            # Not `jnp.full`: jax2onnx has one of its own, which takes no symbol of a batch size.
            is_hidden = jnp.array(name in self.masked_in_evaluation)
            hidden = jnp.broadcast_to(is_hidden, values.shape[:1])
        else:
            # Streams of `_drop_stream` are numbered from 0.
            index = len(self.preprocessors) + sorted(self.preprocessors).index(name)
            hidden = _draw(rng, index, self.mask_rates[name])
        token = token.astype(values.dtype)
        values = jnp.where(hidden[:, None, None], jnp.expand_dims(token[:own], (0, 1)), values)
        return padded.Part(values, jnp.where(hidden[:, None], token[None, own:], padding), mask)


def _draw(rng: jax.Array, index: int, rate: float) -> jax.Array:
    """One truth value an example, from its stream of that number."""
    return jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, index), rate))(rng)


def _drop_stream(values: jax.Array, rate: float, rng: jax.Array | None, index: int) -> jax.Array:
    """Sets a modality's inputs to zero in each example with the given probability."""
    if rate == 0 or rng is None:
        return values
    keep = _draw(rng, index, 1 - rate)
    return jnp.where(keep[:, None, None], values, 0)
