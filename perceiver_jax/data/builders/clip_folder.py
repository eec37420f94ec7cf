"""Audio or videos of one's own in a folder per class, stored as AudioSet's clips are."""

import argparse
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from perceiver_jax.data.builders import class_folders
from perceiver_jax.data.builders.clips import builder, decode, shards

add_arguments = class_folders.add_arguments


def from_flags(
    flags: argparse.Namespace, data_dir: pathlib.Path
) -> tuple["ClipFolder", tfds.download.DownloadConfig]:
    """Returns the builder, and where its source is."""
    name, has_video = class_folders.choose_name(flags), flags.kind == "video_folder"
    built = ClipFolder(flags.source, name, data_dir, has_video, flags.test_fraction)
    return built, tfds.download.DownloadConfig(manual_dir=flags.source)


class ClipFolder(builder.ClipBuilder, skip_registration=True):
    """One class a clip; with video, clips may lack video or audio, without, all have audio."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "A folder per class; see docs/audioset.md."

    def __init__(
        self,
        source: pathlib.Path,
        name: str,
        data_dir: pathlib.Path,
        has_video: bool,
        test_fraction: float = 0.1,
    ):
        """Looks for the files.

        Args:
            source: has a folder for each class, or for each split, see `class_folders.find`.
            name: of the data set.
            data_dir: where TFDS keeps data sets.
            has_video: whether to store videos, or else audio alone.
            test_fraction: how much is for testing, where the folders don't say.
        """
        self.name = name
        self._has_video = has_video
        self._files = class_folders.find(source, builder.SUFFIXES, test_fraction, "clips")
        self.note = self._files.note
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "clip_id": tfds.features.Text(),
            "audio": tfds.features.Tensor(shape=(), dtype=np.object_),  # A FLAC file.
            "label": tfds.features.ClassLabel(names=self._files.classes),
        }
        if self._has_video:
            frame = tfds.features.Image(encoding_format="jpeg")
            features["video"] = tfds.features.Sequence(frame)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Clips in a folder per class.",
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(may_lack=["audio", "video"] if self._has_video else []),
        )

    def _find(self, source: pathlib.Path) -> builder.Found:
        del source  # As given to the constructor, which needed the classes.
        splits = self._files.splits
        return builder.Found(
            clips={
                split: [
                    shards.Clip(
                        name=file,
                        file=file,
                        features={"clip_id": file, "label": label},
                        **decode.WHOLE_FILE,
                    )
                    for file, label in files
                ]
                for split, files in splits.items()
            },
            splits={split: (split,) for split in splits},
            rows=self._files.skipped,
            num_listed={split: len(files) for split, files in splits.items()},
        )
