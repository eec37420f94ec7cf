"""Prepares a data set: from the files that you have to records on disk that training reads.

    python -m experiments.prepare_data KIND [--source=PATH] [--data_dir=DIR] [--name=NAME] [...]

The last line that it prints is the command that trains on the result.
"""

import argparse
from collections.abc import Callable, Mapping
import dataclasses
import importlib
import itertools
import pathlib
import shlex
import sys
from typing import Any

from experiments import cli
from perceiver_jax import config

_SHOWN_CLASSES = 10
_DECIDES = (
    *("test_fraction", "num_points", "up", "text", "label", "separator", "lines", "max_length"),
)  # Flags that change what is in a set.
_MASKED_TEXT = "masked_text.py:mini"
_OWN_DATA = "own_data.py"  # The recipe for what nobody knows but its owner.
_ARCHIVES = (".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst")

Builder = Any  # tfds.core.DatasetBuilder; importing TFDS takes seconds.


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of source.

    Attributes:
      description: what the source is, in a line.
      module: of perceiver_jax.data.builders: has `add_arguments(parser)`, which adds the kind's own
        flags, and `from_flags(flags, data_dir)`, which returns a builder and TFDS's DownloadConfig
        or None.
      source: what `--source` has to be.
      recipe: the config that can train on it, in experiments/configs, with its arguments.
      overrides: what else of the recipe has to be set, given the builder.
      may_be_file: whether `--source` need not be a directory.
      by_tfds: whether the builder is TFDS's own, which shows progress and writes no report.
      other_recipe: the config that can train on a set without classes.
    """

    description: str
    module: str
    source: str
    recipe: str
    overrides: Callable[[Builder], list[str]] = lambda builder: []
    may_be_file: bool = False
    by_tfds: bool = False
    other_recipe: str = ""


def main(argv: list[str]) -> None:
    """Runs the command."""
    with cli.user_errors_end_the_program():
        flags, module = _parse(argv)
        kind = KINDS[flags.kind]
        _check_data_dir(flags.data_dir)
        if flags.source is not None:
            flags.source = _existing(flags.source, kind)
        try:
            builder = _build(flags, kind, module)
        except KeyboardInterrupt:
            sys.exit("Interrupted; give the same command again. What is unfinished is never used.")
        print_result(builder, kind, flags.data_dir)


def _parse(argv: list[str]) -> tuple[argparse.Namespace, Any]:
    parser = cli.Parser(
        "python -m experiments.prepare_data", description=__doc__.partition("\n")[0]
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    module = None
    for name, kind in KINDS.items():
        subparser = kinds.add_parser(name, help=kind.description, description=kind.description)
        subparser.add_argument(
            "--data_dir", default="", help="where TFDS keeps data sets; default: TFDS's own"
        )
        if argv[:1] == [name]:  # Modules of builders import TFDS, which takes seconds.
            module = importlib.import_module(f"perceiver_jax.data.builders.{kind.module}")
            module.add_arguments(subparser)
    return parser.parse_args(argv), module


def _build(flags: argparse.Namespace, kind: Kind, module: Any) -> Builder:
    from perceiver_jax.data import datasets  # See above.

    builder, download_config = module.from_flags(flags, datasets.root(flags.data_dir))
    made = made_from(flags)
    try:
        datasets.build(builder, download_config, quiet=not kind.by_tfds, made_from=made)
    except ImportError as error:
        if error.name != "tensorflow":
            raise
        raise config.MissingPackageError(
            f"TFDS's builder of {flags.name!r} needs TensorFlow, which is not installed. To "
            "prepare the data set, install it: pip install perceiver-haiku[tensorflow]. Training "
            "does not use it. (imagenet2012 needs none by the KIND of that name.)"
        ) from error
    if kind.by_tfds:
        return builder
    if builder.note:
        print(builder.note)
    report = pathlib.Path(builder.data_dir, "report.csv")
    if report.exists():  # Earlier versions wrote none.
        with report.open("rb") as file:
            has_rows = any(itertools.islice(file, 1, 2))  # The first line names the columns.
        if has_rows:
            print(f"What was left out, or is odd: {report}")
    return datasets.find(builder.name, flags.data_dir)  # It may have been there, made differently.


def print_result(builder: Builder, kind: Kind, data_dir: str) -> None:
    """Prints what was prepared and how to train on it.

    Args:
      builder: of a data set that is on disk.
      kind: what it was prepared from.
      data_dir: as given by the user.
    """
    for split, info in sorted(builder.info.splits.items()):
        print(f"{split}: {info.num_examples:,} examples, {info.num_bytes / 1e6:,.1f} MB")
    label = dict(builder.info.features.items()).get("label")
    if hasattr(label, "names"):
        more = ", ..." if label.num_classes > _SHOWN_CLASSES else ""
        print(f"{label.num_classes} classes: {', '.join(label.names[:_SHOWN_CLASSES])}{more}")
    print(f"in {builder.data_dir}")
    every = builder.info.features.values()
    recipe = kind.recipe
    if not any(hasattr(getattr(feature, "feature", feature), "names") for feature in every):
        recipe = kind.other_recipe
    if not recipe:
        print("It has no classes. Numbers to be predicted, and other tasks: docs/new_task.md")
        return
    variant = builder.builder_config
    name = builder.name if variant is None else f"{builder.name}/{variant.name}"
    command = ["python", "-m", "experiments.train"]
    if recipe == _OWN_DATA:  # Is sized by the set, which it has to find.
        where = f",data_dir={data_dir}" if data_dir else ""
        command.append(f"--config=experiments/configs/{recipe}:{name}{where}")
    else:
        command.append(f"--config=experiments/configs/{recipe}")
        command.append(f"--config.data.dataset={name}")
        if data_dir:
            command.append(f"--config.data.data_dir={data_dir}")
    command += kind.overrides(builder)
    command.append(f"--workdir=runs/{builder.name}")
    if recipe == _MASKED_TEXT:
        from experiments.configs import masked_text

        read = masked_text.get_config("mini").data.fields.text.max_length
        print(f"This small model reads the first {read} bytes of each text, see --max_length.")
    print(f"Train on it: {shlex.join(command)}")


def made_from(flags: argparse.Namespace) -> dict[str, Any]:
    """Returns what a set of that name must have been made with, to be the one that is asked for.

    What a folder of one's own is called says little; the other kinds' names say what is in the set.
    """
    given = {k: v for k, v in vars(flags).items() if k in ("kind", *_DECIDES) and v is not None}
    if hasattr(flags, "test_fraction"):
        given["source"] = str(flags.source.resolve())
    return given


def _existing(source: str, kind: Kind) -> pathlib.Path:
    """Returns `--source` if it is what the kind needs."""
    path = pathlib.Path(source).expanduser()
    if not source or not path.exists():
        given = path if source else "--source=''"
        raise config.UserError(f"There is no {given}; expected {kind.source}. Correct --source.")
    if not path.is_dir() and not kind.may_be_file:
        todo = "name its directory" if path.suffix.lower() not in _ARCHIVES else "unpack it"
        raise config.UserError(
            f"Got the file {path}; expected {kind.source}. Correct --source, or {todo}."
        )
    return path


def _check_data_dir(data_dir: str) -> None:
    """Refuses what TFDS can't write to, or training not read."""
    if "://" in data_dir:
        raise config.UserError(
            f"Got --data_dir={data_dir}; expected a directory of this machine. Mount it, or copy "
            "the set there afterwards."
        )
    if any("\ud800" <= letter <= "\udfff" for letter in data_dir) or "**" in data_dir:
        raise config.UserError(
            f"Got --data_dir={data_dir}; expected a name in UTF-8 without '**', for TFDS can write "
            "to no other. Choose another."
        )
    path = pathlib.Path(data_dir).expanduser()
    if not path.is_dir():  # What is there may have the set already, and be read alone.
        cli.check_place("data_dir", path)


def _shape_overrides(builder: Builder) -> list[str]:
    from perceiver_jax.data.builders.shapes import clouds  # Imported already.

    num_points, _ = builder.info.features["points"].shape
    if num_points == clouds.NUM_POINTS:
        return []  # The recipe's own.
    return [f"--config.data.fields.points.num_points={num_points}"]


_CLASS_FOLDERS = "a directory with a folder for each class"

KINDS: Mapping[str, Kind] = {
    "imagenet2012": Kind(
        "ImageNet, from the official tar files",
        "imagenet2012",
        "the directory of ILSVRC2012_img_train.tar",
        "imagenet.py",
        by_tfds=True,
    ),
    "image_folder": Kind(
        "pictures, in a folder per class", "image_folder", _CLASS_FOLDERS, _OWN_DATA
    ),
    "audioset": Kind(
        "AudioSet, from a folder of clips and the official lists",
        "audioset",
        "the directory of the clips",
        "audioset.py",
    ),
    "sound_folder": Kind(
        "sounds (WAV, FLAC, MP3, Opus, AIFF, AU, ..., or of videos), in a folder per class",
        "clip_folder",
        _CLASS_FOLDERS,
        _OWN_DATA,
    ),
    "video_folder": Kind(
        "videos (MP4, MKV, AVI, MPEG, WMV, ...) with or without sound, in a folder per class",
        "clip_folder",
        _CLASS_FOLDERS,
        _OWN_DATA,
    ),
    "text_table": Kind(
        "texts in a table (CSV, TSV or JSON Lines), with classes in another column or without",
        "text_table",
        "a .csv, .tsv or .jsonl file, or a directory of such files",
        _OWN_DATA,
        may_be_file=True,
        other_recipe=_MASKED_TEXT,
    ),
    "text_files": Kind(
        "plain texts without classes, each line or piece of a file an example",
        "text_files",
        "a text file, or a directory of such files",
        _MASKED_TEXT,
        may_be_file=True,
        other_recipe=_MASKED_TEXT,
    ),
    "flow_folder": Kind(
        "pairs of pictures and their optical flow (.flo, KITTI's .png, .npy)",
        "flow_folder",
        "a directory of pictures and flows",
        "flow.py:mini",
        other_recipe="flow.py:mini",
    ),
    "modelnet40": Kind(
        "ModelNet40, from its OFF meshes, the HDF5 release or .npz clouds",
        "modelnet40",
        "the files of ModelNet40",
        "modelnet40.py",
        _shape_overrides,
        may_be_file=True,
    ),
    "mesh_folder": Kind(
        "meshes (OBJ, PLY, STL, OFF) or .npy clouds, in a folder per class",
        "mesh_folder",
        _CLASS_FOLDERS,
        _OWN_DATA,
    ),
    "tfds": Kind(
        "any data set of TFDS, downloaded by it",
        "downloaded",
        "a directory",
        _OWN_DATA,
        by_tfds=True,
    ),
}

if __name__ == "__main__":
    main(sys.argv[1:])
