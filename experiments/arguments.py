"""What users type: `--config=FILE[:arguments]` and `--config.section.key=value`.

The syntax is that of ml_collections' config flags. They are read here because a mistake shall give
one message that says what was given, what is allowed and what was probably meant, and exit code 2.
"""

import argparse
import ast
from collections.abc import Callable, Container, Iterator, Sequence
import contextlib
import difflib
import errno
import importlib.machinery
import io
import pathlib
import re
import signal
import sys
import traceback
import types
from typing import Any, NoReturn

import ml_collections

from experiments import ranges

_ROOT = pathlib.Path(__file__).parents[1]
_OURS = ("__main__", "experiments", "perceiver_jax")
# What a disk, a directory or its owner can be in the way with.
_UNWRITABLE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ESTALE),
)
_BOOLEANS = {"true": True, "false": False}


class UsageError(ValueError):
    """A mistake of the user; its message is all that they need to see."""


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
      UsageError: if an argument is unknown, given twice, has no or a wrong value, or contradicts
        another one.
    """
    given = {}
    for word in filter(None, (word.strip() for word in arg.split(","))):
        name, equals, text = word.partition("=")
        if name not in known:
            raise UsageError(_unknown("argument", name, [_usage(*item) for item in known.items()]))
        if name in given:
            raise UsageError(f"Argument {name!r} is given twice in {arg!r}; give it once.")
        allowed = known[name]
        if allowed is False:
            if equals:
                raise UsageError(f"Argument {word!r} has a value; {name!r} is a flag. Drop it.")
            given[name] = True
        elif text in map(str, allowed):
            given[name] = int(text)
        else:
            raise UsageError(
                f"Argument {word!r} is not possible; expected one of "
                f"{', '.join(f'{name}={number}' for number in allowed)}."
            )
    for group in exclusive:
        clash = [name for name in given if name in group]
        if len(clash) > 1:
            raise UsageError(f"Arguments {' and '.join(clash)} contradict each other; give one.")
    absent = {name: False if allowed is False else None for name, allowed in known.items()}
    return types.SimpleNamespace(**(absent | given))


def parse_command_line(
    parser: argparse.ArgumentParser,
    argv: Sequence[str],
    loading: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> tuple[argparse.Namespace, ml_collections.ConfigDict]:
    """Parses a command line that has `--config` and any number of `--config.key=value`.

    Args:
      parser: knows the command's other flags; `--config` is added here.
      argv: the command line without the program's name.
      loading: entered while the config is loaded, which takes seconds, for it imports JAX.

    Returns:
      The other flags, and the config with its overrides, locked.

    Raises:
      UsageError: if the config can't be loaded or an override doesn't fit it.
      ValueError: if a value is out of range.
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
        raise UsageError(_unknown("flag", unknown[0].partition("=")[0], known))
    _require_recipe(flags.config)
    with loading():
        return flags, load_config_with(flags.config, overrides)


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Returns the other words, and key and text of each `--config.key=text`."""
    words, overrides = [], []
    rest = iter(argv)
    for word in rest:
        if word.startswith("--config."):
            key, equals, text = word.removeprefix("--config.").partition("=")
            overrides.append((key, text if equals else next(rest, "")))
        else:
            words.append(word)
    return words, overrides


def load_config_with(
    path_and_arg: str, overrides: Sequence[tuple[str, str]]
) -> ml_collections.ConfigDict:
    """Loads `FILE[:arguments]` and sets keys, as `parse_command_line` does; same errors."""
    config = load_config(path_and_arg)
    for key, text in overrides:
        override(config, key, text)
    given = {key for key, _ in overrides}
    if "data.dataset" in given:
        _follow_dataset(config, given)
    ranges.check(config)
    return config


def load_config(path_and_arg: str) -> ml_collections.ConfigDict:
    """Loads `FILE[:arguments]`.

    Raises:
      UsageError: if there is no such file, if it is not Python, or if it has no such argument.
    """
    name, path, arg = _require_recipe(path_and_arg)
    loader = importlib.machinery.SourceFileLoader("experiments.config_file", str(path))
    module = types.ModuleType(loader.name)
    module.__file__ = str(path)
    with _errors_of(path):
        loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UsageError(f"{name} has no get_config(arg); a config file has to define it.")
        config = module.get_config(arg)
    if not isinstance(config, ml_collections.ConfigDict):
        raise UsageError(
            f"get_config of {name} returned {type(config).__name__}; expected a "
            "ml_collections.ConfigDict. Correct the file."
        )
    return config.lock()


def _require_recipe(path_and_arg: str) -> tuple[str, pathlib.Path, str]:
    """Returns the parts of `FILE[:arguments]`; raises if there is no such file."""
    name, _, arg = path_and_arg.partition(":")
    path = pathlib.Path(name)
    if not path.is_file():
        files = sorted((_ROOT / "experiments" / "configs").glob("*.py"))
        recipes = [file for file in files if "\ndef get_config(" in file.read_text()]
        known = [str(recipe.relative_to(_ROOT)) for recipe in recipes]
        raise UsageError(_unknown("config file", name, known))
    return name, path, arg


def override(config: ml_collections.ConfigDict, key: str, text: str) -> None:
    """Sets one key of a config from text, keeping its type.

    Args:
      config: the config, changed in place.
      key: names of the sections and of the key, with dots.
      text: the value as typed; Python's literals for all but strings.

    Raises:
      UsageError: if there is no such key or the value has another type.
    """
    parent, value, seen = config, config, ["config"]
    for name in key.split("."):
        if not isinstance(value, ml_collections.ConfigDict) or name not in value:
            nearest = _nearest(f"config.{key}", list(_keys(config, "config.")))
            where = ".".join(seen)
            raise UsageError(
                f"Unknown key config.{key}.{nearest} Known in {where}: {_list(value)}."
            )
        parent, value = value, value[name]
        seen.append(name)
    if isinstance(value, ml_collections.ConfigDict):
        raise UsageError(f"config.{key} is a section; set one of its keys: {_list(value)}.")
    parent[name] = _parse_value(key, text, value)


@contextlib.contextmanager
def user_errors_end_the_program() -> Iterator[None]:
    """Prints the message of a user's mistake and exits with code 2; bugs keep their traceback.

    A mistake is a UsageError; an error that the project's own code raises on purpose (one from
    inside a library is a bug); or a directory that can't be written to. Ctrl-C has the exit code
    that shells use.
    """
    for stream in (sys.stdout, sys.stderr):  # Names of files and classes may be in any encoding.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except (ValueError, TypeError, ArithmeticError, OSError, ImportError) as error:
        unwritable = isinstance(error, OSError) and error.errno in _UNWRITABLE
        if not (isinstance(error, UsageError) or unwritable or _raised_on_purpose(error)):
            raise
        if unwritable and not _raised_on_purpose(error):
            where = error.filename or "a file"
            error = f"Cannot read or write {where}: {error.strerror}. Make room, or choose a place."
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)


@contextlib.contextmanager
def _errors_of(path: pathlib.Path) -> Iterator[None]:
    """Says where in a config file an error comes from."""
    try:
        yield
    except UsageError:
        raise
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise UsageError(
            f"{error.filename}, line {error.lineno}: {error.msg}: {line!r}. Correct the file."
        ) from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        raise UsageError(
            f"{path}{where}: {type(error).__name__}: {error}. Correct the file or its arguments."
        ) from error


def _refuse(message: str) -> NoReturn:
    """What argparse calls instead of printing its usage."""
    raise UsageError(f"{message[:1].upper()}{message[1:]}. See --help.")


def _raised_on_purpose(error: Exception) -> bool:
    frame, _ = list(traceback.walk_tb(error.__traceback__))[-1]
    module = frame.f_globals.get("__name__", "")
    path = pathlib.Path(frame.f_code.co_filename)
    if not module and path.is_relative_to(_ROOT):
        # Grain's, of a worker process, have but a path.
        module = path.relative_to(_ROOT).parts[0]
    line = traceback.extract_tb(error.__traceback__)[-1].line or ""
    return module.partition(".")[0] in _OURS and line.startswith("raise ")


def _follow_dataset(config: ml_collections.ConfigDict, given: Container[str]) -> None:
    """Sets what naming another data set implies, unless it is given: classes and test split."""
    from perceiver_jax.data import datasets  # Takes a second.

    dataset = datasets.lookup(config.data.dataset, config.data.data_dir)
    if "model.num_classes" not in given:
        config.model.num_classes = dataset.num_classes
    present = [split for split in ("validation", "test") if split in dataset.sizes]
    if "data.test_split" not in given and config.data.test_split not in present and present:
        config.data.test_split = present[0]


def _usage(name: str, allowed: bool | Sequence[int]) -> str:
    return name if allowed is False else f"{name}={'|'.join(map(str, allowed))}"


def _unknown(what: str, got: str, known: Sequence[str]) -> str:
    """Says what is unknown, what was probably meant, and all that is known."""
    nearest = _nearest(got, [item.partition("=")[0] for item in known])
    return f"Unknown {what} {got!r}.{nearest} Known: {', '.join(known) or 'none'}."


def _nearest(got: str, known: Sequence[str]) -> str:
    """The question whether the nearest known name was meant; empty if none is near."""
    same_end = [name for name in known if name.rpartition(".")[2] == got.rpartition(".")[2]]
    nearest = difflib.get_close_matches(got, known, n=1) or same_end
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def _list(section: ml_collections.ConfigDict) -> str:
    return ", ".join(section) if isinstance(section, ml_collections.ConfigDict) else "nothing"


def _keys(config: ml_collections.ConfigDict, prefix: str) -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _parse_value(key: str, text: str, current: Any) -> Any:
    if isinstance(current, str):
        return text
    expected = type(current)
    try:
        value = _BOOLEANS[text.lower()] if text.lower() in _BOOLEANS else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if expected is tuple and type(value) is list:
        value = tuple(value)
    if expected is tuple and type(value) is tuple and current:
        value = tuple(_as(type(current[0]), x) for x in value)
        fits = all(type(x) is type(current[0]) for x in value)
    else:
        value = _as(expected, value)
        fits = current is None or type(value) is expected
    if not fits:
        raise UsageError(
            f"--config.{key}={text} is not possible: got {type(value).__name__} {value!r}, "
            f"expected {expected.__name__} such as {current!r}."
        )
    return value


def _as(expected: type, value: Any) -> Any:
    """A whole number where any number is expected is one."""
    return float(value) if expected is float and type(value) is int else value
