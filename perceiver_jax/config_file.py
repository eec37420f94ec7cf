"""A config from its file: `FILE[:arguments]`, and keys that are set by their path.

The syntax is that of ml_collections' config flags. They are not used, for a mistake shall give one
message that says what was given, what is allowed and what was probably meant: theirs don't say in
which section an unknown key was looked for, and take any tuple for a tuple.
"""

import ast
from collections.abc import Container, Mapping
import os
import pathlib
import runpy
import traceback
from typing import Any

import ml_collections

from perceiver_jax import config as config_lib

_ROOT = pathlib.Path(__file__).parents[1]

# Words that keys had in earlier versions; only to say what a key that is gone is called now.
_RENAMED = {"num_classes": "size", "modalities": "fields", "decoder": "outputs"}
SECTIONS = ("experiment", "seed", "data", "model", "task", "init", "optimizer", "train", "eval")


def load_config(
    path_and_arg: str, overrides: Mapping[str, Any] | None = None
) -> ml_collections.ConfigDict:
    """Loads `FILE[:arguments]` and sets keys.

    Args:
      path_and_arg: a recipe, such as `experiments/configs/imagenet.py:mini`.
      overrides: what to set, such as `{"train.steps": 100}`; values may be text, as it is typed.

    Returns:
      The config, locked: it takes no keys that it has not.

    Raises:
      UserError: if there is no such file, if it is not Python, if it has no such argument, or
        lacks a section; or as `override`.
    """
    path, arg = find(path_and_arg)
    try:
        module = runpy.run_path(path)
        if "get_config" not in module:
            raise config_lib.UserError(
                f"{path} has no get_config(arg); a config file has to define it."
            )
        config = module["get_config"](arg)
    except config_lib.UserError:
        raise
    except Exception as error:  # Whatever the file does wrong.
        places = [
            (frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)
        ]
        places.append((getattr(error, "filename", ""), getattr(error, "lineno", 0)))  # Of syntax.
        lines = [f", line {number}" for file, number in places if file == path]
        raise config_lib.UserError(
            f"{path}{''.join(lines[-1:])}: {type(error).__name__}: "
            f"{config_lib.said(error)}. Correct the file or its arguments."
        ) from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise config_lib.UserError(
            f"get_config of {path} returned {type(config).__name__}; expected a "
            "ml_collections.ConfigDict. Correct the file."
        )
    config.lock()
    overrides = overrides or {}
    for key, value in overrides.items():
        override(config, key, value)
    check_sections(config)
    if "data.dataset" in overrides:
        _follow_dataset(config, overrides)
    return config


def override(config: ml_collections.ConfigDict, key: str, value: Any) -> None:
    """Sets one key of a config, keeping its type.

    Args:
      config: the config, changed in place.
      key: names of the sections and of the key, with dots.
      value: of that type, or text as it is typed: Python's literals for all but strings.

    Raises:
      UserError: if there is no such key or the value has another type.
    """
    section, old, where = config, config, "config"
    for name in key.split("."):
        known = list(old) if isinstance(old, ml_collections.ConfigDict) else []
        if name not in known:
            full, keys = f"config.{key}", [f"config.{x}" for x in flatten(config)]
            meant = ".".join(_RENAMED.get(word, word) for word in full.split("."))
            same_end = [x for x in keys if x.endswith(meant[meant.rindex(".") :])]
            hint = config_lib.did_you_mean(meant, same_end or keys, 0.0 if same_end else 0.6)
            there = ", ".join(known) or "nothing"
            raise config_lib.UserError(f"Unknown key {full}.{hint} Known in {where}: {there}.")
        section, old, where = old, old[name], f"{where}.{name}"
    if isinstance(old, ml_collections.ConfigDict):
        raise config_lib.UserError(
            f"config.{key} is a section; set one of its keys: {', '.join(old)}."
        )
    given = value
    if isinstance(value, str) and not isinstance(old, str):
        try:
            given = {"true": True, "false": False}.get(value.lower())
            given = ast.literal_eval(value) if given is None else given
        except (ValueError, SyntaxError):
            given = value
    try:
        section[name] = _like(old, given)
    except TypeError:
        raise config_lib.UserError(
            f"--config.{key}={value} is not possible: got {type(given).__name__} {given!r}, "
            f"expected {type(old).__name__} such as {old!r}."
        ) from None


def flatten(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Returns the value of each key of all sections, by its path."""
    flat = {}
    for key, value in config.items():
        is_section = isinstance(value, ml_collections.ConfigDict)
        flat |= flatten(value, f"{prefix}{key}.") if is_section else {f"{prefix}{key}": value}
    return flat


def find(path_and_arg: str) -> tuple[str, str]:
    """Returns file and arguments of `FILE[:arguments]`; raises if there is no such file."""
    path, _, arg = path_and_arg.partition(":")
    if not pathlib.Path(path).is_file():
        files = sorted((_ROOT / "experiments" / "configs").glob("*.py"))
        recipes = [file for file in files if "\ndef get_config(" in file.read_text()]
        known = [os.path.relpath(recipe) for recipe in recipes]
        raise config_lib.UserError(config_lib.unknown("config file", path, known, known))
    return path, arg


def check_sections(config: ml_collections.ConfigDict) -> None:
    """Checks what belongs to no section."""
    missing = [section for section in SECTIONS if section not in config]
    if missing:
        raise config_lib.UserError(
            f"The config has no {' and no '.join(missing)}; expected {', '.join(SECTIONS)}. Add "
            "them; experiments/configs has examples."
        )
    config_lib.COUNT.check("config.seed", config.seed, config.seed)
    name = config.experiment
    if not isinstance(name, str) or not name or set(name) & set("/\\\0"):
        raise config_lib.UserError(
            f"config.experiment is {name!r}; expected a name that a directory may have, such as "
            "'imagenet'."
        )


def _follow_dataset(config: ml_collections.ConfigDict, given: Container[str]) -> None:
    """Sets what naming another data set implies, unless it is given: sizes and test split."""
    # Here, for they take a second.
    from perceiver_jax import data as data_lib
    from perceiver_jax.data import datasets

    for name, field in data_lib.build_data(**config.data).fields.items():
        size = getattr(field, "num_classes", None) or getattr(field, "size", None)
        for section, key in (("inputs", "num_classes"), ("outputs", "size")):
            keys = config.model[section].get(name, {})
            if size and key in keys and f"model.{section}.{name}.{key}" not in given:
                keys[key] = size
    sizes = datasets.lookup(config.data.dataset, config.data.data_dir).sizes
    present = [split for split in ("validation", "test") if split in sizes]
    if "data.test_split" not in given and config.data.test_split not in present and present:
        config.data.test_split = present[0]


def _like(current: Any, given: Any) -> Any:
    """Returns what was given as the type of the current value; raises a TypeError if it is none."""
    if isinstance(current, float) and type(given) is int:
        return float(given)  # A whole number where any number is expected is one.
    if isinstance(current, tuple) and isinstance(given, list | tuple):
        return tuple(_like(current[0], x) if current else x for x in given)
    if current is not None and type(given) is not type(current):
        raise TypeError
    return given
