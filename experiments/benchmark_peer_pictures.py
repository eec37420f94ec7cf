"""Training pictures by torchvision and by albumentations, for `benchmark_data_peers`."""

from collections.abc import Callable
import io
import itertools
import math
import pathlib
import re
import sys

import numpy as np

ENHANCE, ROTATE, SHEAR, TRANSLATE, CUTOUT, ADD = 1.8, 30.0, 0.3, 100, 40, 110
GREY = 128


def make_torchvision(modalities: dict, files: list[pathlib.Path]) -> Callable[[], np.ndarray]:
    """Transforms v2 on PIL pictures, as `ImageFolder` loads them."""
    import PIL.Image
    import PIL.ImageDraw

    transforms = _import_torchvision()
    f = transforms.functional
    keys = modalities["image"]
    size, level = keys["image_size"], keys["rand_augment_magnitude"] / 10
    cropping = transforms.RandomResizedCrop(size, keys["crop_area"], keys["crop_aspect"])
    rng = np.random.default_rng(0)
    factor = 0.1 + ENHANCE * level

    def signed(value):
        return value if rng.integers(2) else -value

    def affine(image, translate=(0, 0), shear=(0.0, 0.0)):
        return f.affine(image, 0.0, list(translate), 1.0, list(shear), fill=GREY)

    def shear_x(image):
        return affine(image, shear=(math.degrees(math.atan(signed(SHEAR * level))), 0.0))

    def shear_y(image):
        return affine(image, shear=(0.0, math.degrees(math.atan(signed(SHEAR * level)))))

    def cutout(image):
        half = int(level * CUTOUT)
        x, y = (int(rng.integers(side)) for side in image.size)
        image = image.copy()
        box = (x - half, y - half, x + half - 1, y + half - 1)
        PIL.ImageDraw.Draw(image).rectangle(box, fill=(GREY,) * 3)  # erase() is for tensors.
        return image

    added = int(level * ADD)
    table = [min(255, i + added) if i < 128 else i for i in range(256)] * 3
    operations = (
        f.autocontrast,
        f.equalize,
        f.invert,
        lambda image: f.rotate(image, signed(ROTATE * level), fill=GREY),
        lambda image: f.posterize(image, max(1, int(level * 4))),
        lambda image: f.solarize(image, int(level * 256)),
        lambda image: f.adjust_saturation(image, factor),
        lambda image: f.adjust_contrast(image, factor),
        lambda image: f.adjust_brightness(image, factor),
        lambda image: f.adjust_sharpness(image, factor),
        shear_x,
        shear_y,
        lambda image: affine(image, (int(signed(TRANSLATE * level)), 0)),
        lambda image: affine(image, (0, int(signed(TRANSLATE * level)))),
        cutout,
        lambda image: image.point(table),  # torchvision has no SolarizeAdd.
    )

    def read(value):
        image = PIL.Image.open(io.BytesIO(value)).convert("RGB")
        params = cropping.make_params([image])
        box = (params["top"], params["left"], params["height"], params["width"])
        image = f.crop(image, *box)
        if rng.integers(2):
            image = f.horizontal_flip(image)
        for _ in range(keys["rand_augment_layers"]):
            image = operations[rng.integers(len(operations))](image)
        image = f.resize(image, [size, size], transforms.InterpolationMode.BICUBIC)
        return np.asarray(image)

    return cycle(read, files)


def make_torchvision_usual(modalities: dict, files: list[pathlib.Path]) -> Callable:
    """As torchvision's users write it: its own RandAugment of 14 operations, after the resize."""
    import PIL.Image

    transforms = _import_torchvision()
    keys = modalities["image"]
    bicubic = transforms.InterpolationMode.BICUBIC
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(
                keys["image_size"], keys["crop_area"], keys["crop_aspect"], bicubic
            ),
            transforms.RandomHorizontalFlip(),
            transforms.RandAugment(
                keys["rand_augment_layers"], int(keys["rand_augment_magnitude"]), 11
            ),
        ]
    )

    def read(value):
        return np.asarray(transform(PIL.Image.open(io.BytesIO(value)).convert("RGB")))

    return cycle(read, files)


def make_albumentations(modalities: dict, files: list[pathlib.Path]) -> Callable:
    """OpenCV for all of it, whose bicubic resize does not filter when it shrinks."""
    import albumentations as a
    import cv2

    cv2.setNumThreads(1)
    keys = modalities["image"]
    size, level = keys["image_size"], keys["rand_augment_magnitude"] / 10
    factor = 0.1 + ENHANCE * level
    shear, shift = math.degrees(math.atan(SHEAR * level)), int(TRANSLATE * level)
    fill = {"fill": GREY, "p": 1.0}
    still = {"interpolation": cv2.INTER_NEAREST, **fill}
    table = np.array([min(255, i + int(level * ADD)) if i < 128 else i for i in range(256)])
    table = table.astype(np.uint8)

    def jitter(name):
        same = dict.fromkeys(("brightness", "contrast", "saturation"), (1, 1)) | {"hue": (0, 0)}
        return a.ColorJitter(**same | {name: (factor, factor)}, p=1.0)

    def either(make):
        return a.OneOf([make(1), make(-1)], p=1.0)

    operations = [
        a.AutoContrast(p=1.0),
        a.Equalize(p=1.0),
        a.InvertImg(p=1.0),
        either(lambda s: a.Rotate((s * ROTATE * level,) * 2, **still)),
        a.Posterize(max(1, int(level * 4)), p=1.0),
        a.Solarize((level, level), p=1.0),
        jitter("saturation"),
        jitter("contrast"),
        jitter("brightness"),
        a.Sharpen(alpha=(max(0.0, factor - 1),) * 2, p=1.0),
        either(lambda s: a.Affine(shear={"x": (s * shear,) * 2, "y": (0, 0)}, **still)),
        either(lambda s: a.Affine(shear={"y": (s * shear,) * 2, "x": (0, 0)}, **still)),
        either(lambda s: a.Affine(translate_px={"x": (s * shift,) * 2, "y": (0, 0)}, **still)),
        either(lambda s: a.Affine(translate_px={"y": (s * shift,) * 2, "x": (0, 0)}, **still)),
        a.CoarseDropout(
            (1, 1), (int(level * CUTOUT) * 2,) * 2, (int(level * CUTOUT) * 2,) * 2, **fill
        ),
        a.Lambda(image=lambda image, **_: cv2.LUT(image, table), p=1.0),
    ]
    augment = a.Compose(
        [
            a.HorizontalFlip(),
            a.SomeOf(operations, keys["rand_augment_layers"], replace=True, p=1.0),
            a.Resize(size, size, cv2.INTER_CUBIC),
        ]
    )
    rng = np.random.default_rng(0)

    def read(value):
        image = cv2.imdecode(np.frombuffer(value, np.uint8), cv2.IMREAD_COLOR_RGB)
        left, upper, right, lower = random_box(rng, image.shape[1::-1], keys)
        return augment(image=np.ascontiguousarray(image[upper:lower, left:right]))["image"]

    return cycle(read, files)


def random_box(rng, size, keys):
    """An Inception crop; after ten misfits, the whole picture."""
    width, height = size
    for _ in range(10):
        area = rng.uniform(*keys["crop_area"]) * width * height
        aspect = math.exp(rng.uniform(*np.log(keys["crop_aspect"])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w <= width and h <= height:
            left, upper = rng.integers(width - w + 1), rng.integers(height - h + 1)
            return int(left), int(upper), int(left) + w, int(upper) + h
    return 0, 0, width, height


def cycle(read, files):
    """Returns a function that reads the next file at each call, endlessly."""
    values = itertools.cycle([file.read_bytes() for file in files])
    return lambda: read(next(values))


def _import_torchvision():
    """Imports the transforms, also where torchvision's wheel (CUDA) does not fit torch's (CPU).

    Then its compiled operations are absent; transforms of PIL pictures need none of them, but the
    import fails unless their names are defined.
    """
    import torch

    torch.set_num_threads(1)
    try:
        from torchvision.transforms import v2
    except RuntimeError as error:
        for module in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[module]
        if not re.search(r"operator torchvision::\w+ does not exist", str(error)):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor x) -> Tensor")
        _import_torchvision.library = library  # It lives as long as someone holds it.
        from torchvision.transforms import v2
    return v2
