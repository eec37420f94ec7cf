"""Training pictures by tf.data, for `benchmark_data_peers`."""

from collections.abc import Callable
import math
import pathlib

import numpy as np

from experiments import benchmark_peer_pictures as pictures


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
    factor = 0.1 + pictures.ENHANCE * level
    added = int(level * pictures.ADD)

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
            fill_value=float(pictures.GREY),
            interpolation="NEAREST",
            fill_mode="CONSTANT",
        )
        return output[0]

    def rotate(image):
        angle = signed(math.radians(pictures.ROTATE * level))
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
        half = int(level * pictures.CUTOUT)
        y = tf.random.uniform([], 0, height, tf.int32)
        x = tf.random.uniform([], 0, width, tf.int32)
        rows = tf.abs(tf.range(height) - y) < half
        columns = tf.abs(tf.range(width) - x) < half
        hole = (rows[:, None] & columns[None])[..., None]
        return tf.where(hole, tf.constant(pictures.GREY, tf.uint8), image)

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
        lambda image: transform(
            image, [1.0, signed(pictures.SHEAR * level), 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
        ),
        lambda image: transform(
            image, [1.0, 0.0, 0.0, signed(pictures.SHEAR * level), 1.0, 0.0, 0.0, 0.0]
        ),
        lambda image: transform(
            image, [1.0, 0.0, signed(pictures.TRANSLATE * level), 0.0, 1.0, 0.0, 0.0, 0.0]
        ),
        lambda image: transform(
            image, [1.0, 0.0, 0.0, 0.0, 1.0, signed(pictures.TRANSLATE * level), 0.0, 0.0]
        ),
        cutout,
        lambda image: tf.where(image < 128, uint8(tf.cast(image, tf.int32) + added), image),
    )
