"""Where compiled programs are kept, so that the next start loads them instead of compiling again.

JAX names a program by its operations, the compiler's version and options, and the processor, so
that runs of any config may share a directory, one after another or at once. What it can't read or
write it compiles anew, with a warning.
"""

import argparse
import os
import pathlib
import stat
import sys
import zlib

from experiments import cli

_ENVIRONMENT = "JAX_COMPILATION_CACHE_DIR"
_NAME = ".jax_cache"
_MAX_BYTES = 2**30  # A mini has 1.5 MB of programs.
_CHECKED = ".checked"
_ZSTD = b"\x28\xb5\x2f\xfd"  # What JAX compresses with where it can; else zlib.


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Adds the flag whose value `use` takes."""
    parser.add_argument(
        "--compilation_cache",
        metavar="DIR",
        help=f"where compiled programs are kept; default: {_ENVIRONMENT}, or {_NAME} beside the "
        "workdir; empty: nowhere",
    )


def use(flag: str | None, workdir: pathlib.Path) -> None:
    """Makes this process keep what it compiles, and load what is kept.

    To be called before JAX compiles anything. Nothing is written until it does. A directory that
    can't be used is said on stderr, and nothing is kept.

    Args:
      flag: the directory; empty: none; None: what `JAX_COMPILATION_CACHE_DIR` says, or one beside
        the workdir.
      workdir: of the run.
    """
    import jax

    given = os.environ.get(_ENVIRONMENT) if flag is None else flag
    path = workdir.absolute().parent / _NAME if given is None else pathlib.Path(given).absolute()
    if given == "" or not jax.config.jax_enable_compilation_cache:
        jax.config.update("jax_compilation_cache_dir", None)
        return
    if "://" in (given or ""):
        jax.config.update("jax_compilation_cache_dir", given)
        return
    if problem := _problem(path, trusted=given is not None):
        if jax.process_index() == 0:
            print(
                f"Compiled programs are not kept: {path} {problem}. Choose another place with "
                "--compilation_cache=DIR; --compilation_cache= keeps none without this message.",
                file=sys.stderr,
            )
        jax.config.update("jax_compilation_cache_dir", None)
        return
    if jax.process_index() == 0 and path.is_dir():
        _tidy(path)
    jax.config.update("jax_compilation_cache_dir", str(path))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _problem(path: pathlib.Path, trusted: bool) -> str | None:
    """Why a directory, which need not be there yet, can't be used; None if it can."""
    present = next(parent for parent in (path, *path.parents) if parent.exists())
    if not present.is_dir():
        return f"can't be a directory, {present} is none"
    if cli.unwritable(path):
        return "can't be written"
    # A program in it is run as it is: nobody else may have put it there, unless the user says so.
    status = present.stat()
    if not trusted and present == path:
        if status.st_uid != os.getuid() or status.st_mode & stat.S_IWOTH:
            return "can be written by others"
    return None


def _tidy(path: pathlib.Path) -> None:
    """Removes entries that a killed process or a full disk left incomplete, and then the oldest.

    JAX would neither load nor replace an incomplete one. Each entry is looked at once. Other
    processes may remove entries at the same time, or miss one: they compile it.
    """
    # Not `jax_compilation_cache_max_size`: it looks at all entries whenever one is written, 0.14 s
    # each time of 2,000; and one without its time of access, which a kill leaves, ends all writing.
    marker = path / _CHECKED
    try:
        checked = marker.stat().st_mtime_ns if marker.exists() else 0
        marker.touch()
        room = _MAX_BYTES
        newest_first = sorted(
            path.glob("*-cache"), key=lambda x: x.stat().st_mtime_ns, reverse=True
        )
        for entry in newest_first:
            status = entry.stat()
            room -= status.st_size
            if room < 0 or (status.st_mtime_ns >= checked and _is_incomplete(entry.read_bytes())):
                entry.unlink()
    except OSError as error:
        print(f"Compiled programs in {path} were not tidied: {error}", file=sys.stderr)


def _is_incomplete(entry: bytes) -> bool:
    try:
        zlib.decompress(entry)
    except zlib.error:
        # What zstd compressed is not to be told without a package that JAX does not ask for.
        return not entry.startswith(_ZSTD)
    return False
