"""Released weights by name, from the Hugging Face Hub. The one part that uses a network."""

import pathlib

from perceiver_jax import config as config_lib
from perceiver_jax.pretrained import files

OWNER = "deepmind"
_OPTIONAL = ("preprocessor_config.json",)


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

    def get(file):
        """The path of a file; or why it is not there."""
        try:
            return pathlib.Path(huggingface_hub.hf_hub_download(repository, file)), None
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
                    return path.parent
                break
            return path.parent
    raise config_lib.UserError(
        f"{repository} is neither in the cache nor can be downloaded: "
        f"{config_lib.said(problem)[:300]}. Try again where there is a network "
        "and without HF_HUB_OFFLINE, or give the path of a file or folder that has it."
    ) from problem
