"""AudioSet (Gemmeke et al. 2017): ten-second clips of YouTube videos with 527 classes.

Made from a folder of clips as people have them and the official lists; see docs/audioset.md.
"""

import argparse
import collections
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from perceiver_jax.data.builders import beam, report, tree
from perceiver_jax.data.builders.audioset import segments as segments_lib
from perceiver_jax.data.builders.clips import builder, shards

# Which lists make up a split.
SPLITS = {
    "train": ("balanced_train", "unbalanced_train"),
    "balanced_train": ("balanced_train",),
    "test": ("eval",),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this kind."""
    parser.add_argument("--source", required=True, help="folder of clips with the official lists")
    parser.add_argument(
        "--beam_pipeline_options",
        default="",
        help="have Apache Beam prepare it, such as runner=DataflowRunner,project=...; see "
        "docs/audioset.md (default: this machine, all cores)",
    )


def from_flags(
    flags: argparse.Namespace, data_dir: pathlib.Path
) -> tuple["Audioset", tfds.download.DownloadConfig]:
    """Returns the builder, and where its source is."""
    options = beam.options(flags.beam_pipeline_options) if flags.beam_pipeline_options else None
    download_config = tfds.download.DownloadConfig(manual_dir=flags.source, beam_options=options)
    return Audioset(data_dir=data_dir), download_config


class Audioset(builder.ClipBuilder):
    """Splits `train` (balanced and unbalanced), `balanced_train` and `test` (eval)."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "A folder of clips with AudioSet's CSV files; docs/audioset.md."

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Clips of 10 s with audio and video of 527 classes of sounds.",
            metadata=tfds.core.MetadataDict(may_lack=["audio", "video"]),
            homepage="https://research.google.com/audioset/",
            features=tfds.features.FeaturesDict(
                {
                    "clip_id": tfds.features.Text(),
                    "start": np.float32,  # Seconds.
                    "video": tfds.features.Sequence(tfds.features.Image(encoding_format="jpeg")),
                    "audio": tfds.features.Tensor(shape=(), dtype=np.object_),  # A FLAC file.
                    "labels": tfds.features.Sequence(
                        tfds.features.ClassLabel(num_classes=segments_lib.NUM_CLASSES)
                    ),
                }
            ),
        )

    def _find(self, source: pathlib.Path) -> builder.Found:
        classes = segments_lib.read_classes(source)
        self.info.features["labels"].feature.names = list(classes.values())
        listed = segments_lib.read_lists(source, classes)
        found = tree.walk(source, builder.SUFFIXES)
        chosen, rows = _match(["/".join(file) for file in found.files], listed)
        lists = {segments_lib.CLASSES, *segments_lib.LISTS.values()}
        rows += [row for row in found.skipped if row.file not in lists]

        groups = {segment.group: [] for segment in listed}
        for segment, file in chosen.items():
            groups[segment.group].append(_clip(segment, file))
        splits = {
            split: tuple(group for group in names if group in groups)
            for split, names in SPLITS.items()
        }
        return builder.Found(
            clips=groups,
            splits={split: names for split, names in splits.items() if names},
            rows=rows,
            num_listed=dict(collections.Counter(segment.group for segment in listed)),
        )


def _match(
    files: list[str], listed: list[segments_lib.Segment]
) -> tuple[dict[segments_lib.Segment, str], list[report.Row]]:
    """Finds the file of each segment; returns them, and rows on what is left over."""
    rows = []
    segments: dict[str, segments_lib.Segment] = {}
    by_id = collections.defaultdict(list)
    for segment in listed:
        if segment.name in segments:
            detail = f"also listed in {segments[segment.name].group}"
            rows.append(report.Row(segment.group, segment.name, "", "duplicate", False, detail))
            continue
        segments[segment.name] = segment
        by_id[segment.youtube_id].append(segment)

    chosen: dict[segments_lib.Segment, str] = {}
    # Of several files of a clip the first is taken; those with video come first.
    for file in sorted(files, key=lambda f: (not builder.may_have_video(f), f)):
        stem = pathlib.PurePath(file).stem
        name = segments_lib.parse_name(stem)
        segment = name and segments_lib.find_segment(name, by_id.get(name.youtube_id, ()))
        if segment is None:
            detail = "the name has no YouTube ID" if name is None else "not in the lists"
            rows.append(report.Row("", stem, file, "unlisted", False, detail))
        elif segment in chosen:
            detail = f"{chosen[segment]} is taken"
            rows.append(report.Row(segment.group, segment.name, file, "duplicate", False, detail))
        else:
            chosen[segment] = file
    rows += [
        report.Row(segment.group, segment.name, "", "missing", False, "")
        for segment in segments.values()
        if segment not in chosen
    ]
    return chosen, rows


def _clip(segment: segments_lib.Segment, file: str) -> shards.Clip:
    name = segments_lib.parse_name(pathlib.PurePath(file).stem)
    return shards.Clip(
        name=segment.name,
        file=file,
        start=segment.start,
        length=segment.end - segment.start,
        cut=name.start is not None,
        features={
            "clip_id": segment.youtube_id,
            "start": segment.start,
            "labels": list(segment.labels),
        },
    )
