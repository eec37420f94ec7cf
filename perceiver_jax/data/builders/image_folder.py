"""Pictures in a folder per class, stored as they are encoded."""

from collections.abc import Iterator
import pathlib
from typing import Any

import rich.console
import rich.progress
import tensorflow_datasets as tfds

from perceiver_jax.data import errors
from perceiver_jax.data.builders import class_folders, report
from perceiver_jax.data.fields import image

SUFFIXES = frozenset(
    {
        *(".apng", ".avif", ".avifs", ".bmp", ".gif", ".heic", ".heif", ".hif", ".j2c", ".j2k"),
        *(".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".pbm", ".pfm"),
        *(".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
    }
)


class ImageFolder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Every picture is decoded once, and left out if that fails; `skipped` says which and why."""

    VERSION = tfds.core.Version("1.0.0")

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
        self.name = name
        self._source = source
        self._files = class_folders.find(source, SUFFIXES, test_fraction, "pictures")
        self.skipped = list(self._files.skipped)
        self.note = self._files.note
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pictures in a folder per class.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(),
                    "label": tfds.features.ClassLabel(names=self._files.classes),
                    "file_name": tfds.features.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict]]]:
        del dl_manager  # Nothing is downloaded.
        return {split: self._generate_examples(split) for split in self._files.splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        files = rich.progress.track(
            self._files.splits[split],
            description=f"Checking {self.name}, {split} split",
            console=rich.console.Console(stderr=True),
        )
        skipped: list[report.Skipped] = []
        for name, label in files:
            try:
                encoded = (self._source / name).read_bytes()
                image.decode(encoded)
            except errors.BadDataError as error:
                skipped.append(report.Skipped(name, error.cause, error.detail))
            except ImportError as error:  # HEIC needs a package.
                raise ImportError(f"{name}: {error}") from error
            except OSError as error:
                skipped.append(report.Skipped(name, "can't be read", str(error)))
            else:
                yield name, {"image": encoded, "label": label, "file_name": name}
        self.skipped += skipped
        num_files = len(self._files.splits[split])
        report.check_any(num_files - len(skipped), "pictures", f"the {split} split", skipped)
