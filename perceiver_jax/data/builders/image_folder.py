"""Images in a folder per class, stored as they are encoded."""

import argparse
from collections.abc import Iterator, Sequence
import pathlib

import tensorflow_datasets as tfds

from perceiver_jax.data import errors
from perceiver_jax.data.builders import base, class_folders, report
from perceiver_jax.data.fields import image

SUFFIXES = frozenset(
    {
        *(".apng", ".avif", ".avifs", ".bmp", ".gif", ".heic", ".heif", ".hif", ".j2c", ".j2k"),
        *(".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".pbm", ".pfm"),
        *(".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
    }
)

add_arguments = class_folders.add_arguments


def from_flags(flags: argparse.Namespace, data_dir: pathlib.Path) -> tuple["ImageFolder", None]:
    """Returns the builder, and nothing that TFDS has to download."""
    name = class_folders.choose_name(flags)
    return ImageFolder(flags.source, name, data_dir, flags.test_fraction), None


class ImageFolder(base.FilesBuilder, skip_registration=True):
    """Every image is decoded once, and left out if that fails; `skipped` says which and why."""

    WHAT = "images"

    def __init__(
        self, source: pathlib.Path, name: str, data_dir: pathlib.Path, test_fraction: float = 0.1
    ):
        """Looks for the files.

        Args:
            source: has a folder for each class, or for each split, see `class_folders.find`.
            name: of the data set.
            data_dir: where TFDS keeps data sets.
            test_fraction: how much is for testing, where the folders don't say.
        """
        files = class_folders.find(source, SUFFIXES, test_fraction, self.WHAT)
        self.name, self.note, self._source = name, files.note, source
        super().__init__(
            tasks=files.splits, classes=files.classes, skipped=files.skipped, data_dir=data_dir
        )

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Images in a folder per class.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(),
                    "label": tfds.features.ClassLabel(names=self._classes),
                    "file_name": tfds.features.Text(),
                }
            ),
        )

    def _read(self, tasks: Sequence[tuple[str, str]]) -> Iterator[list[base.Result]]:
        for name, label in tasks:
            try:
                encoded = (self._source / name).read_bytes()
                image.decode(encoded)
            except errors.BadDataError as error:
                yield [report.left_out(name, error.cause, error.detail)]
            except ImportError as error:  # HEIC needs a package.
                raise type(error)(f"{name}: {error}") from error
            except OSError as error:
                yield [report.left_out(name, "can't be read", str(error))]
            else:
                yield [(name, {"image": encoded, "label": label, "file_name": name})]
