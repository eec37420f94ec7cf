"""What users type: `--config=FILE[:arguments]` and `--config.section.key=value`.

The syntax is that of ml_collections' config flags. They are not used, for a mistake shall give one
message that says what was given, what is allowed and what was probably meant, and exit code 2:
theirs don't say in which section an unknown key was looked for, and take any tuple for a tuple.
"""

import argparse
import ast
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
import contextlib
import errno
import io
import pathlib
import re
import runpy
import signal
import sys
import traceback
import types
from typing import Any, NoReturn

import ml_collections

from perceiver_jax import config as config_lib

_ROOT = pathlib.Path(__file__).parents[1]
# What a disk, a directory or its owner can be in the way with.
_UNWRITABLE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ESTALE),
)

# Words that keys had in earlier versions; only to say what a key that is gone is called now.
_RENAMED = {"num_classes": "size", "modalities": "fields", "decoder": "outputs"}
SECTIONS = ("experiment", "seed", "data", "model", "task", "optimizer", "train", "eval")


def parse_arguments(
    arg: str,
    *,
    exclusive: Sequence[Sequence[str]] = (),
    **known: bool | Sequence[int],
) -> types.SimpleNamespace:
    """Parses the arguments of a config file, as in `imagenet.py:mini,cross_attends=4`.

    Args:
      arg: what follows the colon: flags and `name=number`, separated by commas.
      exclusive: groups of names of which at most one may be given.
      **known: False for a flag; the allowed numbers for an argument with a value.

    Returns:
      A namespace with all known names: True or False for a flag, the number or None otherwise.

    Raises:
      UserError: if an argument is unknown, given twice, has no or a wrong value, or contradicts
        another one.
    """
    options = {
        name: [name] if allowed is False else [f"{name}={number}" for number in allowed]
        for name, allowed in known.items()
    }
    given = {name: False if allowed is False else None for name, allowed in known.items()}
    seen = []
    for word in filter(None, (word.strip() for word in arg.split(","))):
        name, _, number = word.partition("=")
        if name not in known:
            raise config_lib.UserError(_unknown("argument", name, known, sum(options.values(), [])))
        if word not in options[name]:
            allowed = " or ".join(options[name])
            raise config_lib.UserError(f"Argument {word!r} is not possible; expected {allowed}.")
        if name in seen:
            raise config_lib.UserError(f"Argument {name!r} is given twice in {arg!r}; drop one.")
        given[name] = int(number) if number else True
        seen.append(name)
    for group in exclusive:
        clash = " and ".join(name for name in seen if name in group)
        if " and " in clash:
            raise config_lib.UserError(f"Arguments {clash} contradict each other; give one.")
    return types.SimpleNamespace(**given)


def parse_command_line(
    parser: argparse.ArgumentParser,
    argv: Sequence[str],
    loading: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> tuple[argparse.Namespace, ml_collections.ConfigDict]:
    """Parses a command line that has `--config` and any number of `--config.key=value`.

    Args:
      parser: knows the command's other flags; `--config` is added here.
      argv: the command line without the program's name.
      loading: entered while the config is loaded, which may import what takes seconds.

    Returns:
      The other flags, and the config with its overrides, locked.

    Raises:
      UserError: if the config can't be loaded, or an override doesn't fit it.
    """
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE[:ARGUMENTS]",
        help="a recipe, such as experiments/configs/imagenet.py:mini",
    )
    parser.epilog = "Any key of the config can be set: --config.train.steps=1000"
    words, overrides = split_overrides(argv)
    parser.error = _refuse
    flags, unknown = parser.parse_known_args(words)
    if unknown:
        known = re.findall(r"--\w+", parser.format_usage())
        raise config_lib.UserError(_unknown("flag", unknown[0].partition("=")[0], known, known))
    _split_config(flags.config)  # Before anything that takes time.
    with loading():
        return flags, load_config(flags.config, overrides)


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Returns the other words, and key and text of each `--config.key=text`."""
    words, overrides = [], []
    rest = iter(argv)
    for word in rest:
        if word.startswith("--config."):
            key, equals, text = word.removeprefix("--config.").partition("=")
            text = text if equals else next(rest, "--")
            if not equals and text.startswith("--"):
                raise config_lib.UserError(f"{word} has no value; expected {word}=VALUE.")
            overrides.append((key, text))
        else:
            words.append(word)
    return words, overrides


def load_config(
    path_and_arg: str, overrides: Sequence[tuple[str, str]] = ()
) -> ml_collections.ConfigDict:
    """Loads `FILE[:arguments]` and sets keys, each given as text.

    Raises:
      UserError: if there is no such file, if it is not Python, if it has no such argument, or
        lacks a section; or as `override`.
    """
    path, arg = _split_config(path_and_arg)
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
            f"{path}{''.join(lines[-1:])}: {type(error).__name__}: {error}. Correct the file or "
            "its arguments."
        ) from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise config_lib.UserError(
            f"get_config of {path} returned {type(config).__name__}; expected a "
            "ml_collections.ConfigDict. Correct the file."
        )
    config.lock()
    for key, text in overrides:
        override(config, key, text)
    check_sections(config)
    given = {key for key, _ in overrides}
    if "data.dataset" in given:
        _follow_dataset(config, given)
    return config


def override(config: ml_collections.ConfigDict, key: str, text: str) -> None:
    """Sets one key of a config from text, keeping its type.

    Args:
      config: the config, changed in place.
      key: names of the sections and of the key, with dots.
      text: the value as typed; Python's literals for all but strings.

    Raises:
      UserError: if there is no such key or the value has another type.
    """
    section, value, where = config, config, "config"
    for name in key.split("."):
        known = list(value) if isinstance(value, ml_collections.ConfigDict) else []
        if name not in known:
            full, keys = f"config.{key}", [f"config.{x}" for x in flatten(config)]
            meant = ".".join(_RENAMED.get(word, word) for word in full.split("."))
            same_end = [x for x in keys if x.endswith(meant[meant.rindex(".") :])]
            hint = config_lib.did_you_mean(meant, same_end or keys, 0.0 if same_end else 0.6)
            there = ", ".join(known) or "nothing"
            raise config_lib.UserError(f"Unknown key {full}.{hint} Known in {where}: {there}.")
        section, value, where = value, value[name], f"{where}.{name}"
    if isinstance(value, ml_collections.ConfigDict):
        raise config_lib.UserError(
            f"config.{key} is a section; set one of its keys: {', '.join(value)}."
        )
    if isinstance(value, str):
        section[name] = text
        return
    try:
        given = {"true": True, "false": False}.get(text.lower())
        given = ast.literal_eval(text) if given is None else given
    except (ValueError, SyntaxError):
        given = text
    try:
        section[name] = _like(value, given)
    except TypeError:
        raise config_lib.UserError(
            f"--config.{key}={text} is not possible: got {type(given).__name__} {given!r}, "
            f"expected {type(value).__name__} such as {value!r}."
        ) from None


def flatten(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Returns the value of each key of all sections, by its path."""
    flat = {}
    for key, value in config.items():
        is_section = isinstance(value, ml_collections.ConfigDict)
        flat |= flatten(value, f"{prefix}{key}.") if is_section else {f"{prefix}{key}": value}
    return flat


@contextlib.contextmanager
def user_errors_end_the_program() -> Iterator[None]:
    """Prints the message of a user's mistake and exits with code 2; bugs keep their traceback.

    A mistake is a UserError, or a file or directory that can't be read or written. Ctrl-C has the
    exit code that shells use.
    """
    for stream in (sys.stdout, sys.stderr):  # Names of files and classes may be in any encoding.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except config_lib.UserError as error:
        message = str(error)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        where = error.filename or "a file"
        message = f"Cannot read or write {where}: {error.strerror}. Make room, or choose a place."
    else:
        return
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(2)


def _split_config(path_and_arg: str) -> tuple[str, str]:
    """Returns file and arguments of `FILE[:arguments]`; raises if there is no such file."""
    path, _, arg = path_and_arg.partition(":")
    if not pathlib.Path(path).is_file():
        files = sorted((_ROOT / "experiments" / "configs").glob("*.py"))
        recipes = [file for file in files if "\ndef get_config(" in file.read_text()]
        known = [str(recipe.relative_to(_ROOT)) for recipe in recipes]
        raise config_lib.UserError(_unknown("config file", path, known, known))
    return path, arg


def _refuse(message: str) -> NoReturn:
    """What argparse calls instead of printing its usage."""
    raise config_lib.UserError(f"{message[:1].upper()}{message[1:]}. See --help.")


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
    """Sets what naming another data set implies, unless it is given: output and test split."""
    # Here, for they take a second.
    from perceiver_jax import data as data_lib
    from perceiver_jax.data import datasets

    target = config.task.target
    field = data_lib.build_data(**config.data).fields.get(target)
    if f"model.outputs.{target}.size" not in given and field is not None:
        config.model.outputs[target].size = getattr(field, "num_classes", None) or field.size
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


def _unknown(what: str, got: str, names: Iterable[str], shown: Iterable[str]) -> str:
    """Says what is unknown, what was probably meant, and all that is known."""
    hint = config_lib.did_you_mean(got, names)
    return f"Unknown {what} {got!r}.{hint} Known: {', '.join(shown) or 'none'}."
