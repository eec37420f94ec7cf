"""What users type, `--config=FILE[:arguments]` and `--config.key=value`, and their mistakes."""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import errno
import io
import itertools
import os
import pathlib
import re
import signal
import sys
import tempfile
from typing import TYPE_CHECKING, Any, NoReturn

import ml_collections

from perceiver_jax import config as config_lib
from perceiver_jax import config_file

if TYPE_CHECKING:
    from perceiver_jax import classical

_FLAG = re.compile(r"-(?!\d|\.\d|$)")  # How it begins; a number, and `-` alone, are values.

# What a disk, a directory or its owner can be in the way with.
_UNWRITABLE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ESTALE),
)


class Parser(argparse.ArgumentParser):
    """A command's flags, of which a mistake is a UserError instead of a page of usage.

    Flags are typed in full: an abbreviation would change its meaning with the next flag.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        """Takes what argparse does."""
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def parse_known_args(self, args=None, namespace=None):
        """Parses words; refuses an unknown flag first, which is why another one is missing."""
        args = list(sys.argv[1:] if args is None else args)
        for word in itertools.takewhile(lambda word: word not in ("--", "-h", "--help"), args):
            if self._subparsers is not None and not word.startswith("-"):
                break  # A command, whose own parser takes the rest.
            self._check_flag(word)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """What argparse calls when something is wrong."""
        message = config_lib.said(message)
        end = "" if message.endswith("?") else "."
        raise config_lib.UserError(f"{message[:1].upper()}{message[1:]}{end} See --help.")

    def _check_flag(self, word: str) -> None:
        flag = word.partition("=")[0]
        # The rest is what argparse takes for a value, too.
        if flag in self._option_string_actions or not _FLAG.match(word) or " " in word:
            return
        if self._subparsers is not None:
            self.error(f"Got {flag} before a command; expected the command first")
        hint = config_lib.did_you_mean(flag, self._option_string_actions)
        self.error(f"Unknown flag {flag!r}.{hint}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Argparse's own, with a suggestion."""
        if action.choices is not None and value not in action.choices:
            known = list(action.choices)
            hint = config_lib.did_you_mean(value, known)
            raise argparse.ArgumentError(action, f"got {value!r}; expected one of {known}.{hint}")


def parse_command_line(
    parser: Parser,
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
      UserError: for a mistake in flags, if the config can't be loaded, or an override doesn't fit.
    """
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE[:ARGUMENTS]",
        help="a recipe, such as experiments/configs/imagenet.py:mini",
    )
    parser.epilog = "Any key of the config can be set: --config.train.steps=1000"
    words, overrides = split_overrides(argv)
    flags = parser.parse_args(words)
    config_file.find(flags.config)  # Before anything that takes time.
    with loading():
        return flags, config_file.load_config(flags.config, overrides)


def parse_with_files(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    """Parses a command line whose `files` may stand among flags; all words behind `--` are files.

    Args:
      parser: has the positional argument `files`, any number of them.
      argv: the command line without the program's name.
    """
    words = list(argv)
    # Argparse refuses `--` where flags and files are mixed.
    end = words.index("--") if "--" in words else len(words)
    flags = parser.parse_intermixed_args(words[:end])
    flags.files = [*flags.files, *words[end + 1 :]]
    return flags


def check_up(up: str | None, fields: Mapping[str, Any]) -> None:
    """Refuses `--up`, the vertical axis of points, if it is given for a model that reads none.

    Args:
      up: the flag.
      fields: of the model.
    """
    read = {name: field for name, field in fields.items() if not field.is_target}
    if up is not None and all(field.feature != "points" for field in read.values()):
        raise config_lib.UserError(
            f"Got --up for a model that reads {sorted(read)}, which are no points. Leave it out."
        )


def check_place(
    flag: str,
    path: pathlib.Path | None,
    *,
    is_folder: bool = True,
    may_be_there: bool = True,
    remedy: str = "remove it",
) -> None:
    """Refuses a place for results that can't be written to, before anything takes time.

    Args:
      flag: its name.
      path: what it says; None: nothing is written.
      is_folder: or else a file.
      may_be_there: whether it may be a file already, or a folder that holds something.
      remedy: what can be done with what is there.

    Raises:
      UserError: if it is of the other kind, is there and may not be, or can't be written to.
    """
    if path is None:
        return
    if os.path.exists(path):
        if path.is_dir() != is_folder:
            expected, found = ("a folder", "a file")[:: 1 if is_folder else -1]
            raise config_lib.UserError(
                f"Got --{flag}={path}, which is {found}; expected {expected}. Choose another name."
            )
        if not may_be_there and (not is_folder or any(path.iterdir())):
            raise config_lib.UserError(
                f"{path} is there already; expected a new --{flag}. Choose another, or {remedy}."
            )
    if problem := unwritable(path):
        raise config_lib.UserError(
            f"Got --{flag}={path}, but {problem}; expected a place for new files. Choose another."
        )


def unwritable(path: pathlib.Path) -> str:
    """Says why a file or folder, which need not be there, can't be written to; '' if it can.

    Where it is to be made, a folder is made for a moment: modes say too little of /proc, say.
    """
    places = (path.absolute(), *path.absolute().parents)
    there = next(place for place in places if os.path.exists(place))
    if there == places[0] and not there.is_dir():
        return "" if os.access(there, os.W_OK) else f"{there} can't be written to"
    try:
        with tempfile.TemporaryDirectory(dir=there):
            return ""
    except OSError as error:
        return f"{there} can't be written to ({error.strerror})"


def split_overrides(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Returns the other words, and by key the text of each `--config.key=text`."""
    words, overrides = [], {}
    rest = iter(argv)
    for word in rest:
        if word.startswith("--config."):
            key, equals, text = word.removeprefix("--config.").partition("=")
            text = text if equals else next(rest, "--")
            if not equals and text.startswith("--"):
                raise config_lib.UserError(f"{word} has no value; expected {word}=VALUE.")
            overrides[key] = text
        else:
            words.append(word)
    return words, overrides


def add_baseline_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `--baseline`, see `fit_baseline`."""
    parser.add_argument(
        "--baseline",
        action="store_true",
        help="train a classical model (scikit-learn) on the same data before, and compare",
    )


def fit_baseline(config: ml_collections.ConfigDict) -> "classical.Result":
    """Trains a classical model of the data of a config, and says how good it is.

    Raises:
      UserError: if there is none of such data.
    """
    from perceiver_jax import classical, data  # What takes seconds.

    given = data.build_data(**config.data)  # Refuses what there is not, before anything is said.
    print("baseline: reading and training ...", end=" ", flush=True)
    result = classical.fit(given, config.task.target)
    print(classical.describe(result))
    return result


def compare(baseline: "classical.Result | None", metrics: Mapping[str, float]) -> None:
    """Says how much better than a baseline, if there is one, a model of these metrics is."""
    if baseline is not None:
        from perceiver_jax import classical

        print(classical.compare(baseline, metrics))


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
