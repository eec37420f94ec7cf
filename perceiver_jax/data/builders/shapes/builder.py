"""The TFDS builder of point clouds from files of shapes, which knows no particular data set."""

import collections
from collections.abc import Iterator, Mapping, Sequence
import importlib.util
import pathlib
from typing import Any

import numpy as np
import rich.console
import rich.progress
import tensorflow_datasets as tfds

from perceiver_jax.data.builders import report
from perceiver_jax.data.builders.shapes import reading

NUM_POINTS = 2_048  # Of meshes, which have no number of their own. Paper: "about 2000".


class ShapeBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Clouds of `num_points` points, centred, in the unit ball, the y axis up, each with a class.

    Attributes:
        found: number of shapes of each split, damaged ones among them, after the build.
        skipped: what was left out.
        note: what the user should know of how the files were understood; may be empty.
    """

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION = ""
    note = ""

    def __init__(
        self,
        *,
        tasks: Mapping[str, Sequence[Mapping[str, Any]]],
        classes: Sequence[str],
        num_points: int,
        skipped: Sequence[report.Skipped],
        data_dir: pathlib.Path,
    ):
        """Sets the builder up; nothing but names has been read yet.

        Args:
            tasks: for each split, what `reading.read` shall do.
            classes: names of the classes in their order.
            num_points: number of points P of each cloud.
            skipped: what is left out already.
            data_dir: where TFDS keeps data sets.

        Raises:
            ValueError: `num_points` is not positive.
            ModuleNotFoundError: a package that reads shapes is not installed.
        """
        if num_points < 1:
            raise ValueError(
                f"Got num_points={num_points}; expected 1 or more. Try {NUM_POINTS}, for instance."
            )
        for package in ("trimesh", "h5py"):
            if importlib.util.find_spec(package) is None:
                raise ModuleNotFoundError(
                    f"Reading shapes needs the package {package}, which is not installed; install "
                    "it with: pip install perceiver-haiku[meshes]"
                )
        self._tasks, self._classes, self._num_points = tasks, tuple(classes), num_points
        self.found: collections.Counter[str] = collections.Counter()
        self.skipped = list(skipped)
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        points = tfds.features.Tensor(shape=(self._num_points, 3), dtype=np.float32)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "points": points,
                    "label": tfds.features.ClassLabel(names=self._classes),
                    "name": tfds.features.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict]]]:
        del dl_manager  # Nothing is downloaded.
        return {split: self._generate_examples(split) for split in self._tasks}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        results = rich.progress.track(
            reading.read_all(self._tasks[split]),
            description=f"Building {self.name}, {split} split",
            total=len(self._tasks[split]),
            console=rich.console.Console(stderr=True),
        )
        skipped = []
        for name, label, value in (item for items in results for item in items):
            self.found[split] += 1
            if label:
                yield name, {"points": value, "label": label, "name": name}
            else:
                skipped.append(report.Skipped(name, *value))
        self.skipped += skipped
        num_kept = self.found[split] - len(skipped)
        report.check_any(num_kept, "shapes", f"the {split} split", skipped)
