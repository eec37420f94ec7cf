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

from perceiver_jax import attention, attention_maps, baselines, batch_norm, checks, dropout, layers
from perceiver_jax import config as config_lib
from perceiver_jax import modules as modules_lib
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
      attention_maps: `attention_maps(params, batch, indices, latents=None)`: what the layers of
        these indices in `encoder.layers` attend to, one `{name: {'scores': ..., 'weights': ...}}`
        for each, before and after the softmax. Maps of cross-attends are by input, `[B, H, N, *X]`
        over the input's own grid (rows and columns of an image; frames, rows and columns of
        patches of a video; frames and bins of a spectrogram; patches of audio), or over that of
        the part that is read; the weights of all inputs of a cross-attend sum to one, and scores
        are -inf where a mask is False. Those of a latent Transformer are `[B, H, N, N]`, by
        'self_attend_0' and so on. Of given latents, a list of their numbers, N counts these alone,
        and no memory is taken for the others.
      initial_latents: `initial_latents(params, batch_size) -> latents`, where a stream begins.
      step: `step(params, latents, part) -> latents`: an unrolled model, whose layers are the same
        for one part of its inputs after the other, reads the next one. `part` is a batch of one
        part's frames and samples. Over the parts of a clip this is what `apply` does; a stream may
        have any number of them.
      decode: `decode(params, latents, batch=None) -> outputs`, what `apply` would return. Outputs
        whose queries come from an input, such as optical flow, need the batch.
      apply_training: `apply_training(params, rng, batch, axis_name=None, frozen=()) ->
        (outputs, averages)`: `apply` in training, and the new moving averages of batch norms, which
        take the place of those in the parameters; `{}` without batch norm. Over a mapped axis of
        that name, batch norms see all of the batch. Those whose averages are among the frozen
        parameters, given by their paths, normalise by them, as in evaluation.

    A batch may have `<output>_indices`, [B, O] or [O]: which elements of a grid, counted along its
    last axis first, are to be decoded; the output is then [B, O, F].
    """

    init: Callable[..., Params]
    apply: Callable[..., dict[str, jax.Array]]
    tokens: Callable[..., tokens_lib.Tokens]
    latents: Callable[..., jax.Array]
    attention_maps: Callable[..., Maps]
    initial_latents: Callable[..., jax.Array]
    step: Callable[..., jax.Array]
    decode: Callable[..., dict[str, jax.Array]]
    apply_training: Callable[..., tuple[dict[str, jax.Array], Params]]


def build_model(config: Mapping[str, Any]) -> Model:
    """Builds a Perceiver from a config's `model` section.

    Args:
      config: `inputs`, by the name that each has in the batch, with a `kind` (of `inputs.INPUTS`)
        and the attributes of its preprocessor; `encoder`, the attributes of `PerceiverEncoder`, or
        a `kind` of `baselines.BASELINES` and its attributes: then `attention_maps`,
        `initial_latents`, `step` and `decode` are refused;
        `outputs`, by the name that each has in what `apply` returns, with a `kind` (of
        `outputs.OUTPUTS`) and the attributes of its decoder; and optionally `fusion` (the
        attributes of `MultimodalPreprocessor`; for several inputs only, and needed only where a
        cross-attend reads them all), `decoder` (the attributes of `SharedDecoder`, one for all
        outputs instead of one each), `dtype` of the computation ('float32') and `gelu` ('tanh' or
        'exact', see `attention.mlp`).

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
    """The number of learned parameters, given as arrays or as shapes.

    The moving averages of batch norms, `mean` and `variance`, are not learned.
    """
    return sum(
        int(np.prod(leaf.shape))
        for leaves in params.values()
        for name, leaf in leaves.items()
        if name not in batch_norm.AVERAGES
    )


def _build(inputs, outputs, encoder, fusion=None, decoder=None, dtype="float32", gelu="tanh"):
    config_lib.check_known("dtype", dtype, DTYPES)
    config_lib.check_known("gelu", gelu, attention.GELUS)
    modules_lib.check_names(inputs, outputs)

    def modules():
        return modules_lib.build_modules(inputs, outputs, encoder, fusion, decoder, gelu)

    # Refuses now what the constructors refuse, not when traced.
    resolved, read_by = hk.transform(lambda: modules().describe()).apply({}, None)
    sources = reads_lib.check(resolved, list(inputs), fusion)
    num_parts = layers.num_parts(resolved)
    for name, source in read_by.items():
        config_lib.check_known(f"config.model.outputs.{name}.reads", source, inputs)
    reads = sorted(set(read_by.values()) - set(sources))  # By outputs alone.

    def embed(made, batch, rng, is_training, sources=sources, num_parts=num_parts):
        """Returns the tokens of each source, and one key an example (None in evaluation)."""
        arrays, masks = made.inputs.take(batch)
        rng = _keys(rng, arrays[next(iter(inputs))].shape[0]) if is_training else None
        dropout_rng = dropout.fold_in(rng, _MODALITY_DROPOUT)
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
        with batch_norm.training() if is_training else contextlib.nullcontext():
            found = embed(modules(), batch, rng, is_training, [source])[0][source]
        found = tokens_lib.Tokens(found.values, found.mask)  # Without what they were made of.
        return jax.tree.map(lambda x: x[part], found) if in_parts else found

    def encode(made, batch, rng, is_training, compute_dtype, others=()):
        """Returns the latents, and the tokens of the encoder's and other sources."""
        found, rng = embed(made, batch, rng, is_training, [*sources, *others])
        found = _with_dtype(found, compute_dtype)
        own = {name: found[name] for name in sources}
        return made.encode(own, rng=dropout.fold_in(rng, _ENCODER)), found

    def forward(batch, rng, is_training, compute_dtype, axis_name=None, frozen=()):
        made = modules()
        training = batch_norm.training(axis_name, frozen)
        with training if is_training else contextlib.nullcontext():
            latents, found = encode(made, batch, rng, is_training, compute_dtype, reads)
        return made.outputs(latents, batch, found)

    def embedding(batch, compute_dtype):
        return encode(modules(), batch, None, False, compute_dtype)[0]

    def map_attention(batch, indices, chosen, compute_dtype):
        made = modules()
        found = _with_dtype(embed(made, batch, None, False)[0], compute_dtype)
        maps = made.encode.attention_maps(found, indices, chosen)
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

    def decode_latents(latents, batch, compute_dtype):
        made = modules()
        if reads and batch is None:
            raise config_lib.UserError(
                f"batch is None; expected {reads}, which outputs are decoded from. Give the batch "
                "that the latents are of."
            )
        found = embed(made, batch, None, False, reads)[0] if reads else {}
        found = _with_dtype(found, compute_dtype)
        return made.outputs(latents.astype(compute_dtype), batch, found)

    run, run_tokens, run_embedding, run_maps, run_begin, run_step, run_decode = map(
        _transform,
        (forward, tokens, embedding, map_attention, begin, read_part, decode_latents),
    )
    wide = jnp.promote_types(dtype, jnp.float32)

    def apply_with_state(params, rng, batch, is_training, axis_name=None, frozen=()):
        got = checks.shapes(params)
        used = set()
        params = _cast(params, dtype)
        with _explaining(got, batch, inputs, init):
            out, state = run.apply_with_state(
                params, used, batch, rng, is_training, dtype, axis_name, frozen
            )
        checks.check_used(got, used)
        return jax.tree.map(lambda x: x.astype(wide), out), state

    def apply(params, rng, batch, is_training=False):
        return apply_with_state(params, rng, batch, is_training)[0]

    def apply_training(params, rng, batch, axis_name=None, frozen=()):
        return apply_with_state(params, rng, batch, True, axis_name, frozen)

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

    def maps(params, batch, indices, latents=None):
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
        chosen = None if latents is None else _check_chosen(latents, encoder["num_latents"])
        with _explaining(checks.shapes(params), batch, inputs, init):
            return run_maps.apply(_cast(params, dtype), set(), batch, tuple(given), chosen, dtype)

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

    def decode(params, latents, batch=None):
        checks.shapes(params)
        _check_latents(latents, ("B", encoder["num_latents"], encoder["latent_channels"]))
        out = run_decode.apply(_cast(params, dtype), set(), latents, batch, dtype)
        return jax.tree.map(lambda x: x.astype(wide), out)

    model = Model(
        init, apply, encode_inputs, latents, maps, initial_latents, step, decode, apply_training
    )
    if "kind" in encoder:
        names = ("attention_maps", "initial_latents", "step", "decode")
        model = model._replace(**{name: baselines.refusing(encoder, name) for name in names})
    return model


class _Pure(NamedTuple):
    """Pure functions, whose first argument after rng or parameters collects parameters' paths."""

    init: Callable
    apply: Callable
    apply_with_state: Callable


def _transform(function):
    def call(used, *args):
        def note(next_getter, value, context):
            used.add(context.full_name)
            return next_getter(value)

        with hk.custom_getter(note):
            return function(*args)

    pure = hk.without_apply_rng(hk.transform_with_state(call))
    return _Pure(
        init=lambda rng, *args: pure.init(rng, *args)[0],
        apply=lambda params, *args: pure.apply(params, {}, *args)[0],
        apply_with_state=lambda params, *args: pure.apply(params, {}, *args),
    )


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


def _with_dtype(found, dtype):
    """Tokens whose values have a dtype, by source."""
    return jax.tree.map(lambda x: x if x.dtype == bool else x.astype(dtype), found)


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


def _check_chosen(latents, num_latents):
    """Latents by number; those that are traced can't be checked for their range."""
    chosen = jnp.asarray(latents)
    is_list = chosen.ndim == 1 and chosen.size and jnp.issubdtype(chosen.dtype, jnp.integer)
    is_traced = isinstance(chosen, jax.core.Tracer)
    if not is_list or not (is_traced or 0 <= int(chosen.min()) <= int(chosen.max()) < num_latents):
        raise config_lib.UserError(
            f"latents is {latents!r}; expected a list of whole numbers from 0 to "
            f"{num_latents - 1}. Give one or several, or None for all."
        )
    return chosen


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
    """Parameters of a dtype, but moving averages, which would lose what each batch adds to them."""
    return {
        module: {
            name: x if name in batch_norm.AVERAGES else jnp.asarray(x, dtype)
            for name, x in leaves.items()
        }
        for module, leaves in params.items()
    }
