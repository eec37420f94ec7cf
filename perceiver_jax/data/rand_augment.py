"""RandAugment (Cubuk et al. 2020) of images, by Pillow.

Operations and their ranges as in the ImageNet experiments of the Perceiver papers: each layer
draws one of 16 operations uniformly and always applies it, with the same magnitude.
"""

from collections.abc import Callable

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageEnhance
import PIL.ImageOps

Image = PIL.Image.Image
Rng = np.random.Generator

MAX_MAGNITUDE = 10
_GREY = 128  # What comes into view.
_MAX_ROTATION = 30.0  # degrees
_MAX_SHEAR = 0.3
_MAX_SHIFT = 100  # pixels
_MAX_CUTOUT = 40  # pixels, half of a side
_MAX_SOLARIZE_ADD = 110
_SOLARIZE_ADD_THRESHOLD = 128


def rand_augment(rng: Rng, image: Image, num_layers: int, magnitude: int | float) -> Image:
    """Applies randomly drawn operations to an image.

    Args:
        rng: source of randomness.
        image: an RGB or a grey image.
        num_layers: number of operations.
        magnitude: their strength, 0 to 10.
    """
    level = magnitude / MAX_MAGNITUDE
    for _ in range(num_layers):
        operation = OPERATIONS[rng.integers(len(OPERATIONS))]
        image = operation(rng, image, level)
    return image


def _signed(rng: Rng, value: float) -> float:
    return value if rng.integers(2) else -value


def _fill(image: Image) -> int | tuple[int, ...]:
    bands = len(image.getbands())
    return _GREY if bands == 1 else (_GREY,) * bands


def _affine(image: Image, matrix: tuple[int | float, ...]) -> Image:
    return image.transform(image.size, PIL.Image.Transform.AFFINE, matrix, fillcolor=_fill(image))


def _solarize_add(rng: Rng, image: Image, level: float) -> Image:
    added = int(level * _MAX_SOLARIZE_ADD)
    table = [min(255, i + added) if i < _SOLARIZE_ADD_THRESHOLD else i for i in range(256)]
    return image.point(table * len(image.getbands()))


def _enhance(enhancer: type) -> Callable[[Rng, Image, float], Image]:
    def operation(rng: Rng, image: Image, level: float) -> Image:
        factor = 0.1 + 1.8 * level
        if factor == 1:  # Nothing changes at the papers' magnitude, 5; and sharpening is slow.
            return image
        return enhancer(image).enhance(factor)

    return operation


def _cutout(rng: Rng, image: Image, level: float) -> Image:
    half = int(level * _MAX_CUTOUT)
    x, y = (int(rng.integers(side)) for side in image.size)
    image = image.copy()
    box = (x - half, y - half, x + half - 1, y + half - 1)
    if half:
        PIL.ImageDraw.Draw(image).rectangle(box, fill=_fill(image))
    return image


# What is drawn is a place in this order, and then what the operation itself draws: runs are resumed
# by it.
OPERATIONS: tuple[Callable[[Rng, Image, float], Image], ...] = (
    lambda rng, image, level: PIL.ImageOps.autocontrast(image),
    lambda rng, image, level: PIL.ImageOps.equalize(image),
    lambda rng, image, level: PIL.ImageOps.invert(image),
    lambda rng, image, level: image.rotate(
        _signed(rng, level * _MAX_ROTATION), fillcolor=_fill(image)
    ),
    lambda rng, image, level: PIL.ImageOps.posterize(image, max(1, int(level * 4))),
    lambda rng, image, level: PIL.ImageOps.solarize(image, int(level * 256)),
    _enhance(PIL.ImageEnhance.Color),
    _enhance(PIL.ImageEnhance.Contrast),
    _enhance(PIL.ImageEnhance.Brightness),
    _enhance(PIL.ImageEnhance.Sharpness),
    # Shear and shift, along x and along y.
    lambda rng, image, level: _affine(image, (1, _signed(rng, level * _MAX_SHEAR), 0, 0, 1, 0)),
    lambda rng, image, level: _affine(image, (1, 0, 0, _signed(rng, level * _MAX_SHEAR), 1, 0)),
    lambda rng, image, level: _affine(image, (1, 0, _signed(rng, level * _MAX_SHIFT), 0, 1, 0)),
    lambda rng, image, level: _affine(image, (1, 0, 0, 0, 1, _signed(rng, level * _MAX_SHIFT))),
    _cutout,
    _solarize_add,
)
