"""Shapes in a folder per class: OBJ, PLY, STL and OFF meshes, and `.npy` clouds."""

import argparse
import pathlib

from perceiver_jax import config
from perceiver_jax.data.builders import class_folders
from perceiver_jax.data.builders.shapes import builder, clouds, mesh

SUFFIXES = frozenset({*mesh.SUFFIXES, ".npy"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this kind."""
    class_folders.add_arguments(parser)
    builder.add_num_points(parser)
    parser.add_argument(
        "--up", default="y", choices=("y", "z"), help="the files' vertical axis (default: y)"
    )


def from_flags(flags: argparse.Namespace, data_dir: pathlib.Path) -> tuple["MeshFolder", None]:
    """Returns the builder, and nothing that TFDS has to download."""
    name = class_folders.choose_name(flags)
    numbers = flags.test_fraction, flags.num_points
    return MeshFolder(flags.source, name, data_dir, *numbers, flags.up), None


class MeshFolder(builder.ShapeBuilder):
    """Clouds of points on the surfaces of one's own meshes."""

    DESCRIPTION = "Points on shapes in a folder per class; y is up."

    def __init__(
        self,
        source: pathlib.Path,
        name: str,
        data_dir: pathlib.Path,
        test_fraction: float = 0.1,
        num_points: int | None = None,
        up: str = "y",
    ):
        """Looks for the files.

        Args:
            source: has a folder for each class, or for each split, see `class_folders.find`.
            name: of the data set.
            data_dir: where TFDS keeps data sets.
            test_fraction: how much is for testing, where the folders don't say.
            num_points: number of points P of each cloud; None: 2,048.
            up: the files' vertical axis, 'y' or 'z'; z is turned to y.

        Raises:
            UserError: `up` or `num_points` is not allowed, or there are no shapes.
        """
        if up not in ("y", "z"):
            raise config.UserError(f"Got up={up!r}; expected 'y' or 'z', the files' vertical axis.")
        num_points = clouds.NUM_POINTS if num_points is None else num_points
        files = class_folders.find(source, SUFFIXES, test_fraction, self.WHAT)
        self.name, self.note = name, files.note
        same = {"num_points": num_points, "z_up": up == "z"}
        super().__init__(
            tasks={
                split: [
                    # The points that are taken depend on the key.
                    {"path": str(source / file), "name": file, "key": file, "class": label} | same
                    for file, label in pairs
                ]
                for split, pairs in files.splits.items()
            },
            classes=files.classes,
            num_points=num_points,
            skipped=files.skipped,
            data_dir=data_dir,
        )
