"""A config's `model` section -> the port's `config.json`; refuses what the port can't compute.

What is read off the section is put through `configs.from_port` again: the model that comes out has
to be the same, up to what changes no logits.
"""

from collections.abc import Callable, Mapping
import inspect
import math
from typing import Any

from perceiver_jax import baselines, decoder, encoder, position_encoding, stems
from perceiver_jax import config as config_lib
from perceiver_jax import inputs as inputs_lib
from perceiver_jax import layers as layers_lib
from perceiver_jax import outputs as outputs_lib
from perceiver_jax.inputs import multimodal
from perceiver_jax.pretrained import configs

Section = dict[str, Any]

_GELUS = {"exact": "gelu", "tanh": "gelu_pytorch_tanh"}
# Keys that change no logits in evaluation, or that are compared in another way.
_IGNORED = {
    *("chunk_size", "dtype", "dropout_rate", "dropout_rates", "init_scale", "latent_init_scale"),
    *("layers", "mean", "num_self_attends", "remat", "scan", "std", "streaming", "scale"),
}
_ENDING = "Such a model can be written as --format=safetensors, for use here."


def to_port(section: Mapping[str, Any], positions: int | None = None) -> Section:
    """Returns what a `config.json` of the port has to say for a model of this section.

    Args:
      section: `config.model`, under any names of its inputs and outputs.
      positions: learned positions of the pictures that it takes, if it has such.

    Raises:
      UserError: if the port can't compute it; says what differs.
    """
    baselines.check_perceiver(section["encoder"], "Hugging Face's port")
    section = _canonical(section)
    kind = _architecture(section)
    num_blocks, num_self_attends = _blocks(section["encoder"])
    keys = section["encoder"]
    port = {
        "architectures": [kind],
        "num_latents": keys["num_latents"],
        "d_latents": keys["latent_channels"],
        "num_blocks": num_blocks,
        "num_self_attends_per_block": num_self_attends,
        "num_self_attention_heads": keys["num_self_attend_heads"],
        "num_cross_attention_heads": keys["num_cross_attend_heads"],
        "qk_channels": keys["qk_channels"],
        "v_channels": keys["v_channels"],
        "cross_attention_widening_factor": keys["cross_attend_widening_factor"],
        "self_attention_widening_factor": keys["self_attend_widening_factor"],
        "hidden_act": _GELUS[section["gelu"]],
    }
    width = keys["v_channels"] or keys["qk_channels"] or keys["latent_channels"]
    if width != keys["latent_channels"]:
        raise _refused(("encoder.v_channels", width, keys["latent_channels"]))
    port |= _OWN[kind](section, positions)
    # Channels of a decoder's queries and keys, which sections name and the port takes from these.
    found = [port | {"cross_attention_shape_for_attention": shape} for shape in ("kv", "q")]
    differences = [_differences(section, each) for each in found]
    if all(differences):
        raise _refused(*min(differences, key=len))
    return found[differences.index([])]


def modality(kind: str) -> str:
    """The name of an input or output of a kind in `configs`."""
    return {"query": "label", "mel": "audio"}.get(kind, kind)


def _differences(section, port):
    """What is here and what the port's config describes, by path, where they are not the same."""
    again = _canonical(configs.from_port(port))
    ours, theirs = (_flatten(_without_defaults(x)) for x in (section, again))
    return [
        (path, ours.get(path), theirs.get(path))
        for path in sorted(ours.keys() | theirs.keys())
        if ours.get(path) != theirs.get(path) and not _IGNORED & set(path.split("."))
    ]


def _refused(*differences):
    """The error of what is here, by path, and what the port computes."""
    listed = [f"{path} is {got!r}, there {allowed!r} alone" for path, got, allowed in differences]
    return config_lib.UserError(
        f"Hugging Face's port can't compute config.model: {'; '.join(listed)}. {_ENDING}"
    )


def _architecture(section):
    """The port's class for these inputs and outputs."""
    kinds = tuple(
        tuple(sorted(keys["kind"] for keys in section[part].values()))
        for part in ("inputs", "outputs")
    )
    if kinds == (("image",), ("query",)):
        stem = (section["inputs"]["image"]["stem"] or {}).get("kind")
        if stem in _STEMS:
            return _STEMS[stem]
        raise _refused(("inputs.image.stem.kind", stem, tuple(_STEMS)))
    if kinds in _KINDS:
        return _KINDS[kinds]
    known = [f"{' + '.join(i)} -> {' + '.join(o)}" for i, o in [(("image",), ("query",)), *_KINDS]]
    raise config_lib.UserError(
        f"The model has inputs of {', '.join(kinds[0])} and outputs of {', '.join(kinds[1])}; "
        f"Hugging Face's port has {'; '.join(known)}. {_ENDING}"
    )


_STEMS = {None: configs.FOURIER, "conv1x1": configs.LEARNED, "conv": configs.CONV}
_KINDS = {
    (("text",), ("text",)): configs.MASKED_TEXT,
    (("text",), ("query",)): configs.TEXT_CLASSES,
    (("frames",), ("flow",)): configs.FLOW,
    (("audio", "label", "video"), ("grid", "grid", "query")): configs.MULTIMODAL,
}


def _blocks(keys):
    """How often the port's block is applied, and its self-attends."""
    layers = layers_lib.resolve(keys["layers"], keys["reads"])
    cross_attends = [layer for layer in layers if layer.is_cross_attend]
    if len(cross_attends) != 1 or not layers[0].is_cross_attend or layers[0].source != "all":
        raise config_lib.UserError(
            f"config.model.encoder has {len(cross_attends)} cross-attends, reading "
            f"{', '.join(str(layer.reads) for layer in cross_attends)}; Hugging Face's port has "
            f"one, which comes first and reads all. {_ENDING}"
        )
    names = [layer.weights for layer in layers[1:]]
    for length in range(1, len(names) + 1):
        block = names[:length]
        if len(set(block)) == length and block * (len(names) // length) == names:
            return len(names) // length, length * keys["num_self_attends"]
    raise config_lib.UserError(
        f"config.model.encoder.layers are {tuple(keys['layers'])}; Hugging Face's port repeats "
        f"one block of different layers as a whole. {_ENDING}"
    )


def _label(section, _):
    return {"num_labels": section["outputs"]["label"]["size"]}


def _with_image(section, positions):
    colours = len(section["inputs"]["image"]["mean"])
    if colours != 3:
        raise _refused(("inputs.image.mean", section["inputs"]["image"]["mean"], "3 numbers"))
    return _label(section, positions)


def _learned(section, positions):
    side = math.isqrt(positions or 0)
    if not side or side * side != positions:
        raise config_lib.UserError(
            f"The model has {positions} learned positions; Hugging Face's port takes square "
            f"pictures alone. {_ENDING}"
        )
    return _with_image(section, positions) | {"image_size": side}


def _text(section, positions):
    text = section["inputs"]["text"]
    sizes = {
        "d_model": text["num_channels"],
        "vocab_size": text["vocab_size"],
        "max_position_embeddings": text["max_length"],
    }
    return sizes | (_label(section, positions) if "label" in section["outputs"] else {})


def _flow(section, _):
    return {"train_size": _max_resolution(section, "frames", 2)}


def _max_resolution(section, name, number):
    encoding = section["inputs"][name]["position_encoding"] or {}
    found = encoding.get("max_resolution")
    if encoding.get("kind") != "fourier" or found is None or len(found) != number:
        where = f"inputs.{name}.position_encoding"
        raise _refused((where, encoding, f"Fourier features of {number} max_resolution"))
    return list(found)


def _multimodal(section, _):
    (samples,) = _max_resolution(section, "audio", 1)
    num_frames, side, _ = _max_resolution(section, "video", 3)
    outputs, decoder = section["outputs"], section.get("decoder") or {}
    return {
        "num_labels": outputs["label"]["size"],
        "num_frames": num_frames,
        "image_size": side,
        "audio_samples_per_frame": samples // num_frames,
        "samples_per_patch": section["inputs"]["audio"]["patch_size"],
        "output_shape": [1, *outputs["video"]["index_dims"]],
        "output_num_channels": decoder.get("channels") or 1,
        "_label_trainable_num_channels": outputs["label"]["query_channels"],
    }


_OWN: dict[str, Callable] = {
    configs.FOURIER: _with_image,
    configs.LEARNED: _learned,
    configs.CONV: _with_image,
    configs.MASKED_TEXT: _text,
    configs.TEXT_CLASSES: _text,
    configs.FLOW: _flow,
    configs.MULTIMODAL: _multimodal,
}


def _canonical(section):
    """A section with all keys, and names of inputs and outputs as `configs` has them."""
    section = _plain(section)
    inputs, outputs = section["inputs"], section["outputs"]
    names = {name: modality(keys["kind"]) for name, keys in inputs.items()}
    made = {names[name]: _input(keys) for name, keys in inputs.items()}
    ends = {}
    for name, keys in outputs.items():
        # A grid is of what is read under its name, or else of pixels.
        kind = keys["kind"]
        end = names.get(name, "video") if kind == "grid" else modality(kind)
        keys = _filled(outputs_lib.OUTPUTS[kind], keys)
        if "reads" in keys:
            keys["reads"] = names.get(keys["reads"], keys["reads"])
        if "position_encoding" in keys:
            keys["position_encoding"] = _encoding(keys["position_encoding"])
        ends[end] = keys
    if len(made) < len(inputs) or len(ends) < len(outputs):
        raise config_lib.UserError(
            f"The model has inputs {sorted(inputs)} and outputs {sorted(outputs)}, several of one "
            f"kind; Hugging Face's port has one of each. {_ENDING}"
        )
    whole = {"dtype": "float32", "gelu": "tanh"} | section
    whole |= {"inputs": made, "outputs": ends}
    whole["encoder"] = _filled(encoder.PerceiverEncoder, section["encoder"])
    whole["encoder"].pop("gelu")
    if section.get("decoder"):
        whole["decoder"] = _filled(decoder.SharedDecoder, section["decoder"])
    if section.get("fusion"):
        fusion = _filled(multimodal.MultimodalPreprocessor, section["fusion"])
        tokens = sorted(names.get(name, name) for name in fusion.pop("mask_rates", ()))
        hidden = sorted(names.get(name, name) for name in fusion.pop("masked_in_evaluation", ()))
        fusion.pop("preprocessors", None)
        fusion |= {"mask_rates": tuple(tokens), "masked_in_evaluation": tuple(hidden)}
        whole["fusion"] = fusion
    return whole


def _input(keys):
    keys = _filled(inputs_lib.INPUTS[keys["kind"]], keys)
    if keys.get("stem"):
        keys["stem"] = _filled(stems.STEMS[keys["stem"]["kind"]], keys["stem"])
    keys["position_encoding"] = _encoding(keys.get("position_encoding"))
    return keys


def _encoding(keys):
    return keys and _filled(position_encoding.ENCODINGS[keys["kind"]], keys)


def _filled(constructor, keys):
    """Keys with the defaults of what they are the arguments of."""
    parameters = inspect.signature(constructor).parameters.values()
    known = {
        x.name: x.default
        for x in parameters
        if isinstance(x.default, int | str | tuple | float | None)
    }
    known.pop("name", None)
    return known | dict(keys)


def _without_defaults(section):
    """A section in which channels that are as many as by default are None."""
    width = section["encoder"]["latent_channels"]
    for keys in (*section["outputs"].values(), section.get("decoder") or {}):
        keys["v_channels"] = keys.get("v_channels") or keys.get("qk_channels") or width
        keys["qk_channels"] = keys.get("qk_channels") or width
    if section.get("decoder"):  # Outputs that share one have no own.
        for keys in section["outputs"].values():
            for key in (
                "num_heads",
                "qk_channels",
                "v_channels",
                "widening_factor",
                "use_query_residual",
            ):
                keys.pop(key, None)
    return section


def _plain(value):
    if hasattr(value, "items"):
        return {key: _plain(x) for key, x in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _flatten(section, prefix=""):
    flat = {}
    for key, value in section.items():
        path = f"{prefix}{key}"
        flat |= _flatten(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat
