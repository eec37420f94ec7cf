"""The config that a run keeps in its workdir."""

import json
import pathlib
from typing import Any

import ml_collections

from experiments import arguments

# Keys, or sections, that a run may go on with changed.
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
      UsageError: if there is none, or if it can't be read.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise arguments.UsageError(
            f"There is no {path}; expected the workdir of a training run. Train first: "
            f"python -m experiments.train --config=... --workdir={workdir}"
        )
    try:
        return from_json(json.loads(path.read_text()))
    except ValueError as error:
        raise arguments.UsageError(
            f"{path} is damaged: {error}. Each checkpoint has a copy: write what is under "
            "'config' in the file metadata/metadata of one of them there."
        ) from error


def from_json(values: dict[str, Any]) -> ml_collections.ConfigDict:
    """Returns the config that was written as JSON."""
    return ml_collections.ConfigDict(_with_tuples(values))


def check_unchanged(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, accept_changes: bool = False
) -> list[str]:
    """Checks that a workdir, if it has checkpoints, is of a run of the same config.

    Args:
      config: what is going to be trained.
      workdir: where.
      accept_changes: return what differs, instead of refusing.

    Returns:
      A line for each key that matters for going on and differs: `key: was -> is`.

    Raises:
      UsageError: if there are such lines, and they are not accepted.
    """
    if not any((workdir / "checkpoints").glob("[0-9]*")):
        return []
    saved, given = _flatten(read(workdir)), _flatten(config)
    changed = [
        f"config.{key}: {saved.get(key, 'absent')!r} -> {given.get(key, 'absent')!r}"
        for key in sorted(saved.keys() | given.keys())
        if saved.get(key) != given.get(key)
        and not any(f"{key}.".startswith(f"{known}.") for known in CHANGEABLE)
    ]
    if changed and not accept_changes:
        raise arguments.UsageError(
            "\n  ".join([f"{workdir} is of a run with another config (was -> is):", *changed])
            + f"\nA run goes on with what it began with, except for {', '.join(CHANGEABLE)}. Use "
            "another --workdir, or that config; --accept_changes goes on all the same."
        )
    return changed


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
