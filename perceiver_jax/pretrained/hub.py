"""Released weights by name, from the Hugging Face Hub. The one part that uses a network."""

from collections.abc import Iterator
import contextlib
import errno
import logging
import pathlib
import socket
import time

from perceiver_jax import config as config_lib
from perceiver_jax.pretrained import files

OWNER = "deepmind"
_OPTIONAL = ("preprocessor_config.json",)

# Of a network that is not there; a slow or disturbed one, or a server that is busy, has others.
_NO_NETWORK = (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
_PAUSE = 0.5  # Seconds.
_PATIENCE = 2.0  # Seconds in which a network that is not there may come.


def fetch(name: str) -> pathlib.Path:
    """Returns the folder of a released model, downloaded unless it is in the Hub's cache.

    The cache is where `HF_HOME` says; with `HF_HUB_OFFLINE=1` nothing else is used.

    Args:
      name: one of `configs.RELEASED`.

    Raises:
      MissingPackageError: if huggingface_hub is not installed.
      UserError: if it is neither in the cache nor can be downloaded.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise config_lib.MissingPackageError(
            f"Got {name!r}, the name of a released model, which the package huggingface_hub "
            "downloads. Install it: pip install perceiver-haiku[hub]; or give the path of a file "
            "or folder that has it."
        ) from error

    repository = f"{OWNER}/{name}"
    with _printed_once():
        unreachable = _unreachable(repository)
        path, problem = _get_all(repository, only_cached=unreachable is not None)
    if path is not None:
        return path
    remedy = "Try again where there is a network"
    if isinstance(unreachable, errors.OfflineModeIsEnabled):
        why, remedy = "HF_HUB_OFFLINE is set", "Unset it"
    elif unreachable is not None:
        why = f"{huggingface_hub.constants.ENDPOINT} is out of reach ({_reason(unreachable)})"
    else:
        # The Hub's own words of a lost connection say what to do, as ours do.
        is_lost = isinstance(problem, errors.LocalEntryNotFoundError) and problem.__cause__
        why = config_lib.said(problem.__cause__ if is_lost else problem)[:300]
    raise config_lib.UserError(
        f"{repository} is neither in the cache nor can be downloaded: {why}. {remedy}, or give the "
        "path of a file or folder that has it."
    ) from (problem if unreachable is None else None)  # Which is said in full.


def _get_all(
    repository: str, only_cached: bool
) -> tuple[pathlib.Path | None, BaseException | None]:
    """Returns the folder of a model; or why it is not there."""
    import huggingface_hub
    from huggingface_hub import errors

    def get(file):
        """The path of a file; or why it is not there."""
        try:
            path = huggingface_hub.hf_hub_download(repository, file, local_files_only=only_cached)
            return pathlib.Path(path), None
        # Of the Hub, of its HTTP library (whichever that is), and of the disk.
        except (errors.HfHubHTTPError, errors.EntryNotFoundError, OSError, RuntimeError) as error:
            return None, error

    config, problem = get("config.json")
    if config is not None:
        for file in _OPTIONAL:
            get(file)
        for file in files.WEIGHTS:
            path, problem = get(file)
            if path is None:
                continue
            if file.endswith(".index.json"):
                for part in dict.fromkeys(files.parts(path).values()):
                    part_path, problem = get(part)
                    if part_path is None:
                        break
                else:
                    return path.parent, None
                break
            return path.parent, None
    return None, problem


def _unreachable(repository: str) -> BaseException | None:
    """Returns why no request reaches the Hub, if there is no network, or none is wanted.

    `hf_hub_download` would ask six times for each file, in half a minute. What may be for a moment
    only is left to it.
    """
    import huggingface_hub
    from huggingface_hub import errors

    url = huggingface_hub.hf_hub_url(repository, "config.json")
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            huggingface_hub.get_hf_file_metadata(url)
            return None
        except errors.OfflineModeIsEnabled as error:
            return error
        except Exception as error:  # Of its HTTP library, whichever that is.
            if not _is_no_network(error):
                return None
            if time.monotonic() > until:
                return error
        time.sleep(_PAUSE)


def _is_no_network(error: BaseException) -> bool:
    """Whether an error, or what it comes from, is that no server was found, or none was there."""
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return True
        if isinstance(cause, OSError) and cause.errno in _NO_NETWORK:
            return True
    return False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: BaseException) -> str:
    """What the system says, which is the last of the causes: libraries put more around it."""
    (*_, last) = (cause for cause in _causes(error) if isinstance(cause, OSError))
    return config_lib.said(last.strerror or last)


@contextlib.contextmanager
def _printed_once() -> Iterator[None]:
    """Keeps the Hub's messages, which it prints itself, from the handler that orbax adds, too."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.propagate
    logger.propagate = not logger.handlers and before
    try:
        yield
    finally:
        logger.propagate = before
