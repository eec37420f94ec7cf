"""The functional API: a config becomes a pair of pure functions. `hk.transform` lives only here."""

from collections.abc import Callable, Mapping
import contextlib
import copy
import numbers
import operator
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from perceiver_jax import attention, attention_maps, checks, layers, position_encoding
from perceiver_jax import config as config_lib
from perceiver_jax import encoder as encoder_lib
from perceiver_jax import inputs as inputs_lib
from perceiver_jax import outputs as outputs_lib
from perceiver_jax import reads as reads_lib
from perceiver_jax import tokens as tokens_lib

Params = Mapping[str, Mapping[str, jax.Array]]
Batch = Mapping[str, Any]
DTYPES = ("float32", "bfloat16", "float64")
# What is folded into an example's key for each use of it. Runs that are resumed depend on these
# numbers: they stay, and new uses count on from 2.
_MODALITY_DROPOUT, _ENCODER = 0, 1


Maps = list[dict[str, attention_maps.AttentionMap]]


class Model(NamedTuple):
    """A Perceiver as pure functions of the same parameters.

    All of them work under `jax.jit`, `vmap`, `grad` and `jax.export`. In evaluation, `rng` is None.

    Attributes:
      init: `init(rng, batch) -> params`; float32 parameters by module path and name.
      apply: `apply(params, rng, batch, is_training=False) -> outputs`, float32 arrays `[B, ...]` by
        the names of `model.outputs`. In training `rng` is one key, or one key an example (`[B]`).
      tokens: `tokens(params, rng, batch, is_training=False, reads='all') -> Tokens`, the byte array
        alone, or what else a cross-attend may read: 'video', 'all[2]'.
      latents: `latents(params, batch, pooled=False)`: the final latents, float32 `[B, N, D]`, or
        their mean `[B, D]`: an embedding of each example.
      attention_maps: `attention_maps(params, batch, indices)`: what the layers of these indices in
        `encoder.layers` attend to, one `{name: {'scores': ..., 'weights': ...}}` for each, before
        and after the softmax. Maps of cross-attends are by input, `[B, H, N, *X]` over the input's
        own grid (rows and columns of an image; frames, rows and columns of patches of a video;
        frames and bins of a spectrogram; patches of audio), or over that of the part that is read;
        the weights of all inputs of a cross-attend sum to one, and scores are -inf where a mask is
        False. Those of a latent Transformer are `[B, H, N, N]`, by 'self_attend_0' and so on.
      initial_latents: `initial_latents(params, batch_size) -> latents`, where a stream begins.
      step: `step(params, latents, part) -> latents`: an unrolled model, whose layers are the same
        for one part of its inputs after the other, reads the next one. `part` is a batch of one
        part's frames and samples. Over the parts of a clip this is what `apply` does; a stream may
        have any number of them.
      decode: `decode(params, latents) -> outputs`, what `apply` would return.
    """

    init: Callable[..., Params]
    apply: Callable[..., dict[str, jax.Array]]
    tokens: Callable[..., tokens_lib.Tokens]
    latents: Callable[..., jax.Array]
    attention_maps: Callable[..., Maps]
    initial_latents: Callable[..., jax.Array]
    step: Callable[..., jax.Array]
    decode: Callable[..., dict[str, jax.Array]]


def build_model(config: Mapping[str, Any]) -> Model:
    """Builds a Perceiver from a config's `model` section.

    Args:
      config: `inputs`, by the name that each has in the batch, with a `kind` (of `inputs.INPUTS`)
        and the attributes of its preprocessor; `encoder`, the attributes of `PerceiverEncoder`;
        `outputs`, by the name that each has in what `apply` returns, with a `kind` (of
        `outputs.OUTPUTS`) and the attributes of its decoder; and optionally `fusion` (the
        attributes of `MultimodalPreprocessor`; for several inputs only, and needed only where a
        cross-attend reads them all) and `dtype` of the computation ('float32').

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

    def modules():
        preprocess = {name: _Named(name, _input(name, keys)) for name, keys in inputs.items()}
        join = None
        if fusion is not None:
            join = config_lib.build(
                inputs_lib.multimodal.MultimodalPreprocessor,
                fusion,
                "config.model.fusion",
                preprocessors=preprocess,
                name="inputs",
            )
        encode = config_lib.build(
            encoder_lib.PerceiverEncoder, encoder, "config.model.encoder", name="encoder"
        )
        return _Modules(reads_lib.Inputs(preprocess, join), encode, _outputs(outputs))

    # Refuses now what the constructors refuse, not when traced.
    resolved = hk.transform(lambda: modules().encode.resolved).apply({}, None)
    sources = reads_lib.check(resolved, list(inputs), fusion)
    num_parts = layers.num_parts(resolved)

    def embed(made, batch, rng, is_training, sources=sources, num_parts=num_parts):
        """Returns the tokens of each source, and one key an example (None in evaluation)."""
        arrays, masks = made.inputs.take(batch)
        rng = _keys(rng, arrays[next(iter(inputs))].shape[0]) if is_training else None
        dropout_rng = attention.fold_in(rng, _MODALITY_DROPOUT)
        return made.inputs.embed(arrays, masks, dropout_rng, sources, num_parts), rng

    def tokens(batch, rng, is_training, reads):
        source, part = layers.parse_reads(reads)
        name, in_parts = source.removesuffix("[]"), source.endswith("[]")
        fused = [layers.ALL] if fusion is not None or len(inputs) == 1 else []
        config_lib.check_known("reads", name, [*inputs, *fused])
        if in_parts and part >= num_parts:
            allowed = (
                f"a part below {num_parts}" if num_parts else f"{name!r}, for nothing has parts"
            )
            raise config_lib.UserError(f"reads is {reads!r}; expected {allowed}. Change it.")
        found = embed(modules(), batch, rng, is_training, [source])[0][source]
        return jax.tree.map(lambda x: x[part], found) if in_parts else found

    def encode(made, batch, rng, is_training, compute_dtype):
        found, rng = embed(made, batch, rng, is_training)
        found = _with_dtype(found, compute_dtype)
        return made.encode(found, rng=attention.fold_in(rng, _ENCODER))

    def forward(batch, rng, is_training, compute_dtype):
        made = modules()
        return made.outputs(encode(made, batch, rng, is_training, compute_dtype))

    def embedding(batch, compute_dtype):
        return encode(modules(), batch, None, False, compute_dtype)

    def map_attention(batch, indices, compute_dtype):
        made = modules()
        found = _with_dtype(embed(made, batch, None, False)[0], compute_dtype)
        maps = made.encode.attention_maps(found, indices)
        arrays, _ = made.inputs.take(batch)
        for index in set(indices):
            if resolved[index].is_cross_attend:
                own = maps[index].pop(resolved[index].source)
                maps[index] = made.inputs.on_grids(resolved[index], arrays, num_parts, own)
        return [maps[index] for index in indices]

    def begin(batch_size, compute_dtype):
        return modules().encode.initial_latents(batch_size, compute_dtype)

    def read_part(latents, part, compute_dtype):
        made = modules()
        found = _with_dtype(embed(made, part, None, False, num_parts=1)[0], compute_dtype)
        size = next(iter(found.values())).values.shape[1]
        _check_latents(latents, (size, made.encode.num_latents, made.encode.latent_channels))
        return made.encode.update(latents.astype(compute_dtype), found, layers.find_step(resolved))

    def decode_latents(latents, compute_dtype):
        return modules().outputs(latents.astype(compute_dtype))

    run, run_tokens, run_embedding, run_maps, run_begin, run_step, run_decode = map(
        _transform,
        (forward, tokens, embedding, map_attention, begin, read_part, decode_latents),
    )
    wide = jnp.promote_types(dtype, jnp.float32)

    def apply(params, rng, batch, is_training=False):
        got = checks.shapes(params)
        used = set()
        params = _cast(params, dtype)
        with _explaining(got, batch, inputs, init):
            out = run.apply(params, used, batch, rng, is_training, dtype)
        checks.check_used(got, used)
        return jax.tree.map(lambda x: x.astype(wide), out)

    def init(rng, batch):
        return run.init(rng, set(), batch, None, False, jnp.float32)

    def encode_inputs(params, rng, batch, is_training=False, reads=layers.ALL):
        def init_tokens(rng, batch):
            return run_tokens.init(rng, set(), batch, None, False, reads)

        with _explaining(checks.shapes(params), batch, inputs, init_tokens):
            return run_tokens.apply(params, set(), batch, rng, is_training, reads)

    def latents(params, batch, pooled=False):
        with _explaining(checks.shapes(params), batch, inputs, init):
            found = run_embedding.apply(_cast(params, dtype), set(), batch, dtype).astype(wide)
        return found.mean(axis=1) if pooled else found

    def maps(params, batch, indices):
        known = range(len(resolved))
        try:
            given = [operator.index(index) for index in indices]
        except TypeError:  # Also of an array that is traced.
            given = []
        if not given or not set(given) <= set(known):
            raise config_lib.UserError(
                f"indices is {indices!r}; expected a list of layers, whole numbers from 0 to "
                f"{known[-1]}. Give one or several; under jit they are static."
            )
        with _explaining(checks.shapes(params), batch, inputs, init):
            return run_maps.apply(_cast(params, dtype), set(), batch, tuple(given), dtype)

    def initial_latents(params, batch_size):
        if isinstance(batch_size, numbers.Number):  # Else a symbol.
            config_lib.AT_LEAST_ONE.check("batch_size", batch_size, batch_size)
        checks.shapes(params)
        return run_begin.apply(_cast(params, dtype), set(), batch_size, dtype)

    def step(params, latents, part):
        layers.find_step(resolved)  # Before anything else refuses.

        def init_step(rng, part):
            return run_step.init(rng, set(), latents, part, jnp.float32)

        with _explaining(checks.shapes(params), part, inputs, init_step):
            return run_step.apply(_cast(params, dtype), set(), latents, part, dtype)

    def decode(params, latents):
        checks.shapes(params)
        _check_latents(latents, ("B", encoder["num_latents"], encoder["latent_channels"]))
        out = run_decode.apply(_cast(params, dtype), set(), latents, dtype)
        return jax.tree.map(lambda x: x.astype(wide), out)

    return Model(init, apply, encode_inputs, latents, maps, initial_latents, step, decode)


class _Modules(NamedTuple):
    """A model's modules. Their names are paths of parameters, which checkpoints hold."""

    inputs: reads_lib.Inputs
    encode: encoder_lib.PerceiverEncoder
    decode: dict[str, Callable]

    def outputs(self, latents):
        """What each of the decoders makes of the latents, by name."""
        return {name: decode(latents) for name, decode in self.decode.items()}


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


class _Named:
    """A preprocessor whose errors name its input."""

    def __init__(self, name, preprocess):
        self.name, self.preprocess = name, preprocess

    def __call__(self, array, mask):
        try:
            return self.preprocess(array, mask)
        except config_lib.UserError as error:
            message = f"Input {self.name!r} of shape {array.shape}: {error}"
            raise config_lib.UserError(message) from error

    def __getattr__(self, attribute):
        return getattr(self.preprocess, attribute)


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


def _with_dtype(found, dtype):
    """Tokens whose values have a dtype, by source."""
    return {name: x._replace(values=x.values.astype(dtype)) for name, x in found.items()}


def _check_latents(latents, expected):
    shape = getattr(latents, "shape", None)
    is_real = shape is not None and jnp.issubdtype(latents.dtype, jnp.floating)
    if (
        not is_real
        or len(shape) != 3
        or shape[1:] != expected[1:]
        or expected[0] not in ("B", shape[0])
    ):
        got = f"have shape {shape}" if is_real else f"are {type(latents).__name__}"
        raise config_lib.UserError(
            f"The latents {got}; expected floats of shape {expected}. Begin with "
            "initial_latents(params, batch_size)."
        )


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
