"""The TFDS builder of point clouds from files of shapes, which knows no particular data set."""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from perceiver_jax import config
from perceiver_jax.data.builders import base, report
from perceiver_jax.data.builders.shapes import clouds, reading


def add_num_points(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that all kinds of shapes have."""
    parser.add_argument(
        "--num_points", type=int, help="of each cloud (default: 2048; of .npz clouds all)"
    )


class ShapeBuilder(base.FilesBuilder, skip_registration=True):
    """Clouds of `num_points` points, centred, in the unit ball, the y axis up, each with a class.

    Tasks are those of `reading.read`.
    """

    WHAT = "shapes"
    DESCRIPTION = ""

    def __init__(self, *, num_points: int, **kwargs: Any):
        """Sets the builder up; nothing but names has been read yet.

        Args:
            num_points: number of points P of each cloud.
            **kwargs: those of `base.FilesBuilder`.

        Raises:
            UserError: `num_points` is not positive, or a package that reads shapes is not
                installed.
        """
        if num_points < 1:
            raise config.UserError(
                f"Got num_points={num_points}; expected 1 or more. Try {clouds.NUM_POINTS}, for "
                "instance."
            )
        reading.check_packages()
        self._num_points = num_points
        super().__init__(**kwargs)

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

    def _read(self, tasks: Sequence[reading.Task]) -> Iterator[list[base.Result]]:
        for results in reading.read_all(tasks):
            yield [
                (name, {"points": value, "label": label, "name": name})
                if label
                else report.left_out(name, *value)
                for name, label, value in results
            ]
