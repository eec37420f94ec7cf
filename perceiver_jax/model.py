"""The functional API: a config becomes a pair of pure functions. `hk.transform` lives only here."""

from collections.abc import Callable, Mapping
import contextlib
import copy
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from perceiver_jax import attention, checks, position_encoding
from perceiver_jax import config as config_lib
from perceiver_jax import encoder as encoder_lib
from perceiver_jax import inputs as inputs_lib
from perceiver_jax import outputs as outputs_lib
from perceiver_jax import tokens as tokens_lib

Params = Mapping[str, Mapping[str, jax.Array]]
Batch = Mapping[str, Any]
DTYPES = ("float32", "bfloat16", "float64")
# What is folded into an example's key for each use of it. Runs that are resumed depend on these
# numbers: they stay, and new uses count on from 2.
_MODALITY_DROPOUT, _ENCODER = 0, 1


class Model(NamedTuple):
    """A Perceiver as pure functions.

    Attributes:
      init: `init(rng, batch) -> params`; float32 parameters by module path and name.
      apply: `apply(params, rng, batch, is_training=False) -> outputs`, float32 arrays `[B, ...]` by
        the names of `model.outputs`. `rng` is None in evaluation; in training one key, or one key
        an example (`[B]`).
      tokens: `tokens(params, rng, batch, is_training=False) -> Tokens`, the byte array alone.
    """

    init: Callable[..., Params]
    apply: Callable[..., dict[str, jax.Array]]
    tokens: Callable[..., tokens_lib.Tokens]


def build_model(config: Mapping[str, Any]) -> Model:
    """Builds a Perceiver from a config's `model` section.

    Args:
      config: `inputs`, by the name that each has in the batch, with a `kind` (of `inputs.INPUTS`)
        and the attributes of its preprocessor; `encoder`, the attributes of `PerceiverEncoder`;
        `outputs`, by the name that each has in what `apply` returns, with a `kind` (of
        `outputs.OUTPUTS`) and the attributes of its decoder; and optionally `fusion` (the
        attributes of `MultimodalPreprocessor`; for several inputs only) and `dtype` of the
        computation ('float32').

    Returns:
      Pure functions. A batch maps each input's name to an array, and optionally `<name>_mask` to
      booleans, True where the input (or an element of it) is real; what is masked may be anything,
      NaN as well. Other entries are ignored. What does not fit the model or the parameters raises
      a ValueError.

    Raises:
      config.UserError: for an unknown key, kind or value.
    """
    # A copy: modules are made anew whenever a function is traced, of the config as it is now.
    return config_lib.build(_build, copy.deepcopy(config), "config.model")


def param_count(params: Mapping[str, Mapping[str, Any]]) -> int:
    """The number of parameters, given as arrays or as shapes."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def _build(inputs, outputs, encoder, fusion=None, dtype="float32"):
    config_lib.check_known("dtype", dtype, DTYPES)
    for section, keys in (("inputs", inputs), ("outputs", outputs)):
        if not hasattr(keys, "items") or not keys:
            raise config_lib.UserError(
                f"config.model.{section} is {'empty' if keys in ({}, None) else repr(keys)}; "
                "expected at least one, by name. Give {'name': {'kind': ...}}."
            )
        # They become parts of parameters' names; that of a single output doesn't.
        for name in keys:
            is_word = isinstance(name, str) and name.isidentifier()
            if not is_word and not (isinstance(name, str) and keys is outputs and len(keys) == 1):
                raise config_lib.UserError(
                    f"config.model.{section} has the name {name!r}; expected a word of letters, "
                    "digits and _. Rename it."
                )
    if len(inputs) > 1 and fusion is None:
        raise config_lib.UserError(
            f"{len(inputs)} inputs ({', '.join(sorted(inputs))}) and no config.model.fusion; set "
            "its modality_channels and dropout_rates."
        )
    if len(inputs) == 1 and fusion is not None:
        raise config_lib.UserError(
            f"config.model.fusion is set for one input ({next(iter(inputs))}); it joins several. "
            "Remove it."
        )

    def modules():
        preprocess = {name: _input(name, keys) for name, keys in inputs.items()}
        join = None
        if fusion is not None:
            join = config_lib.build(
                inputs_lib.multimodal.MultimodalPreprocessor,
                fusion,
                "config.model.fusion",
                preprocessors={name: _naming(name, child) for name, child in preprocess.items()},
                name="inputs",
            )
        encode = config_lib.build(
            encoder_lib.PerceiverEncoder, encoder, "config.model.encoder", name="encoder"
        )
        return _Modules(preprocess, join, encode, _outputs(outputs))

    def embed(made, batch, rng, is_training):
        """Returns the byte array, and one key an example (None in evaluation)."""
        axes = {name: getattr(child, "axes", "B ...") for name, child in made.preprocess.items()}
        arrays, masks = checks.read_inputs(batch, axes)
        rng = _keys(rng, arrays[next(iter(inputs))].shape[0]) if is_training else None
        for name, mask in masks.items():
            if mask.ndim == 1:  # A preprocessor with weights must not meet what is missing, either.
                arrays[name] = tokens_lib.blank(arrays[name], mask)
        if made.join is not None:
            return made.join(arrays, masks, attention.fold_in(rng, _MODALITY_DROPOUT)), rng
        ((name, child),) = made.preprocess.items()
        return _naming(name, child)(arrays[name], masks.get(name)), rng

    def tokens(batch, rng, is_training):
        return embed(modules(), batch, rng, is_training)[0]

    def forward(batch, rng, is_training, compute_dtype):
        made = modules()
        (values, mask), rng = embed(made, batch, rng, is_training)
        latents = made.encode(values.astype(compute_dtype), mask, attention.fold_in(rng, _ENCODER))
        return {name: decode(latents) for name, decode in made.decode.items()}

    hk.transform(modules).init(None)  # Refuses now what the constructors refuse, not when traced.
    apply_forward, apply_tokens = _transform(forward), _transform(tokens)

    def apply(params, rng, batch, is_training=False):
        got = checks.shapes(params)
        used = set()
        params = _cast(params, dtype)
        with _explaining(got, batch, inputs, init):
            out = apply_forward.apply(params, used, batch, rng, is_training, dtype)
        checks.check_used(got, used)
        wide = jnp.promote_types(dtype, jnp.float32)
        return jax.tree.map(lambda x: x.astype(wide), out)

    def init(rng, batch):
        return apply_forward.init(rng, set(), batch, None, False, jnp.float32)

    def encode_inputs(params, rng, batch, is_training=False):
        with _explaining(checks.shapes(params), batch, inputs, init_tokens):
            return apply_tokens.apply(params, set(), batch, rng, is_training)

    def init_tokens(rng, batch):
        return apply_tokens.init(rng, set(), batch, None, False)

    return Model(init, apply, encode_inputs)


class _Modules(NamedTuple):
    """A model's modules. Their names are paths of parameters, which checkpoints hold."""

    preprocess: dict[str, Callable]
    join: Callable | None
    encode: Callable
    decode: dict[str, Callable]


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
        raise config_lib.UserError(message) from None


def _naming(name, preprocess):
    """Lets the errors of a preprocessor name its input."""

    def named(array, mask):
        try:
            return preprocess(array, mask)
        except config_lib.UserError as error:
            raise config_lib.UserError(f"Input {name!r} of shape {array.shape}: {error}") from error

    return named


def _input(name, keys):
    given = {"name": name}
    where = f"config.model.inputs.{name}"
    encoding = None
    if hasattr(keys, "items"):
        keys = dict(keys)
        encoding = keys.pop("position_encoding", None)
    if encoding is not None:
        given["position_encoding"] = config_lib.build_from_table(
            position_encoding.ENCODINGS,
            encoding,
            f"{where}.position_encoding",
            name=f"{name}_position_encoding",
        )
    return config_lib.build_from_table(inputs_lib.INPUTS, keys, where, **given)


def _outputs(outputs):
    """The decoders by name; a single one is called 'decoder', of several each is a part of it."""
    if len(outputs) == 1:
        ((name, keys),) = outputs.items()
        return {name: _output(name, keys, "decoder")}
    with hk.name_scope("decoder"):
        return {name: _output(name, keys, name) for name, keys in outputs.items()}


def _output(name, keys, module_name):
    where = f"config.model.outputs.{name}"
    return config_lib.build_from_table(outputs_lib.OUTPUTS, keys, where, name=module_name)


def _keys(rng, batch_size):
    """One key an example."""
    if rng is None:
        raise config_lib.UserError(
            "rng is None in training; expected a key, or one key an example."
        )
    if not hasattr(rng, "dtype"):
        raise config_lib.UserError(f"rng is {rng!r}; expected a key, such as jax.random.key(0).")
    if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key) and rng.ndim == 1:
        if rng.shape[0] != batch_size:
            raise config_lib.UserError(
                f"rng has {rng.shape[0]} keys for {batch_size} examples; expected one key, or one "
                "an example."
            )
        return rng
    return jax.random.split(rng, batch_size)


def _cast(params, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
