"""The functional API: a config becomes a pair of pure functions. `hk.transform` lives only here."""

from collections.abc import Callable, Mapping
import functools
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from perceiver_jax import (
    attention,
    construct,
    decoders,
    perceiver,
    position_encoding,
    preprocessors,
)
from perceiver_jax import tokens as tokens_lib

Params = Mapping[str, Mapping[str, jax.Array]]
Batch = Mapping[str, Any]
DTYPES = ("float32", "bfloat16", "float64")


class Model(NamedTuple):
    """A Perceiver as pure functions.

    Attributes:
      init: `init(rng, batch) -> params`; float32 parameters by module path and name.
      apply: `apply(params, rng, batch, is_training=False) -> logits`, float32 `[B, L]`. `rng` is
        None in evaluation; in training one key, or one key an example (`[B]`).
      tokens: `tokens(params, rng, batch, is_training=False) -> Tokens`, the byte array alone.
    """

    init: Callable[..., Params]
    apply: Callable[..., jax.Array]
    tokens: Callable[..., tokens_lib.Tokens]


def build_model(config: Mapping[str, Any]) -> Model:
    """Builds a Perceiver from a config's `model` section.

    Args:
      config: `num_classes`; `inputs`, by the name that a modality has in the batch, each with a
        `kind` and the attributes of its preprocessor; `encoder`, the attributes of
        `PerceiverEncoder`; and optionally `decoder` (`{'kind': 'mean_pool'}`), `fusion` (the
        attributes of `MultimodalPreprocessor`; for several inputs only) and `dtype` of the
        computation ('float32').

    Returns:
      Pure functions. A batch maps each input's name to an array, and optionally `<name>_mask` to
      True where the input (or an element of it) is real; other entries are ignored.

    Raises:
      ValueError: for an unknown key, kind or value.
    """
    return construct.construct(_build, config, "model")


def param_count(params: Mapping[str, Mapping[str, Any]]) -> int:
    """The number of parameters, given as arrays or as shapes."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def _build(num_classes, inputs, encoder, decoder=None, fusion=None, dtype="float32"):
    if dtype not in DTYPES:
        raise ValueError(f"Unknown model.dtype {dtype!r}; expected one of {list(DTYPES)}.")
    if not inputs:
        raise ValueError("model.inputs is empty; expected a preprocessor for each input by name.")
    if len(inputs) > 1 and fusion is None:
        raise ValueError(
            f"{len(inputs)} inputs ({', '.join(sorted(inputs))}) and no model.fusion; set its "
            "modality_channels and dropout_rates."
        )
    if len(inputs) == 1 and fusion is not None:
        raise ValueError(
            f"model.fusion is set for one input ({next(iter(inputs))}); it joins several. "
            "Remove it."
        )

    def tokens(batch, rng, is_training):
        rng = _keys(rng, _batch_size(batch, inputs)) if is_training else None
        children = {name: _preprocessor(name, keys) for name, keys in inputs.items()}
        arrays = {name: _entry(batch, name) for name in inputs}
        masks = {
            name: jnp.asarray(batch[f"{name}_mask"]) for name in inputs if f"{name}_mask" in batch
        }
        if fusion is not None:
            join = construct.construct(
                functools.partial(preprocessors.multimodal.MultimodalPreprocessor, name="inputs"),
                fusion,
                "model.fusion",
                preprocessors=children,
            )
            return join(arrays, masks, attention.fold_in(rng, 0))
        ((name, child),) = children.items()
        return child(arrays[name], masks.get(name))

    def logits(batch, rng, is_training, compute_dtype):
        values, mask = tokens(batch, rng, is_training)
        rng = _keys(rng, values.shape[0]) if is_training else None
        encode = construct.construct(
            functools.partial(perceiver.PerceiverEncoder, name="encoder"), encoder, "model.encoder"
        )
        decode = construct.from_table(
            decoders.DECODERS,
            decoder or {"kind": "mean_pool"},
            "model.decoder",
            num_classes=num_classes,
            name="decoder",
        )
        latents = encode(values.astype(compute_dtype), mask, attention.fold_in(rng, 1))
        return decode(latents)

    def apply(params, rng, batch, is_training=False):
        params = _cast(params, dtype)
        out = forward.apply(params, batch, rng, is_training, dtype)
        return out.astype(jnp.promote_types(dtype, jnp.float32))

    def init(rng, batch):
        return forward.init(rng, batch, None, False, jnp.float32)

    forward = hk.without_apply_rng(hk.transform(logits))
    encode_inputs = hk.without_apply_rng(hk.transform(tokens))
    return Model(
        init,
        apply,
        lambda params, rng, batch, is_training=False: encode_inputs.apply(
            params, batch, rng, is_training
        ),
    )


def _preprocessor(name, keys):
    keys = dict(keys)
    given = {"name": name}
    encoding = keys.pop("position_encoding", None)
    where = f"model.inputs.{name}"
    if encoding is not None:
        given["position_encoding"] = construct.from_table(
            position_encoding.ENCODINGS,
            encoding,
            f"{where}.position_encoding",
            name=f"{name}_position_encoding",
        )
    return construct.from_table(preprocessors.PREPROCESSORS, keys, where, **given)


def _entry(batch, name):
    if name not in batch:
        raise ValueError(
            f"The batch has no {name!r}; it has {sorted(batch)}. Give an array for each of "
            "model.inputs."
        )
    return jnp.asarray(batch[name])


def _batch_size(batch, inputs):
    return _entry(batch, next(iter(inputs))).shape[0]


def _keys(rng, batch_size):
    """One key an example."""
    if rng is None:
        raise ValueError("rng is None in training; expected a key, or one key an example.")
    if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key) and rng.ndim == 1:
        return rng
    return jax.random.split(rng, batch_size)


def _cast(params, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
