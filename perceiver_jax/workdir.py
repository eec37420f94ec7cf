"""What a run keeps in its workdir of how it began: its config, and what tells its data."""

from collections.abc import Iterator, Mapping
import contextlib
import json
import pathlib
import shlex
from typing import TYPE_CHECKING, Any

import ml_collections
import numpy as np

from perceiver_jax import config as config_lib
from perceiver_jax import config_file

if TYPE_CHECKING:
    from perceiver_jax.data import description

_MAX_LISTED = 8  # Differences that a message names.

# Keys, or sections, that may have changed when a run resumes.
CHANGEABLE = (
    "data.data_dir",
    "data.max_bad_records",
    "eval",
    "experiment",
    "model.dtype",
    "model.encoder.chunk_size",
    "model.encoder.remat",
    "model.encoder.scan",
    "model.encoder.streaming",
    "train.accumulate_steps",
    "train.checkpoint_every",
    "train.eval_every",
    "train.log_every",
    "train.max_checkpoints",
    "train.max_skipped",
    "train.parallelism",
    "train.steps",
)


def read(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """Reads the `config.json` of a training run.

    Raises:
      UserError: if there is none, or if it can't be read.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise config_lib.UserError(
            f"There is no {path}; expected the workdir of a training run. Train first: "
            f"python -m experiments.train --config=... {shlex.quote(f'--workdir={workdir}')}"
        )
    try:
        config = from_json(json.loads(path.read_text(encoding="utf-8")))
        config_file.check_sections(config)
        return config
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise config_lib.UserError(
            f"{path} is damaged: {type(error).__name__}: {config_lib.said(error)}. Each checkpoint "
            "has a copy: write what is under 'config' in the file metadata/metadata of one of them "
            "there."
        ) from error


def from_json(values: Any) -> ml_collections.ConfigDict:
    """Returns the config that was written as JSON, by this version or one before."""
    return ml_collections.ConfigDict(plain(_upgraded(values)))


def plain(value: Any) -> Any:
    """Returns a section, or a value, as it is read back: tuples for lists, and Python's numbers."""
    if isinstance(value, dict):
        return {key: plain(x) for key, x in value.items()}
    value = value.tolist() if hasattr(value, "tolist") else value  # Of numpy.
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else value


def has_checkpoints(workdir: pathlib.Path) -> bool:
    """Whether a run of the workdir has been saved."""
    return any((workdir / "checkpoints").glob("[0-9]*"))


def changes(saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, str]:
    """Says of each key that differs what it was and what it is."""
    return {
        key: f"{saved.get(key, 'absent')!r} -> {given.get(key, 'absent')!r}"
        for key in given | saved
        if saved.get(key) != given.get(key)
    }


def check_unchanged(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, accept_changes: bool = False
) -> list[str]:
    """Checks that a workdir, if it has checkpoints, is of a run of the same config.

    Args:
      config: what is going to be trained.
      workdir: where.
      accept_changes: return what differs, instead of refusing.

    Returns:
      A line for each key that matters and differs: `key: was -> is`.

    Raises:
      UserError: if there are such lines, and they are not accepted.
    """
    if not has_checkpoints(workdir):
        return []
    # Both as of this version, which fills in keys that may be left out.
    given = from_json(config.copy_and_resolve_references().to_dict())
    different = changes(config_file.flatten(read(workdir)), config_file.flatten(given))
    changed = [
        f"config.{key}: {change}"
        for key, change in sorted(different.items())
        if not any(f"{key}.".startswith(f"{known}.") for known in CHANGEABLE)
    ]
    if changed and not accept_changes:
        raise config_lib.UserError(
            "\n  ".join([f"{workdir} is of a run with another config (was -> is):", *changed])
            + f"\nA run resumes with what it began with, except for {', '.join(CHANGEABLE)}. Use "
            "another workdir, or that config; --accept_changes resumes all the same."
        )
    return changed


def check_on_disk(directory: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Refuses a run whose data no config describes.

    Raises:
      UserError: it was trained on arrays in memory.
    """
    if "arrays" in config.data:
        raise config_lib.UserError(
            f"{directory} is of a run on arrays in memory: {config.data.to_dict()}. Evaluate it "
            "from Python: perceiver_jax.evaluate(workdir, data)."
        )


def check_same_data(
    fingerprint: Mapping[str, Any], workdir: pathlib.Path, accept_changes: bool = False
) -> list[str]:
    """Checks that a workdir, if it has checkpoints, is of a run on the same data.

    Runs of before there was `data.json` are taken as they are.

    Args:
      fingerprint: what `Data.fingerprint` returned, or of its keys those that matter.
      workdir: of the run.
      accept_changes: return what differs, instead of refusing.

    Returns:
      A line for each thing that differs: `what: was -> is`.

    Raises:
      UserError: if there are such lines, and they are not accepted; or `data.json` can't be read.
    """
    with reading_data(workdir) as saved:
        if saved is None or not has_checkpoints(workdir):
            return []
        saved = _described({key: saved[key] for key in fingerprint})
    changed = [f"{key}: {x}" for key, x in changes(saved, _described(fingerprint)).items()]
    if len(changed) > _MAX_LISTED:
        changed[_MAX_LISTED:] = [f"and {len(changed) - _MAX_LISTED} more"]
    if changed and not accept_changes:
        raise config_lib.UserError(
            "\n  ".join([f"{workdir} is of a run on other data (was -> is):", *changed])
            + "\nWhat it learned, its figures and its place in the data are of those that it began "
            "with. Prepare them as they were, or train in another workdir; --accept_changes "
            "resumes all the same."
        )
    return changed


@contextlib.contextmanager
def reading_data(workdir: pathlib.Path) -> Iterator[Any]:
    """Gives what the `data.json` of a run holds; None if it has none.

    Raises:
      UserError: if it can't be read, or what is done with it within the context fails.
    """
    path = workdir / "data.json"
    try:
        yield plain(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
    except config_lib.UserError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise config_lib.UserError(
            f"{path} is damaged: {type(error).__name__}: {config_lib.said(error)}. Without it "
            "a run resumes and keeps anew what its data are: delete it if they are the same."
        ) from error


def read_description(
    workdir: pathlib.Path, config: ml_collections.ConfigDict
) -> "description.Description":
    """Returns how a run reads examples, and the names of its classes.

    Of an earlier version, which did not keep that, as far as it follows from the config and from
    what is known of its data set; classes of unknown names have their numbers.

    Args:
      workdir: of the run.
      config: what `read` returned.

    Raises:
      UserError: if it can't be known, or `data.json` is damaged.
    """
    from perceiver_jax import data as data_lib  # Here, for they take seconds.
    from perceiver_jax.data import description

    with reading_data(workdir) as saved:
        if saved is not None and "fields" in saved:
            return description.from_json(saved, f"{workdir / 'data.json'}:")
        classes = [] if saved is None else list(saved["classes"])
    if "arrays" in config.data:
        fields, may_lack = _fields_of_arrays(config), ()
    else:
        try:
            data = data_lib.build_data(**config.data)
        except config_lib.UserError as error:
            raise config_lib.UserError(
                f"{workdir} is of an earlier version, which did not keep how its data are read. "
                f"{error} Or train it once more where its data are: a complete run is only "
                "evaluated, and keeps it."
            ) from error
        fields, may_lack = data.fields, tuple(sorted(data.may_lack))
    sizes = {name: getattr(field, "num_classes", 0) for name, field in fields.items()}
    sizes = {name: size for name, size in sizes.items() if size}
    names = iter(classes if len(classes) == sum(sizes.values()) else [])
    class_names = {
        name: tuple(next(names, str(i)) for i in range(size)) for name, size in sizes.items()
    }
    return description.Description(fields, class_names, may_lack)


def _fields_of_arrays(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the fields of a run on arrays from their shapes; of the targets that of the task."""
    from perceiver_jax.data.fields import array, label, number

    fields, target = {}, config.task.target
    size = config.model.outputs[target].size
    for name, form in config.data.arrays.train.items():
        dtype, _, shape = form.partition(" ")
        shape = tuple(json.loads(shape)[1:])  # Of an example.
        if name.removesuffix("_mask") in config.model.inputs:
            fields[name] = array.Array(name, shape, np.dtype(dtype))
        elif name == target and not shape:
            fields[name] = label.Label(size, multi_label=False)
        elif name == target and config.task.kind == "classification":
            fields[name] = array.MultiHot(size, multi_label=True)
        elif name == target:
            fields[name] = number.Number(size)
    return fields


def _upgraded(values: Any) -> dict[str, Any]:
    """Gives a config that an earlier version wrote the names of this one.

    Everything that compares configs sees the new names only: it must come before.
    """
    sections = ("data", "model", "train", "optimizer")
    data, model, train, optimizer = (dict(values[name]) for name in sections)
    optimizer = {"frozen": (), "depth_decay": 1.0} | optimizer
    values = {"init": {"source": "", "exclude": ()}} | values
    values |= {"data": data, "model": model, "train": train, "optimizer": optimizer}
    if "kind" not in model["encoder"]:
        model["encoder"] = {"reads": ()} | model["encoder"]
    model["inputs"] = {
        name: {"mean": 0.0, "std": 1.0} | keys if keys.get("kind") == "audio" else keys
        for name, keys in model["inputs"].items()
    }
    if "modalities" in data:
        data["fields"] = data.pop("modalities") | {"label": {"kind": "label"}}
    if "num_classes" in model:
        decoder = model.pop("decoder", {"kind": "mean_pool"})
        model["outputs"] = {"label": decoder | {"size": model.pop("num_classes")}}
    if "loss" in train:
        loss = {name: train.pop(name) for name in ("loss", "label_smoothing")}
        values["task"] = {"kind": "classification", "target": "label"} | loss
    if values["task"]["kind"] == "classification":
        values["task"] = {"class_weights": ()} | values["task"]
    return values


def _described(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Names each part of a fingerprint for messages."""
    classes = {f"class {i}": name for i, name in enumerate(fingerprint["classes"])}
    splits = {
        f"{key} of {split}": value
        for split, known in fingerprint.items()
        if split != "classes"
        for key, value in known.items()
    }
    return classes | splits
