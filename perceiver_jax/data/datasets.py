"""The data sets by name: what is known without reading them, and how they are found or built."""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import errno
import io
import json
import os
import pathlib
import shutil
import sys
from typing import Any, NoReturn

import filelock
import tensorflow_datasets as tfds

from perceiver_jax import config
from perceiver_jax.data import errors, prepared
from perceiver_jax.data.builders import atari_clips, base, furniture11, mnist5k

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_MADE_FROM = "made_from.json"  # Beside the records.


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What is known of a data set without reading it.

    Attributes:
        num_classes: number of classes of its label; 0 if it isn't plain which feature that is.
        multi_label: whether an example may have several labels (feature `labels`) or has exactly
            one (feature `label`).
        sizes: number of examples of each split.
        may_lack: features that are empty in some records; inputs made of them get a mask.
        upright: whether pictures are turned as their EXIF says. Those of ImageNet are not: the
            decoders with which its published figures were computed pass it over.
        builder: builds the set if it is embedded; None: the user prepares the set.
        config: the builder's configuration.
        mini: the experiment that runs the same code on embedded data.
        features: as found on disk; None: what our builder stores.
    """

    num_classes: int
    multi_label: bool
    sizes: Mapping[str, int]
    may_lack: tuple[str, ...] = ()
    upright: bool = True
    builder: type[base.EmbeddedBuilder] | None = None
    config: str | None = None
    mini: str = ""
    features: prepared.Features | None = None


def _atari(config: atari_clips.Config) -> Dataset:
    return Dataset(
        len(atari_clips.GAMES),
        True,
        config.sizes,
        builder=atari_clips.AtariClips,
        config=config.name,
    )


DATASETS = {
    "atari_clips": _atari(atari_clips.FULL),
    "atari_clips/tiny": _atari(atari_clips.TINY),
    "furniture11": Dataset(
        len(furniture11.CLASSES), False, furniture11.SIZES, builder=furniture11.Furniture11
    ),
    "mnist5k": Dataset(len(mnist5k.CLASSES), False, mnist5k.SIZES, builder=mnist5k.Mnist5k),
    "imagenet2012": Dataset(
        1_000,
        False,
        {"train": 1_281_167, "validation": 50_000},
        upright=False,
        mini="imagenet.py:mini",
    ),
    # As published: unbalanced + balanced, evaluation. Fewer of the clips can still be had.
    "audioset": Dataset(
        527,
        True,
        {"train": 2_042_985 + 22_176, "test": 20_383},
        may_lack=("audio", "video"),
        mini="audioset.py:mini",
    ),
    "modelnet40": Dataset(40, False, {"train": 9_843, "test": 2_468}, mini="modelnet40.py:mini"),
}


def lookup(name: str, data_dir: str = "") -> Dataset:
    """Returns what is known of a data set: from disk, or else what is planned.

    Any set that TFDS has prepared on disk as ArrayRecord can be named, not only `DATASETS`.

    Args:
        name: a key of `DATASETS`, or the name of a set on disk.
        data_dir: where TFDS keeps data sets; '' is TFDS's default.

    Raises:
        ValueError: there is no such data set.
    """
    planned = DATASETS.get(name)
    if planned is not None and planned.builder is not None:
        return planned
    builder = prepared.find(name, data_dir)
    if builder is not None:
        info = builder.info
        return Dataset(
            *prepared.classes(info.features),
            {split: part.num_examples for split, part in info.splits.items()},
            may_lack=tuple((info.metadata or {}).get("may_lack", ())),
            upright=not name.startswith("imagenet"),  # imagenet2012_subset, imagenette and so on.
            features=info.features,
        )
    if planned is None:
        known = {*DATASETS, *prepared.names(data_dir)}
        where = f"data set (looked for in {prepared.root(data_dir)})"
        config.check_known(where, name, sorted(known))
    return planned


def prepared_builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    """Returns the builder of a data set that is on disk; builds an embedded one that is not.

    Args:
        name: a key of `DATASETS`, or the name of a set on disk.
        data_dir: where TFDS keeps data sets; '' is TFDS's default.

    Raises:
        errors.DatasetNotFoundError: the set is not on disk and can't be built from what is
            installed.
    """
    planned = DATASETS.get(name)
    if planned is None or planned.builder is None:
        builder = prepared.find(name, data_dir)
        if builder is None:
            _raise_not_found(name, data_dir)
        return builder
    builder = planned.builder(data_dir=data_dir or None, config=planned.config)
    if not _is_prepared(builder):
        build(builder)
    return builder


def num_examples(name: str, data_dir: str, split: str) -> int:
    """Returns the size of a split, as found on disk or else as planned; builds nothing.

    Args:
        name: a key of `DATASETS`, or the name of a set on disk.
        data_dir: where TFDS keeps data sets; '' is TFDS's default.
        split: TFDS's notation, such as 'train' or 'train[:90%]'.

    Raises:
        ValueError: the set has no such split.
    """
    planned = DATASETS.get(name)
    builder = None
    if planned is None or planned.builder is None:
        builder = prepared.find(name, data_dir)
    splits = builder.info.splits if builder else _planned_splits(lookup(name, data_dir).sizes)
    try:
        return splits[split].num_examples
    except (KeyError, ValueError) as error:
        raise config.UserError(
            f"Data set {name!r} has no split {split!r}; expected one of {sorted(splits)} or parts "
            "of them, such as 'train[:90%]'. Set config.data.train_split and "
            "config.data.test_split."
        ) from error


def build(
    builder: tfds.core.DatasetBuilder,
    download_config: tfds.download.DownloadConfig | None = None,
    quiet: bool = True,
    made_from: Mapping[str, Any] | None = None,
) -> None:
    """Builds a data set as ArrayRecord, unless another process is at it: then waits for that one.

    Args:
        builder: of the set.
        download_config: TFDS's own: where the source is, how Beam runs.
        quiet: whether to silence TFDS's bars, for builders that show one of their own.
        made_from: what makes the set what it is, such as its source; kept beside it.

    Raises:
        ValueError: the set is there already, made from something else.
        OSError: there is no room for it, say.
    """
    directory = pathlib.Path(builder.data_dir)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _locked(directory.parent / f".{directory.name}.lock", builder.name):
        if _is_prepared(builder):
            _check_made_from(directory, made_from or {})
            print(f"{directory} is there already; delete it to prepare it again.", file=sys.stderr)
        else:
            for unfinished in directory.parent.glob(f"incomplete.*_{directory.name}"):
                shutil.rmtree(unfinished)  # Left by a killed build: TFDS renames when it is done.
            quietly = _quiet_tfds() if quiet else contextlib.nullcontext()
            with _disk_errors(directory), quietly:
                builder.download_and_prepare(
                    file_format="array_record", download_config=download_config
                )
            if made_from is not None:
                (directory / _MADE_FROM).write_text(json.dumps(dict(made_from), indent=2) + "\n")
    builder.info.read_from_directory(builder.data_dir)


def _check_made_from(directory: pathlib.Path, made_from: Mapping[str, Any]) -> None:
    path = directory / _MADE_FROM
    if not path.exists():  # Made by an earlier version.
        return
    before = json.loads(path.read_text())
    for key, value in made_from.items():
        if key in before and before[key] != value:
            raise config.UserError(
                f"{directory} is there already, made with {key} {before[key]}; got {value}. Choose "
                "another --name or --data_dir, or delete that directory to prepare it again."
            )


def _planned_splits(sizes: Mapping[str, int]) -> tfds.core.splits.SplitDict:
    template = tfds.core.ShardedFileTemplate(
        data_dir="", dataset_name="planned", split="planned", filetype_suffix="none"
    )
    return tfds.core.splits.SplitDict(
        [
            tfds.core.splits.SplitInfo(
                name=split,
                shard_lengths=[size],
                num_bytes=0,
                filename_template=template.replace(split=split),
            )
            for split, size in sizes.items()
        ]
    )


def _raise_not_found(name: str, data_dir: str) -> NoReturn:
    lookup(name, data_dir)  # Refuses names that nobody knows.
    raise errors.DatasetNotFoundError(
        f"No data set {name!r} in {prepared.root(data_dir) / name}. Prepare it there with python "
        f"-m experiments.prepare_data {name}, or say where it is (--config.data.data_dir=DIR or "
        "TFDS_DATA_DIR). To run the same code on data that comes with the package: "
        f"--config={DATASETS[name].mini}"
    )


def _is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    # TFDS's own is_prepared() logs warnings.
    return pathlib.Path(builder.data_dir, "dataset_info.json").exists()


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
def _disk_errors(directory: pathlib.Path) -> Iterator[None]:
    """Tells what the disk refuses; the library that writes records has but a text of it."""
    try:
        yield
    except RuntimeError as error:
        told = [number for number in _DISK_ERRORS if os.strerror(number) in str(error)]
        if not told:
            raise
        raise OSError(told[0], os.strerror(told[0]), str(directory)) from error


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Silences TFDS's bars and its talk of downloads: builders show one bar of their own."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
