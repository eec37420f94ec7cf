"""Loads released models, and what was written as weights: names and files -> `Run`."""

from collections.abc import Mapping
import os
import pathlib
from typing import Any

import jax
import ml_collections

import perceiver_jax
from perceiver_jax import checks, runs, tasks
from perceiver_jax import config as config_lib
from perceiver_jax import data as data_lib
from perceiver_jax import workdir as workdir_lib
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.data import imagenet_classes
from perceiver_jax.pretrained import configs, descriptions, files, hub, names


def load_pretrained(what: str | os.PathLike[str], *, code: str | None = None) -> runs.Run:
    """Loads a released model, or one of such a form, to use it or to fine-tune it.

    Args:
      what: the name of a released model, with or without 'deepmind/': 'vision-perceiver-fourier',
        'vision-perceiver-learned', 'vision-perceiver-conv', 'language-perceiver',
        'optical-flow-perceiver' or 'multimodal-perceiver', which is downloaded unless it is in the
        cache; or a folder of `config.json` and weights, or a file of weights with `config.json`
        beside it: safetensors, PyTorch's, or the authors' pickles, which need none. Files run
        nothing. The workdir of a training run, too, as `load_run` loads it.
      code: whose code to compute as, see `configs.from_port`; None: 'authors' for their pickles,
        'port' for Hugging Face's files.

    Returns:
      The model in evaluation, with how its inputs are read and what its classes are called.

    Raises:
      UserError: if there is no such, it can't be read, or it is another model than its config says.
    """
    path = pathlib.Path(what)
    name = str(what).removeprefix(f"{hub.OWNER}/")
    if not os.path.exists(path):  # Also of a name that no system takes.
        if name not in configs.RELEASED:
            known = list(configs.RELEASED)
            raise config_lib.MissingFileError(
                f"There is no {str(what)!r}, and it is no released model; expected a path, or one "
                f"of {known}.{config_lib.did_you_mean(name, known)}"
            )
        path = hub.fetch(name)
    if code is not None:
        config_lib.check_known("code", code, configs.CODES)
    if (path / "checkpoints").is_dir() or _is_new_run(path):
        _check_no_code(code, path)
        return runs.load_run(path)
    weights = files.read(files.find(path))
    beside = (path if path.is_dir() else path.parent) / "config.json"
    found = files.read_json(beside) if beside.is_file() else None
    if found is not None and found.get("model_type") == "perceiver":
        return _of_port(path, weights, found, code)
    if weights.is_pickle:
        return _of_port(path, weights, configs.RELEASED[_released(weights)], code)
    if found is not None and "model" in found:
        _check_no_code(code, path)
        return _of_ours(path, weights, found)
    got = f"one of model_type {found.get('model_type')!r}" if found else "none"
    raise config_lib.UserError(
        f"{weights.where} needs a config.json beside it, of the port's Perceiver or of a run here; "
        f"got {got}. Take it from where the weights are from."
    )


def _check_no_code(code, path):
    if code is not None:
        raise config_lib.UserError(
            f"Got code {code!r} for {path}, which was trained here and computes as it did then; "
            "expected a released model, or one of its form. Leave it out."
        )


def _is_new_run(path):
    """Whether a folder is the workdir of a training run that has saved nothing yet."""
    config = path / "config.json"
    has_weights = any((path / name).is_file() for name in files.WEIGHTS)
    return config.is_file() and not has_weights and "train" in files.read_json(config)


def _of_port(path, weights, port, code):
    """A model that the port's config describes, of its tensors or of those of the authors."""
    code = code or ("authors" if weights.is_pickle else "port")
    section = configs.from_port(port, code)
    described = descriptions.describe(port, code)
    processor = (path if path.is_dir() else path.parent) / "preprocessor_config.json"
    if processor.is_file() and "image" in section["inputs"]:
        descriptions.follow_processor(files.read_json(processor), section, described)
    tokenizer = processor.with_name("tokenizer_config.json")
    if tokenizer.is_file() and "text" in described["fields"] and not weights.is_pickle:
        descriptions.follow_tokenizer(files.read_json(tokenizer), described)
    read = data_lib.description.from_json(
        {"fields": described["fields"], "class_names": {}, "may_lack": ()}, "config.data"
    )
    config = {
        "experiment": path.name,
        "seed": 0,
        "data": {"fields": described["fields"]},
        "model": section,
        "task": described["task"],
    }
    class_names = {}
    if hasattr(read.fields.get("label"), "num_classes"):
        class_names["label"] = _class_names(port)
    table = names.table(section)
    source = "authors" if weights.is_pickle else "port"
    return _run(path, config, read.fields, class_names, (), weights, table, source)


def _of_ours(path, weights, found):
    """What `write.write_own` wrote, of a run or of a released model, which has no training."""
    folder = path if path.is_dir() else path.parent
    try:
        config = workdir_lib.from_json(found) if "train" in found else found
        config = ml_collections.ConfigDict(workdir_lib.plain(dict(config)))
        for name in ("model", "task"):
            config[name].kind if name == "task" else config[name].inputs
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise config_lib.UserError(
            f"{folder / 'config.json'} is damaged: {type(error).__name__}: "
            f"{config_lib.said(error)}. Write the weights anew."
        ) from error
    exported, step = folder / "export.json", 0
    if exported.is_file():
        step = files.read_json(exported).get("step", 0)
        config_lib.COUNT.check(f"{exported}: step", step, step)
        if not (folder / "data.json").is_file():
            raise config_lib.MissingFileError(
                f"There is no {folder / 'data.json'}, which says how inputs are read and what "
                "classes are called; expected all files of an exported folder. Export it anew."
            )
    fields, class_names, may_lack = workdir_lib.read_description(folder, config)
    return _run(path, config, fields, class_names, may_lack, weights, None, "port", step)


def _run(path, config, fields, class_names, may_lack, weights, table, source, step=0):
    config = ml_collections.ConfigDict(workdir_lib.plain(dict(config)))
    model = perceiver_jax.build_model(config.model)
    read = {
        name: field
        for name, field in fields.items()
        if name in config.model.inputs or not field.is_target
    }
    example = fields_lib.zero_batch(read)
    shapes = checks.shapes(jax.eval_shape(model.init, jax.random.key(0), example))
    params = names.read(weights.tensors, table or names.own(shapes), shapes, source, weights.where)
    return runs.Run(
        path,
        step,
        config,
        model,
        jax.device_put(params),
        tasks.build_task(config.task, fields),
        fields,
        class_names,
        may_lack,
    )


def _released(weights: files.Weights) -> str:
    """Which released model a pickle of the authors is, by the names of its arrays."""

    def difference(name):
        there = {x.authors for x in names.table(configs.released(name, "authors"))}
        return len(there ^ {x for x in weights.tensors if not names.UNUSED.fullmatch(x)})

    return min(configs.RELEASED, key=difference)


def _class_names(port: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes, in their order; numbers where they have none."""
    given, size = port.get("id2label") or {}, configs.num_labels(port)
    if not isinstance(given, Mapping):
        raise config_lib.UserError(
            f"config.json has an id2label of type {type(given).__name__}; expected a mapping of "
            "numbers to names. Correct it."
        )
    numbers = [str(i) for i in range(size)]
    if not given:
        known = imagenet_classes.names()
        return tuple(known if size == len(known) else numbers)
    named = {str(number): str(name) for number, name in given.items()}
    wrong = sorted(named.keys() - set(numbers))
    if wrong:
        raise config_lib.UserError(
            f"config.json has an id2label of {size} classes, one of them numbered {wrong[0]!r}; "
            f"expected numbers from 0 to {size - 1}, each once. Correct it."
        )
    return tuple(named[number] for number in numbers)
