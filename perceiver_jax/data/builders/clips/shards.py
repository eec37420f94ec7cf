"""Shards of a data set of clips, each made by itself and kept until the whole set is done.

TFDS's own writers begin anew after a kill, and its Beam writer sends every encoded clip (of
AudioSet some 10 TB) through a shuffle. Here a shard is made from its clips in one go, under a name
that tells its contents; a second build finds it and resumes. Any runner of Beam can make shards.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any
import uuid

from array_record.python import array_record_module
import tensorflow_datasets as tfds

from perceiver_jax import config
from perceiver_jax.data.builders.clips import decode

CLIPS = 256  # Of a full shard; about 1.4 GB.
FORMAT = 3  # Of what `decode.py` makes; a change of it makes all shards anew.


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip to be decoded.

    Attributes:
        name: unique in its group.
        file: its path in the source folder.
        start: of the segment in the recording, in seconds.
        length: of the segment, in seconds.
        cut: whether the file begins at `start` for sure.
        features: what the record holds beside video and audio.
    """

    name: str
    file: str
    start: float
    length: float
    cut: bool
    features: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Shard:
    """Clips that are stored in one file, of the name `name` while the set is not done."""

    group: str
    name: str
    clips: tuple[Clip, ...]


@dataclasses.dataclass
class Done:
    """What became of a shard.

    Attributes:
        shard: its name.
        num_clips: number of clips it was made of.
        num_examples: number of clips it holds; there is no file if it is 0.
        num_bytes: of the clips in it.
        with_video: number of clips that have video.
        with_audio: number of clips that have audio.
        causes: `clip, file, cause, kept, detail` of what is odd.
    """

    shard: str
    num_clips: int
    num_examples: int = 0
    num_bytes: int = 0
    with_video: int = 0
    with_audio: int = 0
    causes: list[list[Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Maker:
    """Makes shards of clips in `source`, leaves them in `directory`; may be sent to other machines.

    Attributes:
        source: folder of the clips.
        directory: folder of the shards; both are the same for all machines that take part.
        features: of the data set.
        has_video: whether records hold video, too.
    """

    source: str
    directory: str
    features: tfds.features.FeaturesDict
    has_video: bool

    def find_done(self, shard: Shard) -> Done | None:
        """Returns what became of a shard that was made before."""
        try:
            return Done(**json.loads(self._path(shard.name, "json").read_text()))
        except FileNotFoundError:
            return None

    def forget(self, shard: Shard) -> None:
        """Has the next build make a shard again."""
        self._path(shard.name, "json").unlink(missing_ok=True)

    def records(self, shard: Shard) -> pathlib.Path:
        """Returns where the records of a shard are."""
        return self._path(shard.name, "array_record")

    def make(self, shard: Shard, decoded: Iterator[dict] | None = None) -> Done:
        """Makes a shard, unless it was made before.

        Args:
            shard: which.
            decoded: of its clips, in order; None: they are decoded here, one after the other.
        """
        done = self.find_done(shard)
        if done is not None:
            return done
        if decoded is None:
            decoded = decode.decode_all(self.requests([shard]), 1)
        done = Done(shard.name, len(shard.clips))
        temporary = self._path(shard.name, f"{uuid.uuid4().hex}.tmp")
        writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
        for clip in shard.clips:
            self._add(clip, next(decoded), writer, done)
        writer.close()
        if done.num_examples:
            os.replace(temporary, self.records(shard))
        else:
            temporary.unlink()
        # Comes last and says that the shard is whole.
        temporary.write_text(json.dumps(dataclasses.asdict(done)))
        os.replace(temporary, self._path(shard.name, "json"))
        return done

    def write_plan(self, shard: Shard) -> None:
        """Leaves a shard's clips for `make_planned`."""
        self._path(shard.name, "plan").write_text(json.dumps(dataclasses.asdict(shard)))

    def make_planned(self, name: str) -> None:
        """Makes the shard of that name, of the clips that `write_plan` left."""
        plan = json.loads(self._path(name, "plan").read_text())
        clips = tuple(Clip(**clip) for clip in plan["clips"])
        self.make(Shard(plan["group"], name, clips))

    def requests(self, shards: Iterable[Shard]) -> Iterator[dict[str, Any]]:
        """Yields the arguments of `decode.decode` for all clips of some shards."""
        for shard in shards:
            for clip in shard.clips:
                yield {
                    "path": os.path.join(self.source, clip.file),
                    "start": clip.start,
                    "length": clip.length,
                    "cut": clip.cut,
                    "with_video": self.has_video,
                }

    def _add(self, clip: Clip, decoded: dict, writer: Any, done: Done) -> None:
        if "error" in decoded:
            cause, detail = decoded["error"]
            done.causes.append([clip.name, clip.file, cause, False, detail])
            return
        media = {"audio": decoded["audio"]}
        if self.has_video:
            media["video"] = decoded["video"]
        record = self.features.serialize_example(clip.features | media)
        writer.write(record)
        done.num_examples += 1
        done.num_bytes += len(record)
        done.with_video += bool(decoded["video"])
        done.with_audio += bool(decoded["audio"])
        done.causes += [
            [clip.name, clip.file, cause, True, detail]
            for cause, detail in decoded["causes"].items()
        ]

    def _path(self, name: str, suffix: str) -> pathlib.Path:
        return pathlib.Path(self.directory, f"{name}.{suffix}")


def divide(group: str, clips: Sequence[Clip], source: pathlib.Path) -> list[Shard]:
    """Divides a group of clips into shards, by hashes of their names.

    So a clip more or less changes one shard, and classes are mixed. The hashes decide the order of
    records, by which training draws them: a change of the names changes what every run sees.

    Args:
        group: its name.
        clips: its clips.
        source: folder of the clips, whose sizes and times of change are part of the shards' names.
    """
    num_shards = 1
    while num_shards * CLIPS < len(clips):
        num_shards *= 2
    parts: list[list[tuple[str, Clip]]] = [[] for _ in range(num_shards)]
    for clip in clips:
        digest = hashlib.sha256(f"{group}/{clip.name}".encode()).hexdigest()
        parts[int(digest[:8], 16) % num_shards].append((digest, clip))
    shards = []
    for i, part in enumerate(parts):
        ordered = tuple(clip for _, clip in sorted(part, key=lambda pair: pair[0]))
        if ordered:
            name = f"{group}-{i:05d}-of-{num_shards:05d}-{_fingerprint(ordered, source)}"
            shards.append(Shard(group, name, ordered))
    return shards


def make_all(maker: Maker, shards: Sequence[Shard], num_processes: int) -> Iterator[Done]:
    """Makes shards on this machine, clips side by side; yields what became of each, in order."""
    missing = [shard for shard in shards if maker.find_done(shard) is None]
    decoded = decode.decode_all(maker.requests(missing), num_processes)
    for shard in shards:
        yield maker.make(shard, decoded)


def make_all_with_beam(
    maker: Maker, shards: Sequence[Shard], runner: Any, options: Any
) -> Iterator[Done]:
    """Makes shards with an Apache Beam runner, each in one place; yields what became of them."""
    import apache_beam as beam  # Who gives it a runner or options has it.

    missing = [shard for shard in shards if maker.find_done(shard) is None]
    for shard in missing:
        maker.write_plan(shard)  # All of AudioSet's clips are too many for a pipeline's graph.
    if missing:
        with beam.Pipeline(runner=runner, options=options) as pipeline:
            names = pipeline | beam.Create([shard.name for shard in missing])
            _ = names | beam.Reshuffle() | beam.Map(maker.make_planned)
    for shard in shards:
        done = maker.find_done(shard)
        if done is None:
            raise config.UserError(
                f"Beam's workers left no {shard.name} in {maker.directory}; expected a folder "
                "that all of them share with this machine. Put data_dir on a shared file system."
            )
        yield done


def _fingerprint(clips: Sequence[Clip], source: pathlib.Path) -> str:
    contents = [FORMAT]
    for clip in clips:
        stat = os.stat(source / clip.file)
        contents.append([dataclasses.asdict(clip), stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]
