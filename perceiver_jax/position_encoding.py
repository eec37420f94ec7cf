"""Position encodings: Fourier features and learned ones (section 3.2)."""

from collections.abc import Sequence
import dataclasses

import haiku as hk
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped
import numpy as np

from perceiver_jax import config, tokens


def linear_positions(index_dims: Sequence[int]) -> Float[np.ndarray, "M X"]:
    """Positions of a grid's elements, in [-1, 1] with both ends, the last axis fastest.

    Args:
      index_dims: the grid's size along each axis, such as (height, width).

    Returns:
      One position of as many coordinates as axes for each element of the flattened grid.
    """
    axes = [np.linspace(-1.0, 1.0, n, dtype=np.float32) for n in index_dims]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def fourier_features(
    positions: Shaped[Array, "*M X"] | Shaped[np.ndarray, "*M X"],
    num_bands: int,
    max_resolution: Sequence[int | float],
    *,
    concat_positions: bool = True,
    sine_only: bool = False,
) -> Float[Array, "*M F"]:
    """sin(f_k π x_d) and cos(f_k π x_d) of K frequencies, linearly spaced from 1 to μ_d / 2.

    Follows version 2 of the paper and the authors' code; version 1 spaced the bands
    logarithmically.

    Args:
      positions: coordinates, in [-1, 1]; whole numbers count as floats.
      num_bands: K, frequencies a dimension.
      max_resolution: μ of each dimension, the sampling rate whose Nyquist frequency μ / 2 is the
        highest one; for a grid usually its size.
      concat_positions: whether the raw coordinates come first.
      sine_only: leave out the cosines.

    Returns:
      Features, X (2K + 1) of them by default: raw positions, then all sines (by dimension), then
      all cosines.

    Raises:
      ValueError: if max_resolution has not one entry a dimension.
    """
    num_dims = positions.shape[-1]
    if len(max_resolution) != num_dims:
        raise config.UserError(
            f"max_resolution {tuple(max_resolution)} has {len(max_resolution)} entries; "
            f"the positions have {num_dims} dimensions. Give one maximum resolution for each."
        )
    frequencies = np.stack(
        [np.linspace(1.0, mu / 2, num_bands, dtype=np.float32) for mu in max_resolution]
    )  # [X, K]
    positions = tokens.to_floats(jnp.asarray(positions))
    phases = (
        jnp.pi
        * positions[..., None]
        * frequencies.astype(positions.dtype).reshape(
            (1,) * (positions.ndim - 1) + frequencies.shape
        )
    )
    phases = phases.reshape(*positions.shape[:-1], num_dims * num_bands)
    parts = [jnp.sin(phases)] if sine_only else [jnp.sin(phases), jnp.cos(phases)]
    return jnp.concatenate([positions, *parts] if concat_positions else parts, axis=-1)


@dataclasses.dataclass
class FourierEncoding(hk.Module):
    """Fourier features of a grid's or of given positions; no parameters.

    Attributes:
      num_bands: frequencies a dimension.
      max_resolution: see `fourier_features`; None takes the grid's size.
      concat_positions: whether the raw coordinates are part of the encoding.
      sine_only: leave out the cosines.
    """

    num_bands: int
    max_resolution: Sequence[int | float] | None = None
    concat_positions: bool = True
    sine_only: bool = False
    name: str | None = None

    def __post_init__(self):
        """Checks the numbers."""
        super().__post_init__()
        config.check(vars(self), num_bands=config.AT_LEAST_ONE)
        if self.max_resolution is not None:
            config.check(vars(self), max_resolution=config.Range(1))

    def __call__(self, index_dims: Sequence[int]) -> Float[Array, "M F"]:
        """Encodes the elements of a grid."""
        positions = jnp.asarray(linear_positions(index_dims))
        return self.encode(positions, self.max_resolution or index_dims)

    def size(self, num_dims: int) -> int:
        """F, how many features positions of so many dimensions have."""
        each = self.num_bands * (1 if self.sine_only else 2) + bool(self.concat_positions)
        return num_dims * each

    def encode(
        self, positions: Array, max_resolution: Sequence[int | float] | None = None
    ) -> Array:
        """Encodes arbitrary positions `[..., X]`, in [-1, 1]."""
        max_resolution = max_resolution or self.max_resolution
        if max_resolution is None:
            raise config.UserError(
                "max_resolution is None; arbitrary positions have no grid to take it from. "
                "Set one number for each of their dimensions."
            )
        return fourier_features(
            positions,
            self.num_bands,
            max_resolution,
            concat_positions=self.concat_positions,
            sine_only=self.sine_only,
        )


@dataclasses.dataclass
class LearnedEncoding(hk.Module):
    """One learned vector for each element of a grid.

    Attributes:
      num_channels: size of a vector; 128 in the paper's ImageNet experiment.
      init_scale: standard deviation at the start; 1.0 worked best there (appendix B).
      project_to: channels of a linear map of the vectors; 0: there is none. 256 in Perceiver IO's.
    """

    num_channels: int = 128
    init_scale: float = 1.0
    project_to: int = 0
    name: str | None = None

    def __post_init__(self):
        """Checks the numbers."""
        super().__post_init__()
        config.check(
            vars(self),
            num_channels=config.AT_LEAST_ONE,
            init_scale=config.POSITIVE,
            project_to=config.COUNT,
        )

    def __call__(self, index_dims: Sequence[int]) -> Float[Array, "M F"]:
        """The vectors of a grid's elements, the last axis fastest."""
        init = hk.initializers.TruncatedNormal(self.init_scale)
        vectors = hk.get_parameter(
            "position_embedding", [int(np.prod(index_dims)), self.num_channels], init=init
        )
        return (
            hk.Linear(self.project_to, name="projection")(vectors) if self.project_to else vectors
        )


ENCODINGS = {"fourier": FourierEncoding, "learned": LearnedEncoding}
