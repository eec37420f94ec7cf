"""ImageNet (ILSVRC 2012) by TFDS's own builder, without TensorFlow."""

import argparse
from collections.abc import Iterator
import io
import pathlib
from typing import Any

import PIL.Image
import tensorflow_datasets as tfds
from tensorflow_datasets.datasets.imagenet2012 import imagenet2012_dataset_builder as original

from perceiver_jax import config

TARS = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}

File = io.BufferedIOBase

_NOT_RGB_JPEG = frozenset(original.CMYK_IMAGES + original.PNG_IMAGES)
_JPEG_QUALITY = 95  # TensorFlow's, which the original uses.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this kind."""
    parser.add_argument("--source", required=True, help="directory of the two official tar files")


def from_flags(
    flags: argparse.Namespace, data_dir: pathlib.Path
) -> tuple["Imagenet2012", tfds.download.DownloadConfig]:
    """Returns the builder, and where its source is."""
    return Imagenet2012(data_dir=data_dir), tfds.download.DownloadConfig(manual_dir=flags.source)


class Imagenet2012(original.Builder, skip_registration=True):
    """The original's features, labels, names and version; TensorFlow opens no file of it.

    The test split is left out, for its labels were never published.
    """

    name = "imagenet2012"
    pkg_dir_path = original.Builder.pkg_dir_path

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict]]]:
        tars = {split: pathlib.Path(dl_manager.manual_dir, tar) for split, tar in TARS.items()}
        present = {split: tar for split, tar in tars.items() if tar.is_file()}
        if not present:
            raise config.MissingFileError(
                f"There is no {' and no '.join(TARS.values())} in {dl_manager.manual_dir}; "
                "expected at least one. Download them from image-net.org and name their "
                "directory with --source."
            )
        examples = {"train": self._generate_examples, "validation": _validation_examples}
        return {split: examples[split](_members(tar)) for split, tar in present.items()}

    def _fix_image(self, image_fname: str, image: File) -> File:
        if image_fname not in _NOT_RGB_JPEG:
            return image
        fixed = io.BytesIO()
        with PIL.Image.open(image) as file:
            file.convert("RGB").save(fixed, format="jpeg", quality=_JPEG_QUALITY)
        fixed.seek(0)
        return fixed


def _validation_examples(
    members: Iterator[tuple[str, File]],
) -> Iterator[tuple[str, dict]]:
    # By the number in the name; by its rank among the names, as the original has it, an
    # incomplete archive would get wrong labels.
    path = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt")
    labels = path.read_text().split()
    for name, file in members:
        number = int(pathlib.PurePath(name).stem.rpartition("_")[2])
        yield name, {"file_name": name, "image": file, "label": labels[number - 1]}


def _members(tar: pathlib.Path) -> Iterator[tuple[str, File]]:
    with tar.open("rb") as file:  # Given a path, TFDS opens it with TensorFlow.
        yield from tfds.download.iter_archive(file, tfds.download.ExtractMethod.TAR_STREAM)
