"""Released models: Hugging Face's `config.json` <-> a config's `model` section.

The port (`transformers`, models/perceiver) builds one of seven classes from a flat config; much is
fixed by the class. `from_port` says what each of them is here. `to_port` goes the other way and is
checked against it: what comes out has to give the same model again.
"""

from collections.abc import Mapping
import math
from typing import Any

from perceiver_jax import config as config_lib
from perceiver_jax import recipes

Section = dict[str, Any]

# Whose code a model computes as: they differ in GELU, and in what `_CODE` has of a class.
CODES = ("port", "authors")

# The port's defaults of what it reads; keys that are not here change nothing in evaluation.
DEFAULTS = {
    "num_latents": 256,
    "d_latents": 1280,
    "d_model": 768,
    "num_blocks": 1,
    "num_self_attends_per_block": 26,
    "num_self_attention_heads": 8,
    "num_cross_attention_heads": 8,
    "qk_channels": None,
    "v_channels": None,
    "cross_attention_shape_for_attention": "kv",
    "self_attention_widening_factor": 1,
    "cross_attention_widening_factor": 1,
    "hidden_act": "gelu",
    "initializer_range": 0.02,
    "use_query_residual": True,
    "vocab_size": 262,
    "max_position_embeddings": 2048,
    "image_size": 56,
    "train_size": (368, 496),
    "num_frames": 16,
    "audio_samples_per_frame": 1920,
    "samples_per_patch": 16,
    "output_shape": (1, 16, 224, 224),
    "output_num_channels": 512,
    "_label_trainable_num_channels": 1024,
    "num_labels": 2,
}
# More than these, no model has: to find out by its weights would take hours, or all memory.
_MOST = {
    "num_blocks": 2**8,
    "num_self_attends_per_block": 2**8,
    "self_attention_widening_factor": 2**8,
    "cross_attention_widening_factor": 2**8,
    "image_size": 2**12,
}
_MOST_OF_OTHERS = 2**20
_MOST_LAYERS = 2**10  # All blocks together; released models have up to 48.
_MOST_ELEMENTS = 2**24  # Of a grid; flows have 2**18 of them, clips 2**20.
# Activations of the port that are GELU, and which.
_GELUS = {
    "gelu": "exact",
    "gelu_python": "exact",
    "gelu_pytorch_tanh": "tanh",
    "gelu_new": "tanh",
    "gelu_fast": "tanh",
    "gelu_accurate": "tanh",
}
FLOW_SCALE = 20 / 100  # The network's numbers / 100, of flows that are trained / 20: pixels.

FOURIER = "PerceiverForImageClassificationFourier"
LEARNED = "PerceiverForImageClassificationLearned"
CONV = "PerceiverForImageClassificationConvProcessing"
MASKED_TEXT = "PerceiverForMaskedLM"
TEXT_CLASSES = "PerceiverForSequenceClassification"
FLOW = "PerceiverForOpticalFlow"
MULTIMODAL = "PerceiverForMultimodalAutoencoding"

_IMAGENET = {
    "num_latents": 512,
    "d_latents": 1024,
    "num_blocks": 8,
    "num_self_attends_per_block": 6,
    "num_cross_attention_heads": 1,
    "image_size": 224,
    "num_labels": 1000,
}
# The six released models, as the port would describe them.
RELEASED = {
    "vision-perceiver-fourier": {"architectures": [FOURIER], "d_model": 261, **_IMAGENET},
    "vision-perceiver-learned": {"architectures": [LEARNED], "d_model": 512, **_IMAGENET},
    "vision-perceiver-conv": {"architectures": [CONV], "d_model": 322, **_IMAGENET},
    "language-perceiver": {
        "architectures": [MASKED_TEXT],
        "qk_channels": 256,
        "v_channels": 1280,
    },
    "optical-flow-perceiver": {
        "architectures": [FLOW],
        "num_latents": 2048,
        "d_latents": 512,
        "d_model": 322,
        "num_self_attends_per_block": 24,
        "num_self_attention_heads": 16,
        "num_cross_attention_heads": 1,
    },
    "multimodal-perceiver": {
        "architectures": [MULTIMODAL],
        "num_latents": 784,
        "d_latents": 512,
        "d_model": 704,
        "num_self_attends_per_block": 8,
        "num_cross_attention_heads": 1,
        "num_labels": 700,
    },
}


def released(name: str, code: str = "port") -> Section:
    """The `model` section of a released model; see `from_port`.

    Args:
      name: one of `RELEASED`, with or without 'deepmind/'.
      code: as of `from_port`.
    """
    name = name.removeprefix("deepmind/")
    config_lib.check_known("released model", name, RELEASED)
    return from_port(RELEASED[name], code)


def architecture(port: Mapping[str, Any]) -> str:
    """The port's class that a `config.json` is of.

    Raises:
      UserError: if it is none of those that are known here.
    """
    found = port.get("architectures")
    if not isinstance(found, list | tuple) or not found or found[0] not in list(_BUILDERS):
        raise config_lib.UserError(
            f"config.json has the architectures {port.get('architectures')!r}; expected one of "
            f"{list(_BUILDERS)}. Write it with the port's save_pretrained, or add the key."
        )
    return found[0]


def num_labels(port: Mapping[str, Any]) -> int:
    """How many classes a `config.json` names, or counts."""
    names = port.get("id2label")
    if isinstance(names, Mapping) and names:
        return len(names)
    count = DEFAULTS["num_labels"] if port.get("num_labels") is None else port["num_labels"]
    _allowed("num_labels").check("num_labels of config.json", count, count)
    return count


def from_port(port: Mapping[str, Any], code: str = "port") -> Section:
    """Returns the `model` section of what a `config.json` of the port describes.

    Args:
      port: what is in it; keys that are not take the port's defaults.
      code: 'port' computes as it does: with the `hidden_act` that it names, three zeros on each
        side of an image before a convolution and none around the maximum after it, and the query
        residual of learned positions. 'authors' computes as the authors' code, with which the
        weights were trained: with GELU's tanh approximation, 'same' convolutions, without that
        residual.

    Raises:
      UserError: if it describes what there is not here.
    """
    config_lib.check_known("code", code, CODES)
    kind = architecture(port)
    port = DEFAULTS | dict(port) | {"num_labels": num_labels(port)}
    _check(port)
    inputs, outputs, more = _BUILDERS[kind](port, code == "authors")
    return {
        "inputs": inputs,
        "encoder": _encoder(port),
        "outputs": outputs,
        **more,
        "dtype": "float32",
        "gelu": "tanh" if code == "authors" else _GELUS[port["hidden_act"]],
    }


def _check(port):
    """Refuses what the port can do and models here can't."""
    config_lib.check_known("hidden_act of config.json", port["hidden_act"], _GELUS)
    config_lib.check_known(
        "cross_attention_shape_for_attention of config.json",
        port["cross_attention_shape_for_attention"],
        ["kv", "q"],
    )
    if port["use_query_residual"] is not True:
        raise config_lib.UserError(
            f"config.json has use_query_residual {port['use_query_residual']!r}; expected true: a "
            "cross-attend here adds the latents to what it gives. Such a model can't be loaded."
        )
    for key, default in DEFAULTS.items():
        what, allowed = f"{key} of config.json", _allowed(key)
        if isinstance(default, tuple):
            if not isinstance(port[key], list | tuple) or len(port[key]) != len(default):
                raise config_lib.UserError(
                    f"{what} is {port[key]!r}; expected {len(default)} numbers, such as "
                    f"{default}. Correct it."
                )
            config_lib.check({what: port[key]}, **{what: allowed})
        elif type(default) is int or (
            key in ("qk_channels", "v_channels") and port[key] is not None
        ):
            allowed.check(what, port[key], port[key])
    blocks = (port["num_blocks"], port["num_self_attends_per_block"])
    num_frames, side = port["num_frames"], port["output_shape"][-1]
    samples = (num_frames, port["audio_samples_per_frame"])
    for keys, sizes, most in (
        ("num_blocks and num_self_attends_per_block", blocks, _MOST_LAYERS),
        ("train_size", port["train_size"], _MOST_ELEMENTS),
        ("output_shape", port["output_shape"], _MOST_ELEMENTS),
        ("num_frames and output_shape", (num_frames, side, side), _MOST_ELEMENTS),
        ("num_frames and audio_samples_per_frame", samples, _MOST_ELEMENTS),
    ):
        if math.prod(sizes) > most:
            raise config_lib.UserError(
                f"{keys} of config.json: {' x '.join(map(str, sizes))} in all; expected at most "
                f"{most:,}. Correct it."
            )
    width = port["v_channels"] or port["qk_channels"] or port["d_latents"]
    if width != port["d_latents"]:
        raise config_lib.UserError(
            f"config.json has d_latents {port['d_latents']} and value channels of {width}; "
            "expected as many, for self-attends of the port add them. Set v_channels."
        )


def _allowed(key):
    return config_lib.Range(1, _MOST.get(key, _MOST_OF_OTHERS), whole=True)


def _encoder(port):
    qk_channels = port["qk_channels"]
    if port["cross_attention_shape_for_attention"] == "q":
        qk_channels = qk_channels or port["d_latents"]
    return {
        "num_latents": port["num_latents"],
        "latent_channels": port["d_latents"],
        "layers": ("cross_attend_0", *["latent_transformer_0"] * port["num_blocks"]),
        "reads": (),
        "num_self_attends": port["num_self_attends_per_block"],
        "num_cross_attend_heads": port["num_cross_attention_heads"],
        "num_self_attend_heads": port["num_self_attention_heads"],
        "qk_channels": qk_channels,
        "v_channels": port["v_channels"],
        "cross_attend_widening_factor": port["cross_attention_widening_factor"],
        "self_attend_widening_factor": port["self_attention_widening_factor"],
        "dropout_rate": 0.0,
        "latent_init_scale": port["initializer_range"],
        "streaming": True,
        "chunk_size": 0,
        "scan": True,
        "remat": False,
    }


def _attending(port, channels, use_query_residual=False):
    """How queries of so many channels attend to the latents."""
    by_query = port["cross_attention_shape_for_attention"] == "q"
    return {
        "num_heads": 1,
        "qk_channels": channels if by_query else None,
        "v_channels": None,
        "widening_factor": 1,
        "use_query_residual": use_query_residual,
    }


def _fourier(num_bands, max_resolution):
    return {
        "kind": "fourier",
        "num_bands": num_bands,
        "max_resolution": tuple(max_resolution),
        "concat_positions": True,
        "sine_only": False,
    }


def _learned(port, num_channels, project_to=0):
    return {
        "kind": "learned",
        "num_channels": num_channels,
        "init_scale": port["initializer_range"],
        "project_to": project_to,
    }


def _image(stem, position_encoding):
    return {
        "kind": "image",
        "mean": recipes.MEAN,
        "std": recipes.STD,
        "permutation_seed": -1,
        "stem": stem,
        "position_encoding": position_encoding,
    }


def _class_query(port, use_query_residual=True):
    return {
        "kind": "query",
        "size": port["num_labels"],
        "query_channels": port["d_latents"],
        "init_scale": port["initializer_range"],
        **_attending(port, port["d_latents"], use_query_residual),
    }


def _of_fourier(port, as_authors):
    del as_authors
    image = _image(None, _fourier(64, (224, 224)))
    return {"image": image}, {"label": _class_query(port)}, {}


def _of_learned(port, as_authors):
    image = _image({"kind": "conv1x1", "num_channels": 256}, _learned(port, 256, project_to=256))
    return {"image": image}, {"label": _class_query(port, not as_authors)}, {}


def _of_conv(port, as_authors):
    padding = "same" if as_authors else "port"
    stem = {"kind": "conv", "num_channels": 64, "batch_norm": True, "padding": padding}
    image = _image(stem, _fourier(64, (56, 56)))
    return {"image": image}, {"label": _class_query(port)}, {}


def _text(port):
    return {
        "kind": "text",
        "vocab_size": port["vocab_size"],
        "num_channels": port["d_model"],
        "max_length": port["max_position_embeddings"],
        "init_scale": port["initializer_range"],
        "position_encoding": _learned(port, port["d_model"]),
    }


def _of_masked_text(port, as_authors):
    del as_authors
    attending = {"num_heads": 8, "qk_channels": 8 * 32, "v_channels": port["d_model"]}
    output = {
        "kind": "text",
        "size": port["vocab_size"],
        "reads": "text",
        "position_encoding": _learned(port, port["d_model"]),
        **_attending(port, port["d_model"]),
        **attending,
    }
    return {"text": _text(port)}, {"text": output}, {}


def _of_text_classes(port, as_authors):
    del as_authors
    return {"text": _text(port)}, {"label": _class_query(port)}, {}


def _of_flow(port, as_authors):
    del as_authors
    frames = {
        "kind": "frames",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "patch_size": (3, 3),
        "num_channels": 64,
        "position_encoding": _fourier(64, port["train_size"]),
    }
    channels = 64 + 2 * (2 * 64 + 1)
    output = {"kind": "flow", "size": 2, "reads": "frames", "scale": FLOW_SCALE}
    return {"frames": frames}, {"flow": output | _attending(port, channels)}, {}


def _of_multimodal(port, as_authors):
    del as_authors
    samples, frames = port["num_frames"] * port["audio_samples_per_frame"], port["num_frames"]
    in_time = _fourier(192, (samples,))
    in_space = _fourier(32, (frames, port["image_size"], port["image_size"]))
    inputs = {
        "audio": {
            "kind": "audio",
            "patch_size": port["samples_per_patch"],
            "position_encoding": in_time,
        },
        "label": {"kind": "label", "num_classes": port["num_labels"]},
        "video": {
            "kind": "video",
            "mean": (0.0, 0.0, 0.0),
            "std": (1.0, 1.0, 1.0),
            "patch_size": (1, 4, 4),
            "position_encoding": in_space,
        },
    }
    # Queries lie where chosen elements do in the authors' code, as in training; see `GridDecoder`.
    outputs = {
        "audio": {
            "kind": "grid",
            "index_dims": (samples // port["samples_per_patch"],),
            "size": port["samples_per_patch"],
            "half_open": True,
            "position_encoding": in_time,
        },
        "label": {
            "kind": "query",
            "size": port["num_labels"],
            "query_channels": port["_label_trainable_num_channels"],
            "init_scale": port["initializer_range"],
        },
        "video": {
            "kind": "grid",
            "index_dims": tuple(port["output_shape"][1:]),
            "size": 3,
            "half_open": True,
            "position_encoding": in_space,
        },
    }
    # Channels of queries: audio, video, label.
    widest = max(2 * 192 + 1, 3 * (2 * 32 + 1), port["_label_trainable_num_channels"])
    more = {
        "fusion": {
            "modality_channels": 4,
            "dropout_rates": {},
            "mask_rates": {"audio": 0.0, "label": 0.5, "video": 0.0},
            "masked_in_evaluation": ("label",),
        },
        "decoder": {
            "query_padding": 2,
            "channels": port["output_num_channels"],
            **_attending(port, widest + 2),
        },
    }
    return inputs, outputs, more


_BUILDERS = {
    FOURIER: _of_fourier,
    LEARNED: _of_learned,
    CONV: _of_conv,
    MASKED_TEXT: _of_masked_text,
    TEXT_CLASSES: _of_text_classes,
    FLOW: _of_flow,
    MULTIMODAL: _of_multimodal,
}
