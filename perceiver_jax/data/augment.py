"""Random boxes, colour and small motions of images; RandAugment is in rand_augment.py."""

from collections.abc import Sequence
import math
from typing import Any

import numpy as np
import PIL.Image

from perceiver_jax import config

Number = int | float  # What a config may hold: 1 as well as 1.0.
Range = tuple[Number, Number]
Box = tuple[int, int, int, int]  # left, upper, right, lower in pixels

_ATTEMPTS = 10
CENTRE_FRACTION = 224 / 256
_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R 601, as in Pillow.


def check_crop(field: Any) -> None:
    """Raises a UserError unless a field's `crop_area` and `crop_aspect` can be drawn from."""
    config.check_pairs(
        vars(field),
        crop_area=config.Range(0, 1, low_included=False),
        crop_aspect=config.POSITIVE,
    )


def random_box(
    rng: np.random.Generator,
    size: tuple[int, int],
    area_range: Range,
    aspect_range: Range,
) -> Box:
    """Draws an Inception-style crop (Szegedy et al. 2015); after ten misfits, the centre box.

    Args:
        rng: source of randomness.
        size: width and height of the image.
        area_range: range of the crop's area as a fraction of the image's, drawn uniformly.
        aspect_range: range of the crop's width : height, drawn uniformly in the logarithm.
    """
    width, height = size
    for _ in range(_ATTEMPTS):
        area = rng.uniform(*area_range) * width * height
        aspect = math.exp(rng.uniform(*np.log(aspect_range)))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(rng.integers(width - box_width + 1))
            upper = int(rng.integers(height - box_height + 1))
            return left, upper, left + box_width, upper + box_height
    return centre_box(size)


def centre_box(size: tuple[int, int], before_middle: bool = False) -> Box:
    """Returns the central square of side 224/256 of the shorter side (evaluation).

    Args:
        size: width and height of the image, in pixels.
        before_middle: where it can't lie in the middle, half a pixel to the left or up of it, as
            Hugging Face's processor has it, instead of to the right or down, as the authors' code.
    """
    width, height = size
    side = max(1, math.floor(CENTRE_FRACTION * min(size)))
    after = 0 if before_middle else 1
    left, upper = (width - side + after) // 2, (height - side + after) // 2
    return left, upper, left + side, upper + side


def jitter(
    rng: np.random.Generator,
    image: PIL.Image.Image,
    rotation_degrees: Number,
    scale: Number,
    shift: Number,
) -> PIL.Image.Image:
    """Rotates, scales and shifts an image a little; what comes into view is black.

    Args:
        rng: source of randomness.
        image: any.
        rotation_degrees: largest rotation either way.
        scale: scale factors are drawn from [1 - scale, 1 + scale].
        shift: largest shift either way, as a fraction of each side.
    """
    angle = math.radians(rng.uniform(-rotation_degrees, rotation_degrees))
    factor = rng.uniform(1 - scale, 1 + scale)
    centre = (np.array(image.size) - 1) / 2
    moved = centre + rng.uniform(-shift, shift, 2) * image.size
    inverse = np.array(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    )  # Pillow wants where each output pixel comes from.
    inverse /= factor
    offset = centre - inverse @ moved
    matrix = (*inverse[0], offset[0], *inverse[1], offset[1])
    # Bilinear would blur what evaluation sees sharp: 0.03 of top-1 on digits.
    return image.transform(
        image.size, PIL.Image.Transform.AFFINE, matrix, PIL.Image.Resampling.BICUBIC
    )


def colour_jitter(
    rng: np.random.Generator,
    images: Sequence[PIL.Image.Image],
    brightness: Number,
    contrast: Number,
    saturation: Number,
) -> list[PIL.Image.Image]:
    """Changes brightness, saturation and contrast of colour images, in this order, all alike.

    Args:
        rng: source of randomness.
        images: images of one size, such as the frames of a clip.
        brightness: factors are drawn from [1 - brightness, 1 + brightness].
        contrast: as brightness; distances from the mean grey are scaled.
        saturation: as brightness; distances of each pixel from its grey are scaled.
    """
    bright, contrasted, saturated = (
        rng.uniform(1 - strength, 1 + strength) for strength in (brightness, contrast, saturation)
    )
    mean_grey = bright * np.mean([np.mean(image.convert("L")) for image in images])
    # All three are one matrix and an offset.
    mix = bright * contrasted * (saturated * np.eye(3) + (1 - saturated) * _GREY)
    offset = np.full((3, 1), (1 - contrasted) * mean_grey)
    matrix = tuple(np.hstack([mix, offset]).ravel())
    return [image.convert("RGB", matrix) for image in images]
