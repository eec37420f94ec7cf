"""Writes a model's weights: for Hugging Face's port to load, or as they are called here."""

from collections.abc import Mapping
import json
import os
import pathlib
import re
import shutil
from typing import Any

import numpy as np
import safetensors.numpy

from perceiver_jax import checks, runs
from perceiver_jax import config as config_lib
from perceiver_jax.data import description
from perceiver_jax.data.fields import image
from perceiver_jax.pretrained import configs, convert, descriptions, names

Json = dict[str, Any]


def write_port(run: runs.Run, folder: str | os.PathLike[str]) -> list[str]:
    """Writes what `transformers` loads, with equal logits.

    `config.json`, `model.safetensors`, and how inputs are prepared: `preprocessor_config.json` of
    pictures, `tokenizer_config.json` of texts. Flows come out of the port as those of the released
    model do, 20 times smaller than pixels; numbers of a regression in the target's own units.

    Args:
      run: what `load_run` or `load_pretrained` returned.
      folder: where; made if it is not there.

    Returns:
      What the port prepares otherwise than here, a line each.

    Raises:
      UserError: if the port can't compute the model, or the folder holds something.
    """
    section = run.config.model
    shapes = checks.shapes(run.params)
    rows = [shape[0] for path, shape in shapes.items() if _is_of_pixels(path, section)]
    port = convert.to_port(section, *rows)
    channels = next(
        shape[0]
        for path, shape in shapes.items()
        if re.fullmatch("encoder/.*/input_norm/scale", path)
    )
    port |= {"model_type": "perceiver", "d_model": channels} | _classes(run)
    port["attention_probs_dropout_prob"] = 0.0  # Dropout here is of other numbers.
    files, notes = {}, []
    for name, keys in section.inputs.items():
        field = run.fields[name]
        if keys.kind == "image":
            notes += _notes_on_pictures(name, field)
            if isinstance(field, image.Image):
                port.setdefault("image_size", field.image_size)
            if _makes_pixels(field):
                files["preprocessor_config.json"] = _processor(keys, field)
        if keys.kind == "text":
            length = keys.max_length
            tokenizer = {"tokenizer_class": "PerceiverTokenizer", "model_max_length": length}
            if not getattr(field, "cls_sep", False):  # Nor have ids that are arrays.
                tokenizer["cls_sep"] = False  # Read here; the port has no such setting.
                notes.append(
                    "texts have no CLS and SEP in this model, which the port's tokenizer adds "
                    "unless it is called as tokenizer(text, add_special_tokens=False)"
                )
            files["tokenizer_config.json"] = tokenizer
    tensors = names.write(run.params, names.table(section))
    weight, bias = (f"perceiver.decoder.decoder.final_layer.{x}" for x in ("weight", "bias"))
    for output in section.outputs.values():
        if output.kind == "flow":
            for last in (weight, bias):
                tensors[last] = tensors[last] * np.float32(output.scale / configs.FLOW_SCALE)
    if run.config.task.kind == "regression":  # The port's numbers are in the target's own units.
        mean, std = (np.float32(run.config.task.get(x, y)) for x, y in (("mean", 0), ("std", 1)))
        tensors[weight] = tensors[weight] * std.reshape(-1, 1)
        tensors[bias] = tensors[bias] * std + mean
    _write(folder, tensors, files | {"config.json": port})
    return notes


def write_own(run: runs.Run, folder: str | os.PathLike[str]) -> None:
    """Writes what `load_pretrained` reads back: arrays by their paths, and both configs.

    `model.safetensors` has float32 arrays by module path and name, such as `encoder/latents`;
    `config.json` and `data.json` are those of the run.

    Args:
      run: what `load_run` or `load_pretrained` returned.
      folder: where; made if it is not there.

    Raises:
      UserError: if the folder holds something.
    """
    tensors = {
        f"{module}/{name}": np.ascontiguousarray(x, np.float32)
        for module, leaves in run.params.items()
        for name, x in leaves.items()
    }
    data = description.Description(dict(run.fields), dict(run.class_names), run.may_lack)
    _write(folder, tensors, {"data.json": data.to_json(), "config.json": run.config.to_dict()})


def check_empty(folder: str | os.PathLike[str]) -> None:
    """Refuses a folder that holds something.

    Raises:
      UserError: if it does, or is no folder.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise config_lib.UserError(
            f"{folder} is there already, and holds something; expected a new or an empty folder. "
            "Choose another, or remove it."
        )


def _write(folder, tensors, files: Mapping[str, Json]):
    check_empty(folder)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # transformers refuses files that don't say which framework's layout theirs is.
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    # safetensors lets nobody else read its file, whatever umask says.
    shutil.copymode(folder / "config.json", folder / "model.safetensors")


def _is_of_pixels(path, section):
    return any(
        keys.kind == "image" and path == f"{name}_position_encoding/position_embedding"
        for name, keys in section.inputs.items()
    )


def _classes(run):
    """What the port says of classes: their names, and whether an example may have several."""
    kind = run.config.task.kind
    if kind == "regression":
        return {"problem_type": "regression"}
    found = {}
    for name, keys in run.config.model.outputs.items():
        if keys.kind == "query":
            known = run.class_names.get(name) or tuple(map(str, range(keys.size)))
            found["id2label"] = {str(i): x for i, x in enumerate(known)}
            found["label2id"] = numbers = {}
            for i, x in enumerate(known):  # Two cranes of ImageNet have one name.
                while x in numbers:
                    x = f"{x} ({i})"
                numbers[x] = i
    several = run.config.task.get("loss") == "sigmoid"
    # The port refuses to choose of one class.
    if kind == "classification" and (several or len(found["id2label"]) > 1):
        found["problem_type"] = f"{'multi' if several else 'single'}_label_classification"
    return found


def _makes_pixels(field):
    """Whether a field gives whole numbers of 0 to 255, of which the port knows how."""
    return isinstance(field, image.Image) or getattr(field, "dtype", None) == np.uint8


def _notes_on_pictures(name, field):
    """What the port does otherwise with pictures of a field."""
    if not _makes_pixels(field):
        return [
            f"how {name!r} is prepared is not written, for transformers has no words for it; give "
            "the port what the model gets here"
        ]
    if getattr(field, "crop", "none") == "inception":
        return [
            f"transformers cuts {name!r} out up to a pixel further to the left and up than "
            "evaluation does here (crop='inception', as in the authors' code), so that what it "
            "predicts may differ a little"
        ]
    return []


def _processor(keys, field):
    """The port's settings of how pictures are prepared."""
    height, width, _ = field.zeros().shape
    return {
        "image_processor_type": "PerceiverImageProcessor",
        # Arrays are as they are; to their own size nothing is resized.
        "do_center_crop": getattr(field, "crop", "none") != "none",
        "crop_size": {
            "height": descriptions.crop_size(height),
            "width": descriptions.crop_size(width),
        },
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 3,  # Pillow's number of bicubic.
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(keys.mean),
        "image_std": list(keys.std),
    }
