"""Shapes in a folder per class: OBJ, PLY, STL and OFF meshes, and `.npy` clouds."""

import pathlib

from perceiver_jax.data.builders import class_folders
from perceiver_jax.data.builders.shapes import builder, mesh

SUFFIXES = frozenset({*mesh.SUFFIXES, ".npy"})


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
            ValueError: `up` or `num_points` is not allowed, or there are no shapes.
        """
        if up not in ("y", "z"):
            raise ValueError(f"Got up={up!r}; expected 'y' or 'z', the files' vertical axis.")
        num_points = builder.NUM_POINTS if num_points is None else num_points
        files = class_folders.find(source, SUFFIXES, test_fraction, "shapes")
        self.name = name
        self.note = files.note
        super().__init__(
            tasks={
                split: [
                    {
                        "path": str(source / file),
                        "name": file,
                        "key": file,
                        "class": label,
                        "num_points": num_points,
                        "z_up": up == "z",
                    }
                    for file, label in pairs
                ]
                for split, pairs in files.splits.items()
            },
            classes=files.classes,
            num_points=num_points,
            skipped=files.skipped,
            data_dir=data_dir,
        )
