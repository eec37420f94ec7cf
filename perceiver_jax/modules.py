"""A config's model section becomes Haiku modules; `model` makes pure functions of them."""

from collections.abc import Callable, Mapping, Sequence
import inspect
from typing import Any, NamedTuple

import haiku as hk
import jax.numpy as jnp
import numpy as np

from perceiver_jax import baselines, config, layers, position_encoding
from perceiver_jax import decoder as decoder_lib
from perceiver_jax import encoder as encoder_lib
from perceiver_jax import inputs as inputs_lib
from perceiver_jax import outputs as outputs_lib
from perceiver_jax import reads as reads_lib

Section = Mapping[str, Any]


class Modules(NamedTuple):
    """A model's modules. Their names are paths of parameters, which checkpoints hold."""

    inputs: reads_lib.Inputs
    encode: Any  # A PerceiverEncoder, or one of `baselines.BASELINES`.
    decode: dict[str, Callable]
    shared_decoder: decoder_lib.SharedDecoder | None

    def outputs(self, latents, batch, found):
        """What the decoders make of the latents, by name.

        Args:
          latents: the final ones.
          batch: their inputs; None if no output asks for them.
          found: tokens of inputs by name, those that outputs read.
        """
        batch = {} if batch is None else batch
        shapes = {name: np.shape(batch[name]) for name in self.inputs.preprocess if name in batch}
        if len(self.inputs.preprocess) == 1 and layers.ALL in found:
            found = dict.fromkeys(self.inputs.preprocess, found[layers.ALL]) | found
        context = decoder_lib.Context(self.inputs.preprocess, shapes, found)
        indices = {
            name: _indices(name, decode, batch, latents.shape[0])
            for name, decode in self.decode.items()
        }
        indices = {name: x for name, x in indices.items() if x is not None}
        if self.shared_decoder is not None:
            return self.shared_decoder(latents, self.decode, context, indices)
        return {
            name: decode(latents, context, indices.get(name))
            if isinstance(decode, outputs_lib.base.QueriedOutput)
            else decode(latents)
            for name, decode in self.decode.items()
        }

    def describe(self):
        """The encoder's layers, and the inputs that outputs read by name of the output."""
        reads = {name: getattr(decode, "reads", None) for name, decode in self.decode.items()}
        return self.encode.resolved, {name: x for name, x in reads.items() if x is not None}


def check_names(inputs: Any, outputs: Any) -> None:
    """Raises a UserError unless there are inputs and outputs, each with a name that can be one."""
    for section, keys in (("inputs", inputs), ("outputs", outputs)):
        if not hasattr(keys, "items") or not keys:
            raise config.UserError(
                f"config.model.{section} is {'empty' if keys in ({}, None) else repr(keys)}; "
                "expected at least one, by name. Give {'name': {'kind': ...}}."
            )
        # They become parts of parameters' names; that of a single output doesn't.
        for name in keys:
            is_word = isinstance(name, str) and name.isidentifier()
            if not is_word and not (isinstance(name, str) and keys is outputs and len(keys) == 1):
                raise config.UserError(
                    f"config.model.{section} has the name {name!r}; expected a word of letters, "
                    "digits and _. Rename it."
                )


def build_modules(
    inputs: Section,
    outputs: Section,
    encoder: Section,
    fusion: Section | None,
    decoder: Section | None,
    gelu: str,
) -> Modules:
    """Builds a model's modules, within a function that Haiku transforms; see `model.build_model`.

    Raises:
      UserError: for an unknown key, kind or value.
    """
    preprocess = {name: _Named(name, _input(name, keys)) for name, keys in inputs.items()}
    join = None
    if fusion is not None:
        join = config.build(
            inputs_lib.multimodal.MultimodalPreprocessor,
            fusion,
            "config.model.fusion",
            preprocessors=preprocess,
            name="inputs",
        )
    encode = _encoder(encoder, gelu)
    decode, shared = _outputs(outputs, decoder, gelu=gelu, streaming=encode.streaming)
    return Modules(reads_lib.Inputs(preprocess, join), encode, decode, shared)


def input_grid(model: Section, name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The inputs along each axis that a model makes of an example.

    Args:
      model: a config's model section.
      name: of the input.
      shape: of an example of it.
    """

    def grid():
        child = _input(name, model["inputs"][name])
        return child.grid(shape) if hasattr(child, "grid") else tuple(shape[:1])

    return tuple(hk.transform(grid).apply({}, None))


class _Named:
    """A preprocessor whose errors name its input."""

    def __init__(self, name, preprocess):
        self.name, self.preprocess = name, preprocess

    def __call__(self, array, mask):
        try:
            return self.preprocess(array, mask)
        except config.UserError as error:
            message = f"Input {self.name!r} of shape {array.shape}: {error}"
            raise config.UserError(message) from error

    def __getattr__(self, attribute):
        return getattr(self.preprocess, attribute)


def _input(name, keys):
    where = f"config.model.inputs.{name}"
    given, keys = _with_encoding(inputs_lib.INPUTS, keys, where, name)
    return config.build_from_table(inputs_lib.INPUTS, keys, where, name=name, **given)


def _encoder(keys, gelu):
    where = "config.model.encoder"
    if not hasattr(keys, "items") or "kind" not in keys:
        return config.build(encoder_lib.PerceiverEncoder, keys, where, name="encoder", gelu=gelu)
    if gelu != "tanh":
        raise config.UserError(
            f"config.model.gelu is {gelu!r}; expected 'tanh' with {where}.kind = {keys['kind']!r}. "
            "Remove one of the two."
        )
    return config.build_from_table(baselines.BASELINES, keys, where, name="encoder")


def _outputs(outputs, shared, **given):
    """The decoders by name, and what they share.

    A single one is called 'decoder', of several each is a part of it.
    """
    if shared is None and len(outputs) == 1:
        ((name, keys),) = outputs.items()
        return {name: _output(name, keys, "decoder", given)}, None

    def make():
        return {name: _output(name, keys, name, given) for name, keys in outputs.items()}

    if shared is None:
        with hk.name_scope("decoder"):
            return make(), None
    decoder = config.build(
        decoder_lib.SharedDecoder, shared, "config.model.decoder", name="decoder", **given
    )
    decoders = decoder.within(make)
    for name, keys in outputs.items():
        where = f"config.model.outputs.{name}"
        if not isinstance(decoders[name], outputs_lib.base.QueriedOutput):
            raise config.UserError(
                f"{where}.kind is {keys['kind']!r}, which has no queries that config.model.decoder "
                "could decode. Set another kind, or remove config.model.decoder."
            )
        own = sorted(set(keys) & set(decoder_lib.SETTINGS))
        if own:
            raise config.UserError(
                f"{where}.{own[0]} is set beside config.model.decoder, which is for all outputs. "
                "Set it there."
            )
    return decoders, decoder


def _output(name, keys, module_name, given):
    where = f"config.model.outputs.{name}"
    table = outputs_lib.OUTPUTS
    encoding, keys = _with_encoding(table, keys, where, module_name)
    kind = table.get(keys.get("kind")) if hasattr(keys, "items") else None
    if not (isinstance(kind, type) and issubclass(kind, outputs_lib.base.QueriedOutput)):
        given = {}
    return config.build_from_table(table, keys, where, name=module_name, **encoding, **given)


def _with_encoding(table, keys, where, name):
    """Builds the position encoding of an input or output whose kind has one."""
    encoding = keys.get("position_encoding") if hasattr(keys, "items") else None
    takes = inspect.signature(table.get(keys.get("kind"), dict)).parameters if encoding else {}
    if "position_encoding" not in takes:
        return {}, keys
    given = config.build_from_table(
        position_encoding.ENCODINGS,
        encoding,
        f"{where}.position_encoding",
        name=f"{name}_position_encoding",
    )
    return {"position_encoding": given}, {k: keys[k] for k in keys if k != "position_encoding"}


def _indices(name, decode, batch, batch_size):
    """Which elements of an output a batch asks for; None: all of them."""
    key = f"{name}_indices"
    if key not in batch:
        return None
    indices = jnp.asarray(batch[key])
    if not isinstance(decode, outputs_lib.base.QueriedOutput):
        raise config.UserError(
            f"The batch has {key!r}; the output {name!r} has no elements to choose from. Leave it "
            "out."
        )
    is_form = indices.ndim == 1 or (indices.ndim == 2 and indices.shape[0] == batch_size)
    if not is_form or not jnp.issubdtype(indices.dtype, jnp.integer):
        raise config.UserError(
            f"{key} has shape {indices.shape} and is {indices.dtype}; expected whole numbers "
            f"[B, O], of {batch_size} examples, or [O] for all of them alike. Convert it."
        )
    return indices
