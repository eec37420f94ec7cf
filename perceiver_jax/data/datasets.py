"""The data sets by name: what is known without reading them, and how they are found or built."""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import io
import pathlib
import shutil
import sys

import filelock
import tensorflow_datasets as tfds

from perceiver_jax.data import errors
from perceiver_jax.data.builders import atari_clips, base, furniture11, mnist5k


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What is known of a data set without reading it.

    Attributes:
        num_classes: number of classes.
        multi_label: whether an example may have several labels (feature `labels`) or has exactly
            one (feature `label`).
        sizes: number of examples of each split.
        builder: builds the set if it is embedded; None: the user prepares the set.
        config: the builder's configuration.
        mini: the experiment that runs the same code on embedded data.
    """

    num_classes: int
    multi_label: bool
    sizes: Mapping[str, int]
    builder: type[base.EmbeddedBuilder] | None = None
    config: str | None = None
    mini: str = ""


def _atari(config: atari_clips.Config) -> Dataset:
    return Dataset(len(atari_clips.GAMES), True, config.sizes, atari_clips.AtariClips, config.name)


DATASETS = {
    "atari_clips": _atari(atari_clips.FULL),
    "atari_clips/tiny": _atari(atari_clips.TINY),
    "furniture11": Dataset(
        len(furniture11.CLASSES), False, furniture11.SIZES, furniture11.Furniture11
    ),
    "mnist5k": Dataset(len(mnist5k.CLASSES), False, mnist5k.SIZES, mnist5k.Mnist5k),
    "imagenet2012": Dataset(
        1_000, False, {"train": 1_281_167, "validation": 50_000}, mini="imagenet.py:mini"
    ),
    # As published: unbalanced + balanced, evaluation. Fewer of the clips can still be had.
    "audioset": Dataset(
        527, True, {"train": 2_042_985 + 22_176, "test": 20_383}, mini="audioset.py:mini"
    ),
    "modelnet40": Dataset(40, False, {"train": 9_843, "test": 2_468}, mini="modelnet40.py:mini"),
}


def lookup(name: str) -> Dataset:
    """Returns what is known of the data set `name`.

    Raises:
        ValueError: there is no such data set.
    """
    errors.check_known("data set", name, DATASETS)
    return DATASETS[name]


def prepared_builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    """Returns the builder of a data set that is on disk; builds an embedded one that is not.

    Args:
        name: a key of `DATASETS`.
        data_dir: where TFDS keeps data sets; '' is TFDS's default.

    Raises:
        errors.DatasetNotFoundError: the set is not on disk and can't be built from what is
            installed.
    """
    dataset = lookup(name)
    if dataset.builder is None:
        return _find(name, data_dir)
    builder = dataset.builder(data_dir=data_dir or None, config=dataset.config)
    if not _is_prepared(builder):
        _build(builder)
    return builder


def num_examples(name: str, data_dir: str, split: str) -> int:
    """Returns the size of a split, as found on disk or else as planned; builds nothing.

    Args:
        name: a key of `DATASETS`.
        data_dir: where TFDS keeps data sets; '' is TFDS's default.
        split: TFDS's notation, such as 'train' or 'train[:90%]'.
    """
    dataset = lookup(name)
    if dataset.builder is None:
        with contextlib.suppress(errors.DatasetNotFoundError):
            return _find(name, data_dir).info.splits[split].num_examples
    planned = [
        tfds.core.splits.SplitInfo(
            name=planned_split,
            shard_lengths=[size],
            num_bytes=0,
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir="", dataset_name="planned", split=planned_split, filetype_suffix="none"
            ),
        )
        for planned_split, size in dataset.sizes.items()
    ]
    return tfds.core.splits.SplitDict(planned)[split].num_examples


def _find(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    root = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    try:
        builder = tfds.builder(name, data_dir=root)
        found = _is_prepared(builder)
    except tfds.core.DatasetNotFoundError:
        found = False
    if not found:
        raise errors.DatasetNotFoundError(
            f"No data set {name!r} in {root / name}. Prepare it there with TFDS in the ArrayRecord "
            "format, or say where it is (--config.data.data_dir=DIR or TFDS_DATA_DIR). To run the "
            f"same code on data that comes with the package: --config={DATASETS[name].mini}"
        )
    return builder


def _is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    # TFDS's own is_prepared() logs warnings.
    return pathlib.Path(builder.data_dir, "dataset_info.json").exists()


def _build(builder: base.EmbeddedBuilder) -> None:
    """Builds a data set unless another process is at it, in which case waits for that one."""
    directory = pathlib.Path(builder.data_dir)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _locked(directory.parent / f".{directory.name}.lock", builder.name):
        if not _is_prepared(builder):
            for unfinished in directory.parent.glob(f"incomplete.*_{directory.name}"):
                shutil.rmtree(unfinished)  # Left by a killed build: TFDS renames when it is done.
            with _quiet_tfds():
                builder.download_and_prepare(file_format="array_record")
    builder.info.read_from_directory(builder.data_dir)


@contextlib.contextmanager
def _locked(path: pathlib.Path, name: str) -> Iterator[None]:
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"Another process is building {name}; waiting for it.", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Silences TFDS's bars and its talk of downloads: builders show one bar of their own."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
