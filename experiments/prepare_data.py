"""Prepares a data set: from the files that you have to records on disk that training reads.

    python -m experiments.prepare_data KIND [--source=PATH] [--data_dir=DIR] [--name=NAME] [...]

The last line that it prints is the command that trains on the result.
"""

import argparse
from collections.abc import Callable, Mapping
import dataclasses
import io
import pathlib
import re
import shlex
import sys
from typing import Any

from experiments import cli

_SHOWN_CLASSES = 10
_CLASS_FOLDERS = "a directory with a folder for each class"
_DECIDES = ("test_fraction", "num_points", "up")  # Flags that change what is in a set.
_ARCHIVES = (".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst")

Builder = Any  # tfds.core.DatasetBuilder; importing TFDS takes seconds.


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of source.

    Attributes:
      description: what the source is, in a line.
      add_arguments: adds the kind's own flags to its parser, which has those of all kinds already.
      prepare: builds the data set of the parsed flags on disk and returns its builder.
      recipe: the config that can train on it.
      overrides: what else of the recipe has to be set, given the builder.
    """

    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    prepare: Callable[[argparse.Namespace], Builder]
    recipe: str
    overrides: Callable[[Builder], list[str]] = lambda builder: []


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        "python -m experiments.prepare_data", description=__doc__.partition("\n")[0]
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, kind in KINDS.items():
        subparser = kinds.add_parser(name, help=kind.description, description=kind.description)
        subparser.add_argument(
            "--data_dir", default="", help="where TFDS keeps data sets; default: TFDS's own"
        )
        kind.add_arguments(subparser)
    flags = parser.parse_args(argv)
    kind = KINDS[flags.kind]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # Names have letters that terminals lack.
            stream.reconfigure(errors="backslashreplace")
    with cli.user_errors_end_the_program():
        _check_data_dir(flags.data_dir)
        try:
            builder = kind.prepare(flags)
        except KeyboardInterrupt:
            sys.exit("Interrupted; give the same command again. What is unfinished is never used.")
        print_result(builder, kind, flags.data_dir)


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
    config = builder.builder_config
    name = builder.name if config is None else f"{builder.name}/{config.name}"
    command = ["python", "-m", "experiments.train", f"--config={kind.recipe}"]
    command.append(f"--config.data.dataset={name}")
    if data_dir:
        command.append(f"--config.data.data_dir={data_dir}")
    command += kind.overrides(builder)
    command.append(f"--workdir=runs/{builder.name}")
    print(f"Train on it: {shlex.join(command)}")


def require_path(flags: argparse.Namespace, what: str, may_be_file: bool = False) -> pathlib.Path:
    """Returns `--source`.

    Args:
      flags: the parsed flags.
      what: the source has to be.
      may_be_file: whether it need not be a directory.

    Raises:
      UsageError: there is no such directory, or file.
    """
    path = pathlib.Path(flags.source).expanduser()
    if not flags.source or not path.exists():
        given = path if flags.source else "--source=''"
        raise cli.UsageError(f"There is no {given}; expected {what}. Correct --source.")
    if not may_be_file and not path.is_dir():
        todo = "name its directory" if path.suffix.lower() not in _ARCHIVES else "unpack it"
        raise cli.UsageError(f"Got the file {path}; expected {what}. Correct --source, or {todo}.")
    return path


def choose_name(flags: argparse.Namespace) -> str:
    """Returns `--name`, or else the name of the source without what TFDS does not allow in one.

    Raises:
      UsageError: TFDS allows no such name.
    """
    own = pathlib.Path(flags.source).expanduser().resolve().name.lower()
    name = flags.name or re.sub("[^a-z0-9]+", "_", own).strip("_")
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise cli.UsageError(
            f"{name!r} can't be the name of a data set; expected a letter, then letters, digits "
            "and '_', all lower-case. Set --name."
        )
    return name


def made_from(flags: argparse.Namespace) -> dict[str, Any]:
    """Returns what a set of that name must have been made with, to be the one that is asked for.

    What a folder of one's own is called says little; the other kinds' names say what is in the set.
    """
    given = {k: v for k, v in vars(flags).items() if k in ("kind", *_DECIDES) and v is not None}
    if hasattr(flags, "test_fraction"):
        given["source"] = str(pathlib.Path(flags.source).expanduser().resolve())
    return given


def write_report(builder: Builder) -> None:
    """Writes what a build left out, `builder.skipped`, beside the data, and prints the counts.

    Prints also how the folders were understood, `builder.note`, where that is not plain.
    """
    from perceiver_jax.data.builders import report

    directory = pathlib.Path(builder.data_dir)
    if (directory / report.NAME).exists():
        return  # It was not built now, and nothing was left out.
    kept = {split: info.num_examples for split, info in builder.info.splits.items()}
    report.write(directory, kept, builder.skipped)
    print(report.table(kept, builder.skipped))
    print(f"Which ones: {(directory / report.NAME).with_suffix('.txt')}")
    if builder.note:
        print(builder.note)


def _check_data_dir(data_dir: str) -> None:
    """Refuses what TFDS can't write to, or training not read."""
    if "://" in data_dir:
        raise cli.UsageError(
            f"Got --data_dir={data_dir}; expected a directory of this machine. Mount it, or copy "
            "the set there afterwards."
        )
    if any("\ud800" <= letter <= "\udfff" for letter in data_dir) or "**" in data_dir:
        raise cli.UsageError(
            f"Got --data_dir={data_dir}; expected a name in UTF-8 without '**', for TFDS can write "
            "to no other. Choose another."
        )


def _tfds_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="TFDS's name: cifar10, imagenette/320px, ...")
    parser.add_argument("--source", help="directory of what TFDS can't download itself")


def _prepare_tfds(flags: argparse.Namespace) -> Builder:
    import tensorflow_datasets as tfds

    from perceiver_jax.data import datasets

    try:
        builder = tfds.builder(
            flags.name, data_dir=datasets.root(flags.data_dir), file_format="array_record"
        )
    except tfds.core.DatasetNotFoundError as error:
        raise cli.UsageError(
            f"TFDS has no data set {flags.name!r}; expected one of those that "
            "tfds.list_builders() lists. Correct --name."
        ) from error
    manual_dir = require_path(flags, "a directory") if flags.source else None
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    try:
        datasets.build(builder, config, quiet=False, made_from=made_from(flags))
    except ImportError as error:
        if error.name != "tensorflow":
            raise
        raise cli.UsageError(
            f"TFDS's builder of {flags.name!r} needs TensorFlow, which is not installed. To "
            "prepare the data set, install it: pip install perceiver-haiku[tensorflow]. Training "
            "does not use it. (imagenet2012 needs none by the KIND of that name.)"
        ) from error
    return builder


def _imagenet_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, help="directory of the two official tar files")


def _prepare_imagenet(flags: argparse.Namespace) -> Builder:
    import tensorflow_datasets as tfds

    from perceiver_jax.data import datasets
    from perceiver_jax.data.builders import imagenet2012

    manual_dir = require_path(flags, "the directory of ILSVRC2012_img_train.tar")
    builder = imagenet2012.Imagenet2012(data_dir=datasets.root(flags.data_dir))
    datasets.build(builder, tfds.download.DownloadConfig(manual_dir=manual_dir), quiet=False)
    return builder


def _folder_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, help="has a folder for each class, or split")
    parser.add_argument("--name", help="of the data set; default: the source's own name")
    parser.add_argument(
        "--test_fraction",
        type=float,
        default=0.1,
        help="part of the files to test on if there are no folders train and test (default: 0.1)",
    )


def _prepare_image_folder(flags: argparse.Namespace) -> Builder:
    from perceiver_jax.data import datasets
    from perceiver_jax.data.builders import image_folder

    source = require_path(flags, _CLASS_FOLDERS)
    builder = image_folder.ImageFolder(
        source, choose_name(flags), datasets.root(flags.data_dir), flags.test_fraction
    )
    datasets.build(builder, made_from=made_from(flags))
    write_report(builder)
    return builder


def _modelnet40_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source", required=True, help="ModelNet40.zip, or a folder of OFF, HDF5 or .npz files"
    )
    _num_points_argument(parser)


def _prepare_modelnet40(flags: argparse.Namespace) -> Builder:
    from perceiver_jax.data import datasets
    from perceiver_jax.data.builders import modelnet40

    source = require_path(flags, "the files of ModelNet40", may_be_file=True)
    builder = modelnet40.Modelnet40(source, datasets.root(flags.data_dir), flags.num_points)
    datasets.build(builder, made_from=made_from(flags))
    for split, number in modelnet40.SIZES.items():
        if builder.found:  # Otherwise it was there already.
            print(f"Found {builder.found[split]:,} of the {number:,} {split} shapes.")
    write_report(builder)
    return datasets.find(builder.name, flags.data_dir)


def _mesh_folder_arguments(parser: argparse.ArgumentParser) -> None:
    _folder_arguments(parser)
    _num_points_argument(parser)
    parser.add_argument(
        "--up", default="y", choices=("y", "z"), help="the files' vertical axis (default: y)"
    )


def _prepare_mesh_folder(flags: argparse.Namespace) -> Builder:
    from perceiver_jax.data import datasets
    from perceiver_jax.data.builders import mesh_folder

    source = require_path(flags, _CLASS_FOLDERS)
    builder = mesh_folder.MeshFolder(
        source,
        choose_name(flags),
        datasets.root(flags.data_dir),
        flags.test_fraction,
        flags.num_points,
        flags.up,
    )
    datasets.build(builder, made_from=made_from(flags))
    write_report(builder)
    return datasets.find(builder.name, flags.data_dir)


def _audioset_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, help="folder of clips with the official lists")
    parser.add_argument(
        "--beam_pipeline_options",
        default="",
        help="have Apache Beam prepare it, such as runner=DataflowRunner,project=...; see "
        "docs/audioset.md (default: this machine, all cores)",
    )


def _prepare_audioset(flags: argparse.Namespace) -> Builder:
    from perceiver_jax.data import datasets
    from perceiver_jax.data.builders import audioset

    builder = audioset.Audioset(data_dir=datasets.root(flags.data_dir))
    return _prepare_clips(builder, flags, _beam_options(flags.beam_pipeline_options))


def _prepare_sound_folder(flags: argparse.Namespace) -> Builder:
    return _prepare_clip_folder(flags, picture=False)


def _prepare_video_folder(flags: argparse.Namespace) -> Builder:
    return _prepare_clip_folder(flags, picture=True)


def _prepare_clip_folder(flags: argparse.Namespace, picture: bool) -> Builder:
    from perceiver_jax.data import datasets
    from perceiver_jax.data.builders import clip_folder

    source = require_path(flags, _CLASS_FOLDERS)
    builder = clip_folder.ClipFolder(
        source, choose_name(flags), datasets.root(flags.data_dir), picture, flags.test_fraction
    )
    return _prepare_clips(builder, flags, None)


def _prepare_clips(builder: Builder, flags: argparse.Namespace, beam_options: Any) -> Builder:
    import importlib.util

    import tensorflow_datasets as tfds

    from perceiver_jax.data import datasets

    if importlib.util.find_spec("av") is None:
        raise cli.UsageError(
            "Preparing clips needs the package av (PyAV), which is not installed; install it with: "
            "pip install perceiver-haiku[av]"
        )
    manual_dir = require_path(flags, "the directory of the clips")
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, beam_options=beam_options)
    datasets.build(builder, config, made_from=made_from(flags))
    if getattr(builder, "note", ""):
        print(builder.note)
    print(f"Which clips were left out, or are odd: {pathlib.Path(builder.data_dir, 'report.csv')}")
    return datasets.find(builder.name, flags.data_dir)


def _beam_options(text: str) -> Any:
    if not text:
        return None
    try:
        from apache_beam.options import pipeline_options
    except ModuleNotFoundError as error:
        raise cli.UsageError(
            "Preparing with Beam needs the package apache-beam, which is not installed; install it "
            "with: pip install perceiver-haiku[beam]"
        ) from error
    return pipeline_options.PipelineOptions([f"--{option}" for option in text.split(",")])


def _own_clips_overrides(builder: Builder) -> list[str]:
    classes = builder.info.features["label"].num_classes
    return [f"--config.model.num_classes={classes}", "--config.train.loss=softmax"]


def _num_points_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--num_points", type=int, help="of each cloud (default: 2048; of .npz clouds all)"
    )


def _shape_overrides(builder: Builder) -> list[str]:
    from perceiver_jax.data.builders.shapes import builder as shapes

    num_points, _ = builder.info.features["points"].shape
    if num_points == shapes.NUM_POINTS:
        return []  # The recipe's own.
    return [f"--config.data.fields.points.num_points={num_points}"]


KINDS: Mapping[str, Kind] = {
    "imagenet2012": Kind(
        "ImageNet, from the official tar files",
        _imagenet_arguments,
        _prepare_imagenet,
        "experiments/configs/imagenet.py",
    ),
    "image_folder": Kind(
        "pictures, in a folder per class",
        _folder_arguments,
        _prepare_image_folder,
        "experiments/configs/imagenet.py",
    ),
    "audioset": Kind(
        "AudioSet, from a folder of clips and the official lists",
        _audioset_arguments,
        _prepare_audioset,
        "experiments/configs/audioset.py",
    ),
    "sound_folder": Kind(
        "sounds (WAV, FLAC, MP3, Opus, AIFF, AU, ..., or of videos), in a folder per class",
        _folder_arguments,
        _prepare_sound_folder,
        "experiments/configs/audioset.py:audio_mel",
        _own_clips_overrides,
    ),
    "video_folder": Kind(
        "videos (MP4, MKV, AVI, MPEG, WMV, ...) with or without sound, in a folder per class",
        _folder_arguments,
        _prepare_video_folder,
        "experiments/configs/audioset.py",
        _own_clips_overrides,
    ),
    "modelnet40": Kind(
        "ModelNet40, from its OFF meshes, the HDF5 release or .npz clouds",
        _modelnet40_arguments,
        _prepare_modelnet40,
        "experiments/configs/modelnet40.py",
        _shape_overrides,
    ),
    "mesh_folder": Kind(
        "meshes (OBJ, PLY, STL, OFF) or .npy clouds, in a folder per class",
        _mesh_folder_arguments,
        _prepare_mesh_folder,
        "experiments/configs/modelnet40.py",
        _shape_overrides,
    ),
    "tfds": Kind(
        "any data set of TFDS, downloaded by it",
        _tfds_arguments,
        _prepare_tfds,
        "experiments/configs/imagenet.py",
    ),
}

if __name__ == "__main__":
    main(sys.argv[1:])
