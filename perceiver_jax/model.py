"""The functional API: a config becomes a pair of pure functions. `hk.transform` lives only here."""

from collections.abc import Callable, Mapping
import contextlib
import functools
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from perceiver_jax import (
    attention,
    checks,
    decoders,
    position_encoding,
)
from perceiver_jax import config as config_lib
from perceiver_jax import encoder as encoder_lib
from perceiver_jax import inputs as inputs_lib
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
      booleans, True where the input (or an element of it) is real; what is masked may be anything,
      NaN as well. Other entries are ignored. What does not fit the model or the parameters raises
      a ValueError.

    Raises:
      ValueError: for an unknown key, kind or value.
    """
    return config_lib.build(_build, config, "model")


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
        children = {name: _preprocessor(name, keys) for name, keys in inputs.items()}
        arrays, masks = checks.read_inputs(
            batch, {name: getattr(child, "axes", "B ...") for name, child in children.items()}
        )
        rng = _keys(rng, arrays[next(iter(inputs))].shape[0]) if is_training else None
        for name, mask in masks.items():
            if mask.ndim == 1:  # A preprocessor with weights must not meet what is missing, either.
                arrays[name] = tokens_lib.blank(arrays[name], mask)
        children = {name: _naming(name, child) for name, child in children.items()}
        if fusion is not None:
            join = config_lib.build(
                inputs_lib.multimodal.MultimodalPreprocessor,
                fusion,
                "model.fusion",
                preprocessors=children,
                name="inputs",
            )
            return join(arrays, masks, attention.fold_in(rng, 0))
        ((name, child),) = children.items()
        return child(arrays[name], masks.get(name))

    def logits(batch, rng, is_training, compute_dtype):
        values, mask = tokens(batch, rng, is_training)
        rng = _keys(rng, values.shape[0]) if is_training else None
        encode = config_lib.build(
            functools.partial(encoder_lib.PerceiverEncoder, name="encoder"),
            encoder,
            "model.encoder",
        )
        decode = config_lib.build_from_table(
            decoders.DECODERS,
            decoder or {"kind": "mean_pool"},
            "model.decoder",
            num_classes=num_classes,
            name="decoder",
        )
        latents = encode(values.astype(compute_dtype), mask, attention.fold_in(rng, 1))
        return decode(latents)

    def apply(params, rng, batch, is_training=False):
        got = checks.shapes(params)
        used = set()
        params = _cast(params, dtype)
        with _explaining(got, batch, inputs, init):
            out = forward.apply(params, used, batch, rng, is_training, dtype)
        checks.check_used(got, used)
        return out.astype(jnp.promote_types(dtype, jnp.float32))

    def init(rng, batch):
        return forward.init(rng, set(), batch, None, False, jnp.float32)

    def apply_tokens(params, rng, batch, is_training=False):
        with _explaining(checks.shapes(params), batch, inputs, init_tokens):
            return encode_inputs.apply(params, set(), batch, rng, is_training)

    def init_tokens(rng, batch):
        return encode_inputs.init(rng, set(), batch, None, False)

    forward, encode_inputs = _transform(logits), _transform(tokens)
    return Model(init, apply, apply_tokens)


def _transform(function):
    """Makes a pair of pure functions, whose first argument collects the parameters' paths."""

    def call(used, *args):
        def note(next_getter, value, context):
            used.add(context.full_name)
            return next_getter(value)

        with hk.custom_getter(note):
            return function(*args)

    return hk.without_apply_rng(hk.transform(call))


@contextlib.contextmanager
def _explaining(got, batch, inputs, init):
    """Says in our words where parameters don't fit a batch: Haiku knows only the parameter."""
    try:
        yield
    except ValueError as error:
        try:
            params = jax.eval_shape(lambda: init(jax.random.key(0), batch))
        except ValueError:
            raise error from None  # The batch fits no parameters.
        given = {name: np.shape(batch[name]) for name in inputs}
        message = checks.mismatch(got, checks.shapes(params), given)
        if message is None:
            raise
        raise ValueError(message) from None


def _naming(name, preprocess):
    """Lets the errors of a preprocessor name its input."""

    def named(array, mask):
        try:
            return preprocess(array, mask)
        except ValueError as error:
            raise ValueError(f"Input {name!r} of shape {array.shape}: {error}") from error

    return named


def _preprocessor(name, keys):
    keys = dict(keys)
    given = {"name": name}
    encoding = keys.pop("position_encoding", None)
    where = f"model.inputs.{name}"
    if encoding is not None:
        given["position_encoding"] = config_lib.build_from_table(
            position_encoding.ENCODINGS,
            encoding,
            f"{where}.position_encoding",
            name=f"{name}_position_encoding",
        )
    return config_lib.build_from_table(inputs_lib.INPUTS, keys, where, **given)


def _keys(rng, batch_size):
    """One key an example."""
    if rng is None:
        raise ValueError("rng is None in training; expected a key, or one key an example.")
    if not hasattr(rng, "dtype"):
        raise ValueError(f"rng is {rng!r}; expected a key, such as jax.random.key(0).")
    if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key) and rng.ndim == 1:
        if rng.shape[0] != batch_size:
            raise ValueError(
                f"rng has {rng.shape[0]} keys for {batch_size} examples; expected one key, or one "
                "an example."
            )
        return rng
    return jax.random.split(rng, batch_size)


def _cast(params, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
