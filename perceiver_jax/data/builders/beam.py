"""Apache Beam's options, as users write them in a flag."""

from typing import Any

from perceiver_jax import config


def options(text: str) -> Any:
    """Returns the PipelineOptions of a flag such as 'runner=DirectRunner,direct_num_workers=2'.

    Raises:
        config.MissingPackageError: Beam is not installed.
    """
    try:
        from apache_beam.options import pipeline_options  # Large, and rarely needed.
    except ModuleNotFoundError as error:
        raise config.MissingPackageError(
            "--beam_pipeline_options needs the package apache-beam, which is not installed; "
            "install it with: pip install perceiver-haiku[beam]"
        ) from error
    return pipeline_options.PipelineOptions([f"--{option}" for option in text.split(",")])
