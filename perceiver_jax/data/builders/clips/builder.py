"""The builder of a data set of clips: finds them, has shards made, puts these together."""

import abc
import collections
from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import os
import pathlib
import shutil
from typing import Any

import rich.console
import rich.progress
import tensorflow_datasets as tfds

from perceiver_jax.data.builders import isolated, tree
from perceiver_jax.data.builders import report as files_report
from perceiver_jax.data.builders.clips import report, shards

# File names that are taken for clips.
_WITH_PICTURE = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".divx", ".flv"),
        *(".f4v", ".mpg", ".mpeg", ".mpe", ".vob", ".ts", ".mts", ".m2ts", ".wmv", ".asf", ".ogv"),
    )
)
SUFFIXES = _WITH_PICTURE | {
    *(".wav", ".flac", ".m4a", ".m4b", ".opus", ".ogg", ".oga", ".spx", ".mp3", ".mp2", ".aac"),
    *(".wma", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".amr", ".awb", ".mka", ".weba"),
    *(".w64", ".rf64", ".bwf", ".sph", ".wv"),
}
_EXAMPLES = 3  # Of clips that are left out, in messages.


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
    """

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
            raise ValueError(
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
        picture = "video" in self.info.features
        maker = shards.Maker(str(source), str(self._workspace()), self.info.features, picture)
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
        rows = found.rows + [
            report.Row(shard.group, *cause)
            for shard in planned
            for cause in done[shard.name].causes
        ]
        counts = {
            split: _count(found, found.splits[split], [done[x.name] for x in of_split])
            for split, of_split in splits.items()
        }
        table = report.write(pathlib.Path(self.data_path), counts, rows)
        console.print(table, markup=False, soft_wrap=True)
        for split, of_split in splits.items():
            if of_split and not counts[split]["kept"]:
                self._forget([done[shard.name] for shard in of_split])
                causes = [cause for shard in of_split for cause in done[shard.name].causes]
                raise ValueError(_explain_nothing(split, source, causes))
        if not planned:
            raise ValueError(
                f"Got no clip from {source} that can be used; expected at least one. The table "
                "above says what was found."
            )

    def _forget(self, done: Sequence[shards.Done]) -> None:
        """Has the next build try again, after a cause may have been removed."""
        for shard in done:
            (self._workspace() / f"{shard.shard}.json").unlink(missing_ok=True)

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


def list_files(source: pathlib.Path) -> tuple[list[str], list[str], list[report.Row]]:
    """Returns the paths of all clips in a folder and those in it, those of other files, and rows.

    Paths are sorted and relative to the folder; rows are on what can't be read or named.
    """
    files, others = [], []
    found = tree.walk(source)
    for file in found.files:
        (files if tree.suffix(file) in SUFFIXES else others).append("/".join(file))
    return sorted(files), sorted(others), [unlisted(skipped) for skipped in found.skipped]


def unlisted(skipped: files_report.Skipped) -> report.Row:
    """Returns the row of a file that was left out before it was looked into."""
    name = files_report.printable(skipped.name)
    detail = f"{skipped.cause}: {skipped.detail}".removesuffix(": ")
    return report.Row("", name, name, "unlisted", False, detail)


def may_have_picture(file: str) -> bool:
    """Whether files of that name can hold video."""
    return pathlib.PurePath(file).suffix.lower() in _WITH_PICTURE


def _explain_nothing(split: str, source: pathlib.Path, causes: Sequence[Sequence[Any]]) -> str:
    """Says why no clip of a split can be used; `causes` as in `Done`."""
    by_cause = collections.defaultdict(list)
    for _, file, cause, kept, detail in causes:
        if not kept:
            by_cause[cause].append(f"{file}: {detail}")
    told = [
        f"{len(found):,} x {cause.replace('_', ' ')} ({report.MEANINGS[cause]}), such as "
        f"{'; '.join(found[:_EXAMPLES])}"
        for cause, found in sorted(by_cause.items(), key=lambda item: -len(item[1]))
    ]
    return (
        f"No clip of the {split} split from {source} can be used: {'. '.join(told)}. Expected at "
        "least one. Replace or convert the files."
    )


def _count(found: Found, groups: tuple[str, ...], done: list[shards.Done]) -> dict[str, int]:
    return {
        "listed": sum(found.num_listed[group] for group in groups),
        "kept": sum(x.num_examples for x in done),
        "with_picture": sum(x.with_picture for x in done),
        "with_sound": sum(x.with_sound for x in done),
    }


def _link(old: pathlib.Path, new: pathlib.Path) -> None:
    """Gives a file a second name, or copies it where a file system has no links."""
    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)
