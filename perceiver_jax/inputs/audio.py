"""Audio: patches of raw samples, or a mel spectrogram (section 4.2)."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import ClassVar

import haiku as hk
from jaxtyping import Array, Bool, Shaped

from perceiver_jax import config, tokens


@dataclasses.dataclass
class AudioPreprocessor(hk.Module):
    """Patches of consecutive raw samples with their positions in time.

    Attributes:
      patch_size: samples a patch; 128 in the paper.
      mean: of the samples, which is taken off.
      std: standard deviation of the samples, by which they are divided. Positions, of numbers up to
        1, outweigh samples that are left much smaller, and training begins with a long wait.
      position_encoding: of the patches.
    """

    patch_size: int = 128
    mean: int | float = 0.0
    std: int | float = 1.0
    position_encoding: Callable | None = None
    name: str | None = None

    axes: ClassVar[str] = "B S"

    def __post_init__(self):
        """Checks the numbers."""
        super().__post_init__()
        config.check(vars(self), patch_size=config.AT_LEAST_ONE)
        config.check(vars(self), mean=config.NUMBER, std=config.POSITIVE)

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The inputs along each axis, for an example of the given shape."""
        return (shape[0] // self.patch_size,)

    def __call__(
        self, audio: Shaped[Array, "B S"], mask: Bool[Array, "B *M"] | None = None
    ) -> tokens.Tokens:
        """Gives S / patch_size inputs of patch_size channels and positions."""
        if self.mean or self.std != 1:
            audio = (tokens.to_floats(audio) - self.mean) / self.std
        patches = tokens.to_patches(audio[..., None], (self.patch_size,))
        return tokens.from_grid(patches, self.position_encoding, mask)


@dataclasses.dataclass
class MelPreprocessor(hk.Module):
    """A mel spectrogram, each value (or patch of values) an input.

    Attributes:
      patch_size: frames and mel bins of a patch; (1, 1), every value an input, in the paper.
      position_encoding: of the grid of patches (time, frequency).
    """

    patch_size: Sequence[int] = (1, 1)
    position_encoding: Callable | None = None
    name: str | None = None

    axes: ClassVar[str] = "B T F"

    def __post_init__(self):
        """Checks the numbers."""
        super().__post_init__()
        tokens.check_patches(self.patch_size, self.axes)

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The inputs along each axis, for an example of the given shape."""
        return tuple(n // p for n, p in zip(shape, self.patch_size, strict=True))

    def __call__(
        self, mel: Shaped[Array, "B T F"], mask: Bool[Array, "B *M"] | None = None
    ) -> tokens.Tokens:
        """Gives one input a patch of the spectrogram of T frames and F bins."""
        patches = tokens.to_patches(mel[..., None], self.patch_size)
        return tokens.from_grid(patches, self.position_encoding, mask)
