"""Data sets of the form and size of the real ones, for timing: photographs and clips.

Images are JPEG at 500 x 375 as most of ImageNet; clips are 10 s as our AudioSet builder stores
them, 250 JPEG frames whose short side is 256 and FLAC at 48 kHz.
"""

from collections.abc import Iterator
import io
import pathlib

import numpy as np
import PIL.Image
import soundfile
import tensorflow_datasets as tfds

from perceiver_jax import config
from perceiver_jax.data import datasets
from perceiver_jax.data.builders import base

IMAGE_SIZE, FRAME_SIZE = (500, 375), (340, 256)
NUM_FRAMES = 250  # 10 s at 25 a second.
SAMPLE_RATE = 48_000
FORMATS = (".jpg", ".jpeg")
_JPEG = tfds.features.Image(encoding_format="jpeg")
FEATURES = {
    "images": {"image": _JPEG, "label": tfds.features.ClassLabel(num_classes=1_000)},
    "clips": {
        "video": tfds.features.Sequence(_JPEG),
        "audio": tfds.features.Tensor(shape=(), dtype=np.object_),
        "labels": tfds.features.Sequence(tfds.features.ClassLabel(num_classes=527)),
    },
}


class BenchmarkRecords(base.EmbeddedBuilder, skip_registration=True):
    """One configuration for each key of `FEATURES`.

    Attributes:
      source: a folder of the user's JPEG files, which become the images as they are, and the
        scenery of clips; None: two photographs that come with scikit-learn, cropped at random.
    """

    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=kind) for kind in FEATURES]
    source: pathlib.Path | None = None
    sizes = {"train": None}  # Not known before.

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(FEATURES[self.builder_config.name])
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        photos = images(self.source)
        if self.builder_config.name == "images":
            for i, photo in enumerate(photos):
                yield i, {"image": io.BytesIO(photo), "label": i % 1_000}
            return
        for i in range(12):
            photo = PIL.Image.open(io.BytesIO(photos[i * len(photos) // 12]))
            frames, samples = clip(np.random.default_rng(i), photo)
            audio = io.BytesIO()
            soundfile.write(audio, samples, SAMPLE_RATE, format="FLAC")
            video = [io.BytesIO(_encode(frame, quality=85)) for frame in frames]
            yield i, {"video": video, "audio": audio.getvalue(), "labels": [i, 526 - i]}


def write_records(kind: str, directory: str, source: pathlib.Path | None) -> str:
    """Writes a data set of a kind into TFDS's `directory`; returns its name there."""
    builder = BenchmarkRecords(config=kind, data_dir=directory)
    builder.source = source
    datasets.build(builder)
    return f"{builder.name}/{kind}"


def images(source: pathlib.Path | None) -> list[bytes]:
    """Returns photographs as JPEG files: those of a folder, or 64 made of two.

    Raises:
      UserError: if the folder has none.
    """
    if source is not None:
        paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in FORMATS)
        if not paths:
            raise config.UserError(
                f"Found no JPEG files in {source}; expected names that end with one of "
                f"{', '.join(FORMATS)}. Give another --source, or none."
            )
        return [path.read_bytes() for path in paths]
    import sklearn.datasets  # Here, for it takes a second.

    rng = np.random.default_rng(0)
    photos = [PIL.Image.fromarray(photo) for photo in sklearn.datasets.load_sample_images().images]
    return [_encode(_random_view(rng, photos[i % 2], IMAGE_SIZE), quality=92) for i in range(64)]


def clip(
    rng: np.random.Generator, photo: PIL.Image.Image
) -> tuple[list[PIL.Image.Image], np.ndarray]:
    """Returns frames, parts of a photograph, and mono audio, a melody with noise, of 10 s."""
    photo = photo.convert("RGB")
    frames = [_random_view(rng, photo, FRAME_SIZE) for _ in range(NUM_FRAMES)]
    pitch = np.repeat(rng.choice(55 * 2 ** (np.arange(40) / 12), 40), SAMPLE_RATE // 4)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    tone = sum(np.sin(n * phase) / n for n in range(1, 12))
    return frames, (0.15 * tone + 0.01 * rng.normal(size=len(tone))).astype(np.float32)


def _random_view(
    rng: np.random.Generator, photo: PIL.Image.Image, size: tuple[int, int]
) -> PIL.Image.Image:
    """A part of a photograph at another size; every other mirrored."""
    part_width = round(photo.width * rng.uniform(0.5, 0.85))
    part_height = min(part_width * size[1] // size[0], photo.height)
    left, upper = rng.integers((photo.width - part_width + 1, photo.height - part_height + 1))
    box = (left, upper, left + part_width, upper + part_height)
    view = photo.resize(size, PIL.Image.Resampling.BICUBIC, box)
    return view.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT) if rng.integers(2) else view


def _encode(image: PIL.Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="jpeg", quality=quality)
    return buffer.getvalue()
