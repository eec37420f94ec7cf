"""Pictures: encoded bytes -> uint8 [H, W, channels]."""

import dataclasses
import io
from typing import ClassVar

from jaxtyping import UInt8
import numpy as np
import PIL.Image

from perceiver_jax.data import augment, errors, rand_augment

MAX_PIXELS = 2**26  # 67 million; decoded to RGB, 200 MB.

_MODES = {1: "L", 3: "RGB"}
# Not all that Pillow knows: it hands EPS to another program, for instance.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


@dataclasses.dataclass(frozen=True)
class Image:
    """A picture, cropped and augmented in training, cropped at the centre in evaluation.

    Paper: section 4.1 (Inception-style crops, RandAugment). In its order: crop, flip, RandAugment
    at the crop's own size, bicubic resize. Pillow's resize filters when it shrinks, and clamps.

    Attributes:
        image_size: side of the square output, in pixels.
        channels: 3 (colour) or 1 (grey).
        crop: 'inception' or 'none' (the whole picture, in evaluation too).
        crop_area: range of a training crop's area, as a fraction of the picture's.
        crop_aspect: range of its width : height.
        flip: whether half of the training pictures are mirrored left to right.
        rand_augment_layers: number of RandAugment's operations; 0 is off.
        rand_augment_magnitude: their strength, 0 to 10.
        rotation_degrees: largest random rotation either way, last of all, on the resized picture.
        scale: random scale factors come from [1 - scale, 1 + scale].
        shift: largest random shift either way, as a fraction of the side.
    """

    image_size: int
    channels: int = 3
    crop: str = "inception"
    crop_area: augment.Range = (0.08, 1.0)
    crop_aspect: augment.Range = (3 / 4, 4 / 3)
    flip: bool = False
    rand_augment_layers: int = 0
    rand_augment_magnitude: augment.Number = 5
    rotation_degrees: augment.Number = 0.0
    scale: augment.Number = 0.0
    shift: augment.Number = 0.0

    feature: ClassVar[str] = "image"
    has_windows: ClassVar[bool] = False

    def __post_init__(self):
        """Checks the choices."""
        errors.check_known("crop", self.crop, ["inception", "none"])
        if self.channels not in _MODES:
            raise ValueError(f"Got channels={self.channels}; expected 1 (grey) or 3 (colour).")

    def spec(self) -> UInt8[np.ndarray, "H W channels"]:
        """Returns zeros of the output's shape and type."""
        return np.zeros((self.image_size, self.image_size, self.channels), np.uint8)

    def read(
        self, value: bytes, position: float, rng: np.random.Generator | None
    ) -> UInt8[np.ndarray, "H W channels"]:
        """Decodes a picture.

        Args:
            value: an encoded picture.
            position: not used, a picture has no time.
            rng: source of randomness in training; None in evaluation.
        """
        del position
        image = decode(value, _MODES[self.channels])
        if rng is None:
            image = self._resize(image, self._box(image, rng))
        else:
            image = self._augment(image, rng)
        return np.asarray(image).reshape(self.image_size, self.image_size, self.channels)

    def _augment(self, image: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
        box = self._box(image, rng)
        mirrored = self.flip and rng.integers(2)
        if mirrored or self.rand_augment_layers:
            image = image.crop(box)
            box = (0, 0, *image.size)
        if mirrored:
            image = image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
        if self.rand_augment_layers:
            image = rand_augment.rand_augment(
                rng, image, self.rand_augment_layers, self.rand_augment_magnitude
            )
        image = self._resize(image, box)
        if self.rotation_degrees or self.scale or self.shift:
            image = augment.jitter(rng, image, self.rotation_degrees, self.scale, self.shift)
        return image

    def _box(self, image: PIL.Image.Image, rng: np.random.Generator | None) -> augment.Box:
        if self.crop == "none":
            return (0, 0, *image.size)
        if rng is None:
            return augment.centre_box(image.size)
        return augment.random_box(rng, image.size, self.crop_area, self.crop_aspect)

    def _resize(self, image: PIL.Image.Image, box: augment.Box) -> PIL.Image.Image:
        size = (self.image_size, self.image_size)
        return image.resize(size, PIL.Image.Resampling.BICUBIC, box=box)


def decode(value: bytes, mode: str = "RGB") -> PIL.Image.Image:
    """Decodes a picture; the first one of an animation.

    Args:
        value: an encoded picture.
        mode: Pillow's name of the wanted colours.

    Raises:
        errors.BadDataError: it can't be decoded, or has more than `MAX_PIXELS`, which is seen
            before it takes memory.
    """
    try:
        image = PIL.Image.open(io.BytesIO(value), formats=_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise errors.BadDataError("too large", f"{image.width} x {image.height} pixels")
        image.load()
        return image if image.mode == mode else image.convert(mode)  # convert() always copies.
    except (errors.BadDataError, MemoryError):
        raise
    except PIL.UnidentifiedImageError as error:
        raise errors.BadDataError("not a picture" if value else "empty") from error
    except PIL.Image.DecompressionBombError as error:
        raise errors.BadDataError("too large", str(error)) from error
    except Exception as error:  # Pillow's decoders raise whatever they stumble over.
        cause = "truncated" if "truncated" in str(error).lower() else "damaged"
        raise errors.BadDataError(cause, f"{type(error).__name__}: {error}") from error
