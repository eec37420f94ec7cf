"""The builder of a data set of clips: finds them, has shards made, puts these together."""

import abc
from collections.abc import Iterator, Mapping
import dataclasses
import itertools
import os
import pathlib
import shutil
from typing import Any

import rich.console
import rich.progress
import tensorflow_datasets as tfds

from perceiver_jax import config
from perceiver_jax.data.builders import isolated, report
from perceiver_jax.data.builders.clips import shards

# File names that are taken for clips.
_WITH_VIDEO = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".divx", ".flv"),
        *(".f4v", ".mpg", ".mpeg", ".mpe", ".vob", ".ts", ".mts", ".m2ts", ".wmv", ".asf", ".ogv"),
    )
)
SUFFIXES = _WITH_VIDEO | {
    *(".wav", ".flac", ".m4a", ".m4b", ".opus", ".ogg", ".oga", ".spx", ".mp3", ".mp2", ".aac"),
    *(".wma", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".amr", ".awb", ".mka", ".weba"),
    *(".w64", ".rf64", ".bwf", ".sph", ".wv"),
}


@dataclasses.dataclass
class Found:
    """The clips of a folder.

    Attributes:
        clips: in groups by name.
        splits: names of the groups that make up each split; a group may be in several.
        rows: what was found that is not in `clips`.
        num_listed: number of clips of each group, there or not.
    """

    clips: dict[str, list[shards.Clip]]
    splits: dict[str, tuple[str, ...]]
    rows: list[report.Row]
    num_listed: dict[str, int]


class ClipBuilder(tfds.core.dataset_builder.FileReaderBuilder, skip_registration=True):
    """A data set of clips in a folder, TFDS's `manual_dir`, stored as ArrayRecord.

    `DownloadConfig`'s `beam_runner` and `beam_options` have Beam make the shards; else this machine
    does, with all cores.

    Attributes:
        note: what the user should know of how the folders were understood; may be empty.
    """

    note = ""

    def __init__(self, *, file_format: str = "array_record", **kwargs: Any):
        """As of TFDS's builders, but for the default of `file_format`."""
        super().__init__(file_format=file_format, **kwargs)

    @abc.abstractmethod
    def _find(self, source: pathlib.Path) -> Found:
        """Returns what there is in the source folder; decodes nothing."""

    def _download_and_prepare(
        self, dl_manager: tfds.download.DownloadManager, download_config: Any
    ) -> None:
        if self.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
            raise config.UserError(
                f"Got the file format {self.info.file_format.value!r}; {self.name} is stored as "
                "'array_record'. Leave file_format out."
            )
        # TFDS's own attribute fails for an empty folder, without a word on what is missing in it.
        source = pathlib.Path(download_config.manual_dir or dl_manager.manual_dir).resolve()
        console = rich.console.Console(stderr=True)
        console.print(
            f"Looking for clips in {source}", markup=False, highlight=False, soft_wrap=True
        )
        self._build(source, download_config, console)

    def _build(
        self, source: pathlib.Path, download_config: Any, console: rich.console.Console
    ) -> None:
        found = self._find(source)
        self._workspace().mkdir(exist_ok=True)
        features = self.info.features
        maker = shards.Maker(str(source), str(self._workspace()), features, "video" in features)
        groups = {
            group: shards.divide(group, clips, source) for group, clips in found.clips.items()
        }
        planned = [shard for of_group in groups.values() for shard in of_group]
        done = {x.shard: x for x in self._make(maker, planned, download_config, console)}
        splits = {
            split: [shard for name in names for shard in groups[name]]
            for split, names in found.splits.items()
        }
        self._publish(maker, splits, done)
        rows = {
            shard.name: [report.Row(shard.group, *cause) for cause in done[shard.name].causes]
            for shard in planned
        }
        counts = {
            split: _count(found, found.splits[split], [done[x.name] for x in of_split])
            for split, of_split in splits.items()
        }
        all_rows = itertools.chain(found.rows, *rows.values())
        report.write(pathlib.Path(self.data_path), counts, all_rows)
        for split, of_split in splits.items():
            if of_split and not counts[split]["kept"]:
                for shard in of_split:  # The next build tries again: the cause may be removed.
                    maker.forget(shard)
                of_its = [row for shard in of_split for row in rows[shard.name]]
                report.check_any(0, "clips", f"the {split} split from {source}", of_its)
        if not planned:
            raise config.UserError(
                f"Got no clip from {source} that can be used; expected at least one. The table "
                "above says what was found."
            )

    def _workspace(self) -> pathlib.Path:
        """Where finished shards wait for the others; survives a kill."""
        return pathlib.Path(self.data_path).parent / f"building_{self.version}"

    def _post_download_and_prepare_hook(self) -> None:
        shutil.rmtree(self._workspace())

    def _make(
        self,
        maker: shards.Maker,
        planned: list[shards.Shard],
        download_config: Any,
        console: rich.console.Console,
    ) -> Iterator[shards.Done]:
        runner, options = download_config.beam_runner, download_config.beam_options
        if runner is not None or options is not None:
            yield from shards.make_all_with_beam(maker, planned, runner, options)
            return
        with rich.progress.Progress(console=console) as progress:
            total = sum(len(shard.clips) for shard in planned)
            bar = progress.add_task(f"Building {self.name}", total=total)
            for done in shards.make_all(maker, planned, isolated.num_cores()):
                progress.advance(bar, done.num_clips)
                yield done

    def _publish(
        self,
        maker: shards.Maker,
        splits: Mapping[str, list[shards.Shard]],
        done: Mapping[str, shards.Done],
    ) -> None:
        """Gives the shards the names that TFDS expects, and tells it of the splits."""
        infos = []
        for split, of_split in splits.items():
            full = [shard for shard in of_split if done[shard.name].num_examples]
            template = self._get_filename_template(split_name=split)
            for i, shard in enumerate(full):
                path = template.sharded_filepath(shard_index=i, num_shards=len(full))
                _link(maker.records(shard), pathlib.Path(path))
            if full:
                lengths = [done[shard.name].num_examples for shard in full]
                num_bytes = sum(done[shard.name].num_bytes for shard in full)
                infos.append(
                    tfds.core.SplitInfo(
                        name=split,
                        shard_lengths=lengths,
                        num_bytes=num_bytes,
                        filename_template=template,
                    )
                )
        self.info.set_splits(tfds.core.splits.SplitDict(infos))


def may_have_video(file: str) -> bool:
    """Whether files of that name can hold video."""
    return pathlib.PurePath(file).suffix.lower() in _WITH_VIDEO


def _count(found: Found, groups: tuple[str, ...], done: list[shards.Done]) -> dict[str, int]:
    return {
        "listed": sum(found.num_listed[group] for group in groups),
        "kept": sum(x.num_examples for x in done),
        "with_video": sum(x.with_video for x in done),
        "with_audio": sum(x.with_audio for x in done),
    }


def _link(old: pathlib.Path, new: pathlib.Path) -> None:
    """Gives a file a second name, or copies it where a file system has no links."""
    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)
