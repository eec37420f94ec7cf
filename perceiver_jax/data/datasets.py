"""The data sets by name: what is known without reading them, and how they are found or built."""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import errno
import io
import json
import logging
import os
import pathlib
import shutil
import sys
from typing import Any

import filelock
import requests
import tensorflow_datasets as tfds

from perceiver_jax import config as config_lib
from perceiver_jax.data import errors
from perceiver_jax.data.builders import (
    atari_clips,
    base,
    docstrings,
    furniture11,
    mnist5k,
    moving_digits,
)

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_MADE_FROM = "made_from.json"  # Beside the records.
_INFO = "dataset_info.json"  # TFDS writes it last.
_FORMAT = tfds.core.FileFormat.ARRAY_RECORD


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What is known of a data set without reading it.

    Attributes:
        sizes: number of examples of each split.
        num_classes: number of classes of the label; 0 if it is read from disk, see `found`.
        multi_label: whether an example may have several labels (feature `labels`) or has exactly
            one (feature `label`).
        may_lack: features that are empty in some records; inputs made of them get a mask.
        upright: whether images are turned as their EXIF says. Those of ImageNet are not: the
            decoders with which its published figures were computed pass it over.
        builder: builds the set if it is embedded; None: the user prepares the set.
        config: the builder's configuration.
        mini: the experiment that runs the same code on embedded data.
        found: its newest version on disk; None if there is none, or if it is embedded.
    """

    sizes: Mapping[str, int]
    num_classes: int = 0
    multi_label: bool = False
    may_lack: tuple[str, ...] = ()
    upright: bool = True
    builder: type[base.EmbeddedBuilder] | None = None
    config: str | None = None
    mini: str = ""
    found: tfds.core.DatasetBuilder | None = None


def _atari(config: atari_clips.Config) -> Dataset:
    return Dataset(
        config.sizes,
        len(atari_clips.GAMES),
        multi_label=True,
        builder=atari_clips.AtariClips,
        config=config.name,
    )


DATASETS = {
    "atari_clips": _atari(atari_clips.FULL),
    "atari_clips/tiny": _atari(atari_clips.TINY),
    "docstrings": Dataset(docstrings.SIZES, len(docstrings.CLASSES), builder=docstrings.Docstrings),
    # Prepared from a folder, of which a tenth is to test on: 400,000 pairs in the paper.
    "autoflow": Dataset({"train": 360_000, "test": 40_000}, mini="flow.py:mini"),
    "c4": Dataset({"train": 364_868_892, "validation": 364_608}, mini="masked_text.py:mini"),
    "furniture11": Dataset(
        furniture11.SIZES, len(furniture11.CLASSES), builder=furniture11.Furniture11
    ),
    "mnist5k": Dataset(mnist5k.SIZES, len(mnist5k.CLASSES), builder=mnist5k.Mnist5k),
    "moving_digits": Dataset(moving_digits.SIZES, builder=moving_digits.MovingDigits),
    "glue/sst2": Dataset({"train": 67_349, "validation": 872}, num_classes=2, mini="text.py:mini"),
    "kinetics700_2020": Dataset(
        {"train": 545_793, "validation": 34_256},
        num_classes=700,
        may_lack=("audio", "video"),
        mini="multimodal.py:mini",
    ),
    "imagenet2012": Dataset(
        {"train": 1_281_167, "validation": 50_000},
        1_000,
        upright=False,
        mini="imagenet.py:mini",
    ),
    # As published: unbalanced + balanced, evaluation. Fewer of the clips can still be had.
    "audioset": Dataset(
        {"train": 2_042_985 + 22_176, "test": 20_383},
        527,
        multi_label=True,
        may_lack=("audio", "video"),
        mini="audioset.py:mini",
    ),
    "modelnet40": Dataset({"train": 9_843, "test": 2_468}, 40, mini="modelnet40.py:mini"),
}


def lookup(name: str, data_dir: str = "") -> Dataset:
    """Returns what is known of a data set: from disk, or else what is planned.

    Any set that TFDS has prepared on disk as ArrayRecord can be named, not only `DATASETS`.

    Args:
        name: a key of `DATASETS`, or the name of a set on disk.
        data_dir: where TFDS keeps data sets; '' is TFDS's default.

    Raises:
        config.UserError: there is no such data set.
    """
    planned = DATASETS.get(name)
    if planned is not None and planned.builder is not None:
        return planned
    found = find(name, data_dir)
    if found is not None:
        return Dataset(
            {split: part.num_examples for split, part in found.info.splits.items()},
            may_lack=tuple((found.info.metadata or {}).get("may_lack", ())),
            upright=not name.startswith("imagenet"),  # imagenet2012_subset, imagenette and so on.
            found=found,
        )
    if planned is None:
        known = sorted({*DATASETS, *names_on_disk(data_dir)})
        config_lib.check_known(f"data set (looked for in {root(data_dir)})", name, known)
    return planned


def prepared_builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    """Returns the builder of a data set that is on disk; builds an embedded one that is not.

    Raises:
        errors.DatasetNotFoundError: the set is not on disk and can't be built from what is
            installed.
    """
    known = lookup(name, data_dir)
    builder = known_builder(known, data_dir)
    if builder is None:
        raise errors.DatasetNotFoundError(
            f"No data set {name!r} in {root(data_dir) / name}. Prepare it there with python "
            f"-m experiments.prepare_data {name}, or say where it is (--config.data.data_dir=DIR "
            "or TFDS_DATA_DIR). To run the same code on data that comes with the package: "
            f"--config={known.mini}"
        )
    if known.found is None and not _is_prepared(builder):
        build(builder)
    return builder


def known_builder(known: Dataset, data_dir: str) -> tfds.core.DatasetBuilder | None:
    """Returns the builder of a set that is on disk, or embedded; builds nothing."""
    if known.found is not None or known.builder is None:
        return known.found
    return known.builder(data_dir=data_dir or None, config=known.config)


def num_examples(name: str, data_dir: str, split: str) -> int:
    """Returns the size of a split, as found on disk or else as planned; builds nothing.

    Args:
        name: a key of `DATASETS`, or the name of a set on disk.
        data_dir: where TFDS keeps data sets; '' is TFDS's default.
        split: TFDS's notation, such as 'train' or 'train[:90%]'.

    Raises:
        config.UserError: the set has no such split.
    """
    known = lookup(name, data_dir)
    splits = known.found.info.splits if known.found else _planned_splits(known.sizes)
    try:
        return splits[split].num_examples
    except (KeyError, ValueError) as error:
        raise config_lib.UserError(
            f"Data set {name!r} has no split {split!r}; expected one of {sorted(splits)} or parts "
            "of them, such as 'train[:90%]'. Set config.data.train_split and "
            "config.data.test_split."
        ) from error


def root(data_dir: str) -> pathlib.Path:
    """Returns where TFDS keeps data sets; '' is its own default."""
    return pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()


def names_on_disk(data_dir: str) -> list[str]:
    """Returns the names of the data sets on disk, with their configuration if they have one."""
    depths = (f"*/*/{_INFO}", f"*/*/*/{_INFO}")  # name/[config/]version/
    paths = [path for depth in depths for path in root(data_dir).glob(depth)]
    known = {path.parents[1].relative_to(root(data_dir)).as_posix() for path in paths}
    return sorted(name for name in known if not name.startswith((".", "downloads/")))


def find(name: str, data_dir: str) -> tfds.core.DatasetBuilder | None:
    """Returns the newest version of a data set from its files alone, or None if there is none.

    The code that made it is not needed, and so neither is TensorFlow.

    Args:
        name: TFDS's notation: `name`, `name/config`, `name:1.0.0` or `name/config:1.0.0`.
        data_dir: where TFDS keeps data sets; '' is TFDS's default.

    Raises:
        config.UserError: the set has several configurations and none is named, or it is stored in
            another format than ArrayRecord.
    """
    name, _, version = name.partition(":")
    directory = root(data_dir) / name
    if not list(directory.glob(f"*/{_INFO}")):
        configs = sorted({path.parents[1].name for path in directory.glob(f"*/*/{_INFO}")})
        if len(configs) > 1:
            raise config_lib.UserError(
                f"Data set {name!r} in {root(data_dir)} has several configurations; expected one "
                f"of {[f'{name}/{config}' for config in configs]}. Set config.data.dataset to one."
            )
        directory = directory / "".join(configs)
    found = [path.parent for path in directory.glob(f"*/{_INFO}")]
    found = [path for path in found if tfds.core.Version.is_valid(path.name)]
    if version:
        found = [path for path in found if _is_version(path.name, version)]
    if not found:
        return None
    newest = max(found, key=lambda path: tfds.core.Version(path.name))
    try:
        builder = tfds.builder_from_directory(str(newest))
    except ImportError as error:
        raise config_lib.UserError(
            f"Data set {name!r} in {newest} has a feature that TFDS reads with TensorFlow, such as "
            "its Audio; expected features that need none. Prepare the original files as one of the "
            "other kinds: python -m experiments.prepare_data --help"
        ) from error
    if builder.info.file_format != _FORMAT:
        raise config_lib.UserError(
            f"Data set {name!r} in {builder.data_dir} is stored as "
            f"{builder.info.file_format.value}, which has no random access; expected "
            f"{_FORMAT.value}. Prepare it again in another directory: python -m "
            f"experiments.prepare_data tfds --name={name} --data_dir=DIR"
        )
    return builder


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
        config.UserError: the set is there already, made from something else.
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
            with _disk_errors(directory), _network_errors(builder.name), quietly:
                builder.download_and_prepare(
                    file_format="array_record", download_config=download_config
                )
            if made_from is not None:
                (directory / _MADE_FROM).write_text(json.dumps(dict(made_from), indent=2) + "\n")
    builder.info.read_from_directory(builder.data_dir)


def _is_version(version: str, wanted: str) -> bool:
    """Whether a version is the wanted one, such as '1.0.0', or TFDS's '1.*.*'."""
    numbers, allowed = version.split("."), wanted.split(".")
    return len(numbers) == len(allowed) and all(
        part in ("*", number) for number, part in zip(numbers, allowed, strict=True)
    )


def _check_made_from(directory: pathlib.Path, made_from: Mapping[str, Any]) -> None:
    path = directory / _MADE_FROM
    if not path.exists():  # Made by an earlier version.
        return
    before = json.loads(path.read_text())
    for key, value in made_from.items():
        if key in before and before[key] != value:
            raise config_lib.UserError(
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


def _is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    # TFDS's own is_prepared() logs warnings.
    return pathlib.Path(builder.data_dir, _INFO).exists()


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
def _network_errors(name: str) -> Iterator[None]:
    """Tells in a line that a data set can't be downloaded, and that TFDS tries again."""
    log = logging.getLogger("urllib3.connectionpool")
    told = []

    def tell_once(record: logging.LogRecord) -> bool:
        if not told and record.levelno >= logging.WARNING:
            told.append(record)
            print("no answer from the network; trying again for some minutes ...", file=sys.stderr)
        return False

    log.addFilter(tell_once)
    try:
        yield
    except requests.exceptions.ConnectionError as error:
        raise config_lib.UserError(
            f"The data set {name} can't be downloaded: {config_lib.said(error)}. Try again where "
            "there is a network, or prepare files of your own; see --help."
        ) from error
    finally:
        log.removeFilter(tell_once)


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Silences TFDS's bars and its talk of downloads: builders show one bar of their own."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
