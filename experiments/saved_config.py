"""The config that a run keeps in its workdir."""

import json
import pathlib
from typing import Any

import ml_collections

from experiments import arguments

# Keys, or sections, that a run may go on with changed.
CHANGEABLE = (
    "data.data_dir",
    "eval",
    "experiment",
    "model.dtype",
    "model.encoder.chunk_size",
    "model.encoder.remat",
    "model.encoder.scan",
    "model.encoder.streaming",
    "train.checkpoint_every",
    "train.eval_every",
    "train.log_every",
    "train.max_checkpoints",
    "train.max_skipped",
    "train.steps",
)


def read(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """Reads the `config.json` of a training run.

    Raises:
      UsageError: if there is none.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise arguments.UsageError(
            f"There is no {path}; expected the workdir of a training run. Train first: "
            f"python -m experiments.train --config=... --workdir={workdir}"
        )
    return from_json(json.loads(path.read_text()))


def from_json(values: dict[str, Any]) -> ml_collections.ConfigDict:
    """Returns the config that was written as JSON."""
    return ml_collections.ConfigDict(_with_tuples(values))


def check_unchanged(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Checks that a workdir, if it has checkpoints, is of a run of the same config.

    Raises:
      UsageError: if keys differ that matter for going on.
    """
    if not any((workdir / "checkpoints").glob("[0-9]*")):
        return
    saved, given = _flatten(read(workdir)), _flatten(config)
    changed = [
        f"config.{key} was {saved.get(key, 'absent')!r}, is {given.get(key, 'absent')!r}"
        for key in sorted(saved.keys() | given.keys())
        if saved.get(key) != given.get(key)
        and not any(f"{key}.".startswith(f"{known}.") for known in CHANGEABLE)
    ]
    if changed:
        raise arguments.UsageError(
            f"{workdir} is of a run with another config: {'; '.join(changed)}. A run goes on with "
            f"what it began with, except for {', '.join(CHANGEABLE)}. Use another --workdir, or "
            "that config."
        )


def _flatten(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _with_tuples(value: Any) -> Any:
    """Turns JSON's lists back into the tuples that they were."""
    if isinstance(value, dict):
        return {key: _with_tuples(x) for key, x in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
