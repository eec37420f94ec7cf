"""Video: a list of encoded frames -> uint8 [T, H, W, 3]."""

from collections.abc import Sequence
import dataclasses
from typing import ClassVar

from jaxtyping import UInt8
import numpy as np
import PIL.Image

from perceiver_jax import config
from perceiver_jax.data import augment
from perceiver_jax.data.fields import image

STORED_FRAME_RATE = 25  # Frames a second in AudioSet as we store it, and in atari_clips.


@dataclasses.dataclass(frozen=True)
class Video:
    """A window of a clip, all frames cropped and coloured alike; only its frames are decoded.

    Paper: section 4.2: 32 frames at 25 a second, Inception-style resizing, random flips, colour
    augmentation (its strengths are not given); the centre crop in evaluation is as for images.

    Attributes:
        num_frames: number of frames of the window.
        image_size: side of the square output, in pixels.
        frames_per_second: frames are taken at this rate from the stored 25 a second.
        crop_area: range of a training crop's area, as a fraction of the image's.
        crop_aspect: range of its width : height.
        flip: whether half of the training clips are mirrored left to right.
        brightness: random factors come from [1 - brightness, 1 + brightness].
        contrast: as brightness.
        saturation: as brightness.
    """

    num_frames: int
    image_size: int
    frames_per_second: augment.Number = STORED_FRAME_RATE
    crop_area: augment.Range = (0.08, 1.0)
    crop_aspect: augment.Range = (3 / 4, 4 / 3)
    flip: bool = False
    brightness: augment.Number = 0.0
    contrast: augment.Number = 0.0
    saturation: augment.Number = 0.0

    feature: ClassVar[str] = "video"
    has_windows: ClassVar[bool] = True
    is_target: ClassVar[bool] = False

    def __post_init__(self):
        """Checks the numbers."""
        config.check(
            vars(self),
            num_frames=config.AT_LEAST_ONE,
            image_size=config.AT_LEAST_ONE,
            frames_per_second=config.POSITIVE,
            brightness=config.FRACTION,
            contrast=config.FRACTION,
            saturation=config.FRACTION,
        )
        augment.check_crop(self)

    def zeros(self) -> UInt8[np.ndarray, "T H W 3"]:
        """Returns zeros of the output's shape and type."""
        return np.zeros((self.num_frames, self.image_size, self.image_size, 3), np.uint8)

    def read(
        self,
        value: Sequence[bytes] | np.ndarray,
        window: float,
        rng: np.random.Generator | None,
    ) -> UInt8[np.ndarray, "T H W 3"]:
        """Decodes a window.

        Args:
            value: the clip's encoded frames. A clip that is too short repeats its last frame.
            window: its place in the clip: 0 is the earliest, 1 the latest.
            rng: source of randomness in training; None in evaluation.
        """
        frames = [image.decode(value[i]) for i in self._frame_indices(len(value), window)]
        box = self._box(frames[0].size, rng)
        size = (self.image_size, self.image_size)
        frames = [frame.resize(size, PIL.Image.Resampling.BILINEAR, box) for frame in frames]
        if rng is not None:
            frames = self._augment(frames, rng)
        return np.stack([np.asarray(frame) for frame in frames])

    def _frame_indices(self, num_stored: int, window: float) -> np.ndarray:
        times = np.arange(self.num_frames) * STORED_FRAME_RATE / self.frames_per_second
        length = self.num_frames * STORED_FRAME_RATE / self.frames_per_second
        start = window * max(0, num_stored - length)
        return np.minimum(np.round(start + times).astype(int), num_stored - 1)

    def _box(self, size: tuple[int, int], rng: np.random.Generator | None) -> augment.Box:
        if rng is None:
            return augment.centre_box(size)
        return augment.random_box(rng, size, self.crop_area, self.crop_aspect)

    def _augment(
        self, frames: list[PIL.Image.Image], rng: np.random.Generator
    ) -> list[PIL.Image.Image]:
        if self.flip and rng.integers(2):
            frames = [frame.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT) for frame in frames]
        if self.brightness or self.contrast or self.saturation:
            frames = augment.colour_jitter(
                rng, frames, self.brightness, self.contrast, self.saturation
            )
        return frames
