"""What cross-attends read: the tokens of all inputs fused, of one input, or of a part of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from perceiver_jax import attention_maps, checks, config, layers, padded, position_encoding, tokens

Arrays = Mapping[str, jax.Array]


class Inputs(NamedTuple):
    """The inputs of a model.

    Attributes:
      preprocess: the preprocessor of each, by name.
      join: what joins several (`MultimodalPreprocessor`); None if nothing does.
    """

    preprocess: Mapping[str, Callable[..., tokens.Tokens]]
    join: Any = None

    def take(self, batch: Mapping[str, Any]) -> tuple[Arrays, Arrays]:
        """Takes arrays and masks out of a batch, checked; see `checks.read_inputs`."""
        axes = {name: getattr(child, "axes", "B ...") for name, child in self.preprocess.items()}
        arrays, masks = checks.read_inputs(batch, axes)
        for name, mask in masks.items():
            if mask.ndim == 1:  # A preprocessor with weights must not meet what is missing, either.
                arrays[name] = tokens.blank(arrays[name], mask)
        return arrays, masks

    def embed(
        self,
        arrays: Arrays,
        masks: Arrays,
        rng: jax.Array | None,
        sources: Sequence[str],
        num_parts: int,
    ) -> dict[str, tokens.Tokens | padded.Fused]:
        """Returns the tokens of each source, `[B, M, C]`, or of T parts `[T, B, M, C]`.

        A part is embedded as if it were all there is: its positions are those that it has when a
        stream is read part by part.

        Args:
          arrays: of `take`.
          masks: of `take`.
          rng: one key an example; None turns modality dropout off.
          sources: see `layers.Layer`.
          num_parts: T, into which those sources are cut that end in '[]'.
        """
        whole = [source for source in sources if not source.endswith("[]")]
        in_parts = [source.removesuffix("[]") for source in sources if source.endswith("[]")]
        found = self._embed(arrays, masks, rng, whole) if whole else {}
        if in_parts:
            self._check_positions(whole, in_parts)
            names = self._needed(in_parts)
            arrays = {name: _cut(f"Input {name!r}", arrays[name], num_parts) for name in names}
            masks = {name: mask for name, mask in masks.items() if name in names}
            masks = {
                name: jnp.repeat(x, num_parts)
                if x.ndim == 1
                else _cut(f"{name}_mask", x, num_parts)
                for name, x in masks.items()
            }
            # Equal keys: a modality is dropped from all parts or from none.
            rng = None if rng is None else jnp.repeat(rng, num_parts)
            try:
                parts = self._embed(arrays, masks, rng, in_parts)
            except config.UserError as error:
                raise config.UserError(f"Of each of {num_parts} parts: {error}") from error
            for name, x in parts.items():
                found[f"{name}[]"] = _parts_first(x, num_parts)
        return found

    def on_grids(
        self,
        layer: layers.Layer,
        arrays: Arrays,
        num_parts: int,
        found: attention_maps.AttentionMap,
    ) -> dict[str, attention_maps.AttentionMap]:
        """Divides the map of a cross-attend by input, each over its own grid."""
        source = layer.source.removesuffix("[]")
        maps, start = {}, 0
        for name in [source] if source in self.preprocess else sorted(self.preprocess):
            child, shape = self.preprocess[name], list(arrays[name].shape[1:])
            if layer.source.endswith("[]"):
                shape[0] //= num_parts
            grid = child.grid(shape) if hasattr(child, "grid") else (shape[0],)
            stop = start + int(np.prod(grid))
            maps[name] = {k: _on_grid(child, x[..., start:stop], grid) for k, x in found.items()}
            start = stop
        return maps

    def _needed(self, wanted):
        """The inputs that sources are made of."""
        return sorted(self.preprocess) if layers.ALL in wanted else wanted

    def _check_positions(self, whole, in_parts):
        for name in set(self._needed(whole)) & set(self._needed(in_parts)):
            encoding = getattr(self.preprocess[name], "position_encoding", None)
            if isinstance(encoding, position_encoding.LearnedEncoding):
                raise config.UserError(
                    f"Input {name!r} is read whole and in parts, and learns its positions, which "
                    "are other ones in a part; expected one of the two. Set a position_encoding of "
                    "kind 'fourier', or read it in one way."
                )

    def _embed(self, arrays, masks, rng, wanted):
        arrays = {name: arrays[name] for name in self._needed(wanted)}
        if self.join is not None:
            found = self.join.separate(arrays, masks, rng)
            if layers.ALL in wanted:
                found[layers.ALL] = self.join.fuse(found, rng)
        else:
            found = {
                name: child(arrays[name], masks.get(name))
                for name, child in self.preprocess.items()
                if name in arrays
            }
            if len(self.preprocess) == 1:
                (found[layers.ALL],) = found.values()
        return {name: found[name] for name in wanted}


def check(
    resolved: Sequence[layers.Layer], inputs: Sequence[str], fusion: Mapping[str, Any] | None
) -> list[str]:
    """Checks what cross-attends read beside the inputs that there are.

    Args:
      resolved: layers of the encoder.
      inputs: names of `config.model.inputs`.
      fusion: `config.model.fusion`.

    Returns:
      The sources by name, in a fixed order.

    Raises:
      config.UserError: if they don't fit each other.
    """
    sources = sorted({layer.source for layer in resolved if layer.is_cross_attend})
    names = {source.removesuffix("[]") for source in sources}
    if layers.ALL in inputs and len(inputs) > 1:
        raise config.UserError(
            "config.model.inputs has the name 'all', which config.model.encoder.reads has for all "
            "inputs together. Rename it."
        )
    for name in sorted(names):
        config.check_known("input in config.model.encoder.reads", name, [layers.ALL, *inputs])
    unread = sorted(set(inputs) - names)
    if layers.ALL not in names and unread:
        raise config.UserError(
            f"config.model.encoder.reads has neither {unread[0]!r} nor 'all'; expected each of "
            "config.model.inputs to be read. Add it, or remove the input."
        )
    if len(inputs) > 1 and fusion is None and layers.ALL in names:
        raise config.UserError(
            f"{len(inputs)} inputs ({', '.join(sorted(inputs))}) and no config.model.fusion; set "
            "its modality_channels and dropout_rates."
        )
    if len(inputs) == 1 and fusion is not None:
        raise config.UserError(
            f"config.model.fusion is set for one input ({inputs[0]}); it joins several. Remove it."
        )
    if fusion is not None and layers.ALL not in names:
        for key in ("modality_channels", "mask_rates"):
            if fusion.get(key):
                raise config.UserError(
                    f"config.model.fusion.{key} is {fusion[key]}, but no cross-attend reads all "
                    "inputs together, which it is for. Remove it."
                )
    return sources


def _cut(what, x, num_parts):
    """Cuts `[B, n, ...]` along its first axis: `[B * T, n / T, ...]`."""
    if x.shape[1] % num_parts:
        raise config.UserError(
            f"{what} has shape {x.shape}; expected a multiple of {num_parts} along the axis after "
            "that of the examples, for the encoder reads it in so many parts. Cut or pad it."
        )
    return x.reshape(-1, x.shape[1] // num_parts, *x.shape[2:])


def _parts_first(found, num_parts):
    return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, num_parts, *x.shape[1:]), 0, 1), found)


def _on_grid(child, x, grid):
    x = child.in_order(x) if hasattr(child, "in_order") else x
    return x.reshape(*x.shape[:3], *grid)
