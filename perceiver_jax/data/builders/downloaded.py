"""Any data set that TFDS knows, downloaded and built by it."""

import argparse
import pathlib

import tensorflow_datasets as tfds

from perceiver_jax import config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this kind."""
    parser.add_argument("--name", required=True, help="TFDS's name: cifar10, imagenette/320px, ...")
    parser.add_argument("--source", help="directory of what TFDS can't download itself")


def from_flags(
    flags: argparse.Namespace, data_dir: pathlib.Path
) -> tuple[tfds.core.DatasetBuilder, tfds.download.DownloadConfig]:
    """Returns the builder, and where its source is."""
    try:
        builder = tfds.builder(flags.name, data_dir=data_dir, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        raise config.UserError(
            f"TFDS has no data set {flags.name!r}; expected one of those that "
            "tfds.list_builders() lists. Correct --name."
        ) from error
    return builder, tfds.download.DownloadConfig(manual_dir=flags.source)
