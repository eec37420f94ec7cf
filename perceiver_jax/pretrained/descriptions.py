"""How the inputs of released models are read, and what they are trained for.

The `data.fields` and `task` sections that go with `configs.from_port`.
"""

from collections.abc import Mapping
from typing import Any

from perceiver_jax import config as config_lib
from perceiver_jax.pretrained import configs

_PIXELS = 224  # Of the pictures that models without an image_size of their own were trained on.
_FRAMES_PER_SECOND = 25
_MULTI_LABEL = "multi_label_classification"


def describe(port: Mapping[str, Any], code: str = "port") -> dict[str, Any]:
    """Returns the sections `fields` and `task`.

    Args:
      port: what is in a `config.json` of the port.
      code: as of `configs.from_port`.
    """
    kind = configs.architecture(port)
    port = configs.DEFAULTS | dict(port) | {"num_labels": configs.num_labels(port)}
    fields, task = _BUILDERS[kind](port, code == "authors")
    return {"fields": fields, "task": task}


def follow_processor(
    processor: Mapping[str, Any], section: dict[str, Any], described: dict[str, Any]
) -> None:
    """Takes over what a `preprocessor_config.json` says of pictures.

    Args:
      processor: what is in it.
      section: `config.model`, changed in place: mean and standard deviation.
      described: what `describe` returned, changed in place: the size of pictures.

    Raises:
      UserError: if it prepares them in a way that there is not here.
    """
    image, field = section["inputs"]["image"], described["fields"]["image"]
    for theirs, ours in (("image_mean", "mean"), ("image_std", "std")):
        if isinstance(processor.get(theirs), list | tuple):
            image[ours] = tuple(processor[theirs])
    size = processor.get("size", _PIXELS)
    sides = {size} if isinstance(size, int) else set(dict(size).values())
    if len(sides) != 1:
        raise config_lib.UserError(
            f"preprocessor_config.json has the size {size}; expected squares. Correct it."
        )
    if section["inputs"]["image"]["position_encoding"]["kind"] == "fourier":
        field["image_size"] = sides.pop()


def _classes(port):
    several = port.get("problem_type") == _MULTI_LABEL
    field = {"kind": "label", "num_classes": port["num_labels"], "multi_label": several}
    loss = "sigmoid" if several else "softmax"
    task = {"kind": "classification", "target": "label", "loss": loss, "label_smoothing": 0.0}
    return field, task


def _pixels(port, as_authors):
    del as_authors
    label, task = _classes(port)
    return {"image": _image(_PIXELS), "label": label}, task


def _learned_positions(port, as_authors):
    del as_authors
    label, task = _classes(port)
    return {"image": _image(port["image_size"]), "label": label}, task


def _image(size):
    return {"kind": "image", "image_size": size, "crop": "centre"}


def _text(port, kind, as_authors):
    # The port's tokenizer puts a special token at each end, the authors' none.
    return {"kind": kind, "max_length": port["max_position_embeddings"], "cls_sep": not as_authors}


def _masked_text(port, as_authors):
    task = {"kind": "masked_text", "target": "text"}
    return {"text": _text(port, "masked_text", as_authors)}, task


def _text_classes(port, as_authors):
    label, task = _classes(port)
    return {"text": _text(port, "text", as_authors), "label": label}, task


def _flow(port, as_authors):
    del as_authors
    size = {"image_size": tuple(port["train_size"])}
    fields = {"frames": {"kind": "frames", **size}, "flow": {"kind": "flow", **size}}
    return fields, {"kind": "flow", "target": "flow"}


def _multimodal(port, as_authors):
    del as_authors
    per_frame, num_frames = port["audio_samples_per_frame"], port["num_frames"]
    fields = {
        "audio": {
            "kind": "audio",
            "num_samples": num_frames * per_frame,
            "sample_rate": _FRAMES_PER_SECOND * per_frame,
        },
        "label": _classes(port)[0],
        "video": {
            "kind": "video",
            "num_frames": num_frames,
            "frames_per_second": _FRAMES_PER_SECOND,
            "image_size": port["output_shape"][-1],
        },
    }
    weights = {"video": 0.03, "audio": 1.0, "label": 1e-4}
    return fields, {"kind": "autoencoding", "weights": weights}


_BUILDERS = {
    configs.FOURIER: _pixels,
    configs.LEARNED: _learned_positions,
    configs.CONV: _pixels,
    configs.MASKED_TEXT: _masked_text,
    configs.TEXT_CLASSES: _text_classes,
    configs.FLOW: _flow,
    configs.MULTIMODAL: _multimodal,
}
