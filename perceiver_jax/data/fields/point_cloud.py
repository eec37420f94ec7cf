"""Point clouds: float32 [points of the file, 3] -> float32 [P, 3]."""

import dataclasses
import math
from typing import ClassVar

from jaxtyping import Float32
import numpy as np

from perceiver_jax import config
from perceiver_jax.data import augment, errors


@dataclasses.dataclass(frozen=True)
class PointCloud:
    """A subset of a cloud's points, centred at its mean and scaled into the cube [-1, 1]^3.

    Paper: section 4.3: random per-point scaling, then zero mean and unit cube. All of our own
    changes of shape come before that too, only the translation after it. The y axis points up.

    Attributes:
        num_points: number of points; a random subset in training, evenly spaced ones in evaluation.
        point_scale: each point's factor comes from [1 - point_scale, 1 + point_scale].
        axis_scale: range of the factor of each axis.
        flip: whether half of the training clouds are mirrored left to right (x).
        rotation_degrees: largest random rotation about the vertical axis, either way.
        translation: largest random shift of the cloud along each axis, either way.
        max_dropped: up to this fraction of the points is replaced by copies of others.
    """

    num_points: int
    point_scale: augment.Number = 0.01
    axis_scale: augment.Range = (1.0, 1.0)
    flip: bool = False
    rotation_degrees: augment.Number = 0.0
    translation: augment.Number = 0.0
    max_dropped: augment.Number = 0.0

    feature: ClassVar[str] = "points"
    has_windows: ClassVar[bool] = True
    is_target: ClassVar[bool] = False

    def __post_init__(self):
        """Checks the numbers."""
        config.check(
            vars(self),
            num_points=config.AT_LEAST_ONE,
            point_scale=config.NOT_NEGATIVE,
            rotation_degrees=config.NOT_NEGATIVE,
            translation=config.NOT_NEGATIVE,
            max_dropped=config.BELOW_ONE,
        )
        config.check_pairs(vars(self), axis_scale=config.POSITIVE)

    def zeros(self) -> Float32[np.ndarray, "P 3"]:
        """Returns zeros of the output's shape and type."""
        return np.zeros((self.num_points, 3), np.float32)

    def read(
        self,
        value: Float32[np.ndarray, "all 3"],
        window: float,
        rng: np.random.Generator | None,
    ) -> Float32[np.ndarray, "P 3"]:
        """Takes a subset of a cloud and augments it in training.

        Args:
            value: the whole cloud.
            window: in evaluation, which subset: subsets at 0 and 1 are as far apart as can be.
            rng: source of randomness in training; None in evaluation.

        Raises:
            errors.BadDataError: the cloud has too few points.
        """
        if len(value) < self.num_points:
            raise errors.BadDataError(
                "too few points",
                f"{len(value)}; expected at least num_points={self.num_points}. Choose fewer "
                "points.",
            )
        if rng is None:
            subset = np.arange(self.num_points) * len(value) // self.num_points
            phase = round(window * (len(value) / self.num_points - 1))
            return _normalise(value[(subset + phase) % len(value)])
        points = value[self._random_subset(rng, len(value))]
        points = points * rng.uniform(*self.axis_scale, 3)
        if self.flip and rng.integers(2):
            points = points * np.array([-1, 1, 1])
        points = points @ self._random_rotation(rng)
        points = points * rng.uniform(
            1 - self.point_scale, 1 + self.point_scale, (self.num_points, 1)
        )
        shift = rng.uniform(-self.translation, self.translation, 3)
        return _normalise(points) + shift.astype(np.float32)

    def _random_subset(self, rng: np.random.Generator, num_all: int) -> np.ndarray:
        subset = rng.permutation(num_all)[: self.num_points]
        dropped = int(self.num_points * rng.uniform(0, self.max_dropped))
        subset[:dropped] = rng.choice(subset[dropped:], dropped)
        return subset

    def _random_rotation(self, rng: np.random.Generator) -> np.ndarray:
        angle = math.radians(rng.uniform(-self.rotation_degrees, self.rotation_degrees))
        cosine, sine = math.cos(angle), math.sin(angle)
        return np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])


def _normalise(points: np.ndarray) -> Float32[np.ndarray, "P 3"]:
    points = points - points.mean(axis=0)
    return (points / max(np.abs(points).max(), 1e-6)).astype(np.float32)
