"""How the inputs of released models are read, and what they are trained for.

The `data.fields` and `task` sections that go with `configs.from_port`.
"""

from collections.abc import Mapping
import math
from typing import Any

from perceiver_jax import config as config_lib
from perceiver_jax.data import augment
from perceiver_jax.pretrained import configs

_PIXELS = 224  # Of the pictures that models without an image_size of their own were trained on.
_WHOLE = 256  # The crop_size of the port where a file has none.
_SIDE = config_lib.Range(1, 2**12, whole=True)  # Of a picture; more no model can take.
_FRAMES_PER_SECOND = 25
_MULTI_LABEL, _REGRESSION = "multi_label_classification", "regression"
_PROBLEMS = ("single_label_classification", _MULTI_LABEL, _REGRESSION)


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
      processor: what is in it; keys that are not take the port's defaults.
      section: `config.model`, changed in place: mean and standard deviation.
      described: what `describe` returned, changed in place: size and cut of pictures.

    Raises:
      UserError: if it prepares them in a way that there is not here.
    """
    image, field = section["inputs"]["image"], described["fields"]["image"]
    for theirs, ours in (("image_mean", "mean"), ("image_std", "std")):
        found = processor.get(theirs)
        if isinstance(found, list | tuple):
            image[ours] = tuple(found)
        elif found is not None:
            image[ours] = (found,) * len(image[ours])
    for key, value in _PREPARED.items():
        if processor.get(key, value) != value:
            raise config_lib.UserError(
                f"preprocessor_config.json has {key} {processor[key]!r}; expected {value!r}, for "
                "pictures are prepared so here. Correct it, or remove the file and prepare them "
                "yourself."
            )
    size = _side(processor, "size", _PIXELS, int)
    _SIDE.check("size of preprocessor_config.json", size, size)
    if not processor.get("do_center_crop", True):
        field["crop"] = "none"
    else:
        whole = _side(processor, "crop_size", _WHOLE, int | float)
        surplus = size / whole - augment.CENTRE_FRACTION if whole > 0 else -1
        # The port rounds pixels down: what is a trifle above gives as many, what is below fewer.
        if not 0 <= surplus < 1e-8:
            raise config_lib.UserError(
                f"preprocessor_config.json has size {size} and crop_size {whole}, and so cuts out "
                f"the middle {size}/{whole}; expected 224/256, which is cut out here. Set "
                f"crop_size to {crop_size(size)}, or do_center_crop to false."
            )
    if image["position_encoding"]["kind"] == "fourier":
        field["image_size"] = size


def follow_tokenizer(tokenizer: Mapping[str, Any], described: dict[str, Any]) -> None:
    """Takes over whether a `tokenizer_config.json` written here has CLS and SEP around a text.

    Args:
      tokenizer: what is in it.
      described: what `describe` returned, changed in place.

    Raises:
      UserError: if it does not say so by true or false.
    """
    cls_sep = tokenizer.get("cls_sep", True)
    if not isinstance(cls_sep, bool):
        raise config_lib.UserError(
            f"tokenizer_config.json has cls_sep {cls_sep!r}; expected true or false. Correct it."
        )
    described["fields"]["text"]["cls_sep"] = cls_sep


def crop_size(size: int) -> int | float:
    """The port's `crop_size` with which it cuts out as many pixels as `crop='centre'` does.

    It cuts out int(size / crop_size * s) pixels, s being the shorter side of a picture.

    Args:
      size: side of the pictures after resizing.
    """
    whole = size * 256 / 224
    if size / whole < augment.CENTRE_FRACTION:  # Rounded down, which costs a pixel.
        whole = math.nextafter(whole, 0)
    return int(whole) if whole.is_integer() else whole


# How pictures are prepared here, whatever their size.
_PREPARED = {
    "do_resize": True,
    "resample": 3,  # Pillow's number of bicubic.
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
}


def _side(processor, key, default, kind):
    """The side of a square, a number of a kind."""
    size = processor.get(key, default)
    sides = list(size.values()) if isinstance(size, Mapping) else [size]
    numbers = all(isinstance(x, kind) and not isinstance(x, bool) for x in sides)
    if not sides or not numbers or any(x != sides[0] for x in sides):
        raise config_lib.UserError(
            f"preprocessor_config.json has the {key} {size!r}; expected squares, such as "
            '{"height": 224, "width": 224}. Correct it.'
        )
    return sides[0]


def _classes(port):
    problem = port.get("problem_type")
    if problem is not None:
        config_lib.check_known("problem_type of config.json", problem, _PROBLEMS)
    if problem == _REGRESSION:
        field = {"kind": "number", "size": port["num_labels"]}
        return field, {"kind": "regression", "target": "label", "loss": "squared"}
    several = problem == _MULTI_LABEL
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
