"""Input pipelines written with other libraries, to time beside ours; runs in an own environment.

    PYTHON -m experiments.benchmark_data_peers SETTINGS

Run by `benchmark_data`. SETTINGS is JSON: `peer`, `modalities` as in `config.data.modalities`,
`directory` with `*.jpg` or `*.mp4`, and how many `examples` a round has.

Every peer does what our pipeline does, in the same order: decode, Inception crop, flip, RandAugment
of 16 operations on the crop, bicubic resize; or a random window of a clip, its frames cropped,
flipped, coloured and resized, and its mel spectrogram with masks. What differs is said beside it.
"""

from collections.abc import Callable
import importlib.metadata
import io
import itertools
import math
import pathlib
import re
import sys
from typing import Any

import numpy as np

from experiments import benchmark_protocol

ENHANCE, ROTATE, SHEAR, TRANSLATE, CUTOUT, ADD = 1.8, 30.0, 0.3, 100, 40, 110
GREY = 128


def prepare(settings: dict[str, Any]) -> tuple[dict, dict[str, Callable[[], None]]]:
    """Makes the pipeline, and tries it."""
    make, packages = PEERS[settings["peer"]]
    suffix = "*.mp4" if settings["peer"] in CLIP_PEERS else "*.jpg"
    files = sorted(pathlib.Path(settings["directory"]).glob(suffix))
    try:
        read_next = make(settings["modalities"], files)
        versions = {name: importlib.metadata.version(name) for name in packages}
    except ImportError as error:
        raise benchmark_protocol.SubjectError(f"not installed: {error}") from error
    read_next()

    def run() -> None:
        for _ in range(settings["examples"]):
            read_next()

    return {"versions": versions}, {"read": run}


# ---------------------------------------------------------------- pictures


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

    return _cycle(read, files)


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

    return _cycle(read, files)


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
        left, upper, right, lower = _random_box(rng, image.shape[1::-1], keys)
        return augment(image=np.ascontiguousarray(image[upper:lower, left:right]))["image"]

    return _cycle(read, files)


def make_tf_data(modalities: dict, files: list[pathlib.Path]) -> Callable:
    """tf.data on one thread; only the crop is decoded, and the resize does not filter."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keys = modalities["image"]
    size, level = keys["image_size"], keys["rand_augment_magnitude"] / 10
    operations = _tf_operations(tf, level)

    def read(value):
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(value),
            tf.zeros([1, 0, 4]),
            aspect_ratio_range=keys["crop_aspect"],
            area_range=keys["crop_area"],
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], extent[:2]], 0)
        image = tf.image.decode_and_crop_jpeg(value, window, channels=3)
        image = tf.image.random_flip_left_right(image)
        for _ in range(keys["rand_augment_layers"]):
            choice = tf.random.uniform([], 0, len(operations), tf.int32)
            branches = [lambda op=op, image=image: op(image) for op in operations]
            image = tf.switch_case(choice, branches)
            image.set_shape([None, None, 3])
        image = tf.image.resize(image, [size, size], tf.image.ResizeMethod.BICUBIC)
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    options.deterministic = True
    dataset = tf.data.Dataset.from_tensor_slices([file.read_bytes() for file in files])
    dataset = dataset.repeat().map(read).with_options(options)
    return iter(dataset.as_numpy_iterator()).__next__


def _tf_operations(tf, level):
    """The 16 operations by TensorFlow's own; geometry by its projective transform."""
    factor = 0.1 + ENHANCE * level
    added = int(level * ADD)

    def uint8(x):
        return tf.cast(tf.clip_by_value(x, 0, 255), tf.uint8)

    def blend(one, other):
        one, other = tf.cast(one, tf.float32), tf.cast(other, tf.float32)
        return uint8(one + factor * (other - one))

    def signed(value):
        return tf.where(tf.random.uniform([]) < 0.5, value, -value)

    def transform(image, row):
        output = tf.raw_ops.ImageProjectiveTransformV3(
            images=image[None],
            transforms=tf.reshape(tf.stack(row), [1, 8]),
            output_shape=tf.shape(image)[:2],
            fill_value=float(GREY),
            interpolation="NEAREST",
            fill_mode="CONSTANT",
        )
        return output[0]

    def rotate(image):
        angle = signed(math.radians(ROTATE * level))
        height, width = (tf.cast(n - 1, tf.float32) for n in tf.unstack(tf.shape(image)[:2]))
        cosine, sine = tf.cos(angle), tf.sin(angle)
        x = (width - (cosine * width - sine * height)) / 2
        y = (height - (sine * width + cosine * height)) / 2
        return transform(image, [cosine, -sine, x, sine, cosine, y, 0.0, 0.0])

    def auto_contrast(image):
        pixels = tf.cast(image, tf.float32)
        low = tf.reduce_min(pixels, [0, 1])
        high = tf.reduce_max(pixels, [0, 1])
        scale = 255 / tf.maximum(high - low, 1)
        return uint8(tf.where(high > low, (pixels - low) * scale, pixels))

    def equalize(image):
        def channel(x):
            histogram = tf.histogram_fixed_width(x, [0, 255], 256, tf.int32)
            last = tf.boolean_mask(histogram, histogram > 0)[-1]
            step = (tf.reduce_sum(histogram) - last) // 255
            table = (tf.cumsum(histogram, exclusive=True) + step // 2) // tf.maximum(step, 1)
            table = tf.clip_by_value(table, 0, 255)
            mapped = tf.gather(table, x)
            return tf.where(step == 0, x, mapped)

        planes = [channel(tf.cast(image[..., c], tf.int32)) for c in range(3)]
        return tf.cast(tf.stack(planes, -1), tf.uint8)

    def contrast(image):
        grey = tf.image.rgb_to_grayscale(image)
        mean = tf.round(tf.reduce_mean(tf.cast(grey, tf.float32)))
        return blend(tf.fill(tf.shape(image), mean), image)

    def sharpness(image):
        pixels = tf.cast(image, tf.float32)[None]
        kernel = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32) / 13
        kernel = tf.tile(kernel[..., None, None], [1, 1, 3, 1])
        smooth = tf.nn.depthwise_conv2d(pixels, kernel, [1] * 4, "VALID")[0]
        inner = tf.ones_like(smooth, tf.bool)
        inner = tf.pad(inner, [[1, 1], [1, 1], [0, 0]])
        smooth = tf.pad(smooth, [[1, 1], [1, 1], [0, 0]])
        return blend(tf.where(inner, smooth, pixels[0]), image)

    def cutout(image):
        height, width = tf.unstack(tf.shape(image)[:2])
        half = int(level * CUTOUT)
        y = tf.random.uniform([], 0, height, tf.int32)
        x = tf.random.uniform([], 0, width, tf.int32)
        rows = tf.abs(tf.range(height) - y) < half
        columns = tf.abs(tf.range(width) - x) < half
        hole = (rows[:, None] & columns[None])[..., None]
        return tf.where(hole, tf.constant(GREY, tf.uint8), image)

    return (
        auto_contrast,
        equalize,
        lambda image: 255 - image,
        rotate,
        lambda image: tf.bitwise.bitwise_and(image, np.uint8(256 - 2 ** (8 - int(level * 4)))),
        lambda image: tf.where(image < int(level * 256), image, 255 - image),
        lambda image: blend(tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image)), image),
        contrast,
        lambda image: blend(tf.zeros_like(image), image),
        sharpness,
        lambda image: transform(image, [1.0, signed(SHEAR * level), 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]),
        lambda image: transform(image, [1.0, 0.0, 0.0, signed(SHEAR * level), 1.0, 0.0, 0.0, 0.0]),
        lambda image: transform(
            image, [1.0, 0.0, signed(TRANSLATE * level), 0.0, 1.0, 0.0, 0.0, 0.0]
        ),
        lambda image: transform(
            image, [1.0, 0.0, 0.0, 0.0, 1.0, signed(TRANSLATE * level), 0.0, 0.0]
        ),
        cutout,
        lambda image: tf.where(image < 128, uint8(tf.cast(image, tf.int32) + added), image),
    )


# ---------------------------------------------------------------- clips


def make_pyav(modalities: dict, files: list[pathlib.Path]) -> Callable:
    """PyAV reads an mp4 (H.264, a key frame every 2 s, AAC); Pillow crops, librosa makes mel.

    It seeks to the key frame before the window and decodes from there, and the sound likewise.
    """
    import av
    import librosa
    import PIL.Image
    import PIL.ImageEnhance

    video = modalities["video"]
    sound = modalities["audio"]
    size, num_frames = video["image_size"], video["num_frames"]
    rng = np.random.default_rng(0)

    def read(value):
        with av.open(io.BytesIO(value)) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            duration = container.duration / av.time_base
            length = num_frames / video["frames_per_second"]
            start = rng.uniform(0, max(0, duration - length - 0.1))
            frames = _window_frames(container, start, num_frames)
            samples = _window_samples(container, start, sound["num_samples"])
        clip = _augment_frames(frames)
        if sound["kind"] == "audio":
            return clip, samples
        mel = librosa.feature.melspectrogram(
            y=samples,
            sr=sound["sample_rate"],
            n_fft=sound["window"],
            hop_length=sound["hop"],
            n_mels=sound["num_bins"],
            htk=True,
        )
        mel = np.log(mel + 1e-4)
        for axis, kind in enumerate(("frequency", "time")):
            for _ in range(sound[f"{kind}_masks"]):
                width = rng.integers(sound[f"{kind}_mask_width"] + 1)
                begin = rng.integers(mel.shape[axis] - width + 1)
                mel[(slice(None),) * axis + (slice(begin, begin + width),)] = 0
        return clip, mel

    def _augment_frames(frames):
        box = _random_box(rng, frames[0].size, video)
        bright, contrasted, saturated = (
            rng.uniform(1 - video[name], 1 + video[name])
            for name in ("brightness", "contrast", "saturation")
        )
        mirrored = video["flip"] and rng.integers(2)
        clip = np.empty((num_frames, size, size, 3), np.uint8)
        for i, frame in enumerate(frames):
            frame = frame.resize((size, size), PIL.Image.Resampling.BILINEAR, box)
            if mirrored:
                frame = frame.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
            frame = PIL.ImageEnhance.Brightness(frame).enhance(bright)
            frame = PIL.ImageEnhance.Color(frame).enhance(saturated)
            clip[i] = PIL.ImageEnhance.Contrast(frame).enhance(contrasted)
        return clip

    return _cycle(read, files)


def _window_frames(container, start, num_frames):
    stream = container.streams.video[0]
    container.seek(int(start / stream.time_base), stream=stream)
    later = (frame for frame in container.decode(stream) if frame.time >= start)
    return [frame.to_image() for frame in itertools.islice(later, num_frames)]


def _window_samples(container, start, num_samples):
    stream = container.streams.audio[0]
    container.seek(int(start / stream.time_base), stream=stream)
    chunks, count = [], 0
    for frame in container.decode(stream):
        if frame.time + frame.samples / frame.sample_rate <= start:
            continue
        chunks.append(frame.to_ndarray().mean(axis=0))
        count += len(chunks[-1])
        if count >= num_samples:
            break
    return np.concatenate(chunks)[:num_samples]


# ---------------------------------------------------------------- both


def _random_box(rng, size, keys):
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


def _cycle(read, files):
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


PEERS = {
    "torchvision": (make_torchvision, ("torchvision", "torch", "pillow")),
    "torchvision_usual": (make_torchvision_usual, ("torchvision", "torch", "pillow")),
    "albumentations": (make_albumentations, ("albumentations", "opencv-python-headless")),
    "tf.data": (make_tf_data, ("tensorflow-cpu",)),
    "pyav": (make_pyav, ("av", "librosa", "pillow")),
}

CLIP_PEERS = ("pyav",)

if __name__ == "__main__":
    benchmark_protocol.serve(prepare)
