"""What builders of clips with video and audio share: decoding and shards that a build resumes."""

from perceiver_jax import config

try:
    import av  # noqa: F401
except ModuleNotFoundError as error:
    raise config.MissingPackageError(
        "Preparing clips needs the package av (PyAV), which is not installed; install it with: "
        "pip install perceiver-haiku[av]"
    ) from error
