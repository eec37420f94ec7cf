"""Data sets of the form and size of the real ones, for timing: photographs, clips, point clouds.

Pictures are JPEG at 500 x 375 as most of ImageNet; clips are 10 s as our AudioSet builder stores
them, 250 JPEG frames whose short side is 256 and FLAC at 48 kHz; clouds have 2,048 points.
"""

from collections.abc import Iterator
import io
import pathlib
import tempfile

import numpy as np
import PIL.Image
import soundfile
import tensorflow_datasets as tfds

from perceiver_jax.data import datasets
from perceiver_jax.data.builders import base

PICTURE_SIZE = (500, 375)
FRAME_SIZE = (340, 256)
NUM_FRAMES = 250  # 10 s at 25 a second.
SAMPLE_RATE = 48_000
NUM_POINTS = 2_048
FORMATS = (".jpg", ".jpeg")


def write_records(kind: str, directory: pathlib.Path, source: pathlib.Path | None) -> str:
    """Writes a data set that `Data` reads; one that is there already is kept.

    Args:
      kind: a key of `BUILDERS`.
      directory: TFDS's, for `config.data.data_dir`.
      source: a folder of the user's JPEG files, which become the pictures as they are, and the
        scenery of clips; None: two photographs that come with scikit-learn, cropped at random.

    Returns:
      The name for `config.data.dataset`.

    Raises:
      ValueError: `source` has no pictures.
    """
    builder = BUILDERS[kind](directory, source)
    if not pathlib.Path(builder.data_dir).exists():
        datasets.build(builder)
    return builder.name


def write_files(kind: str, directory: pathlib.Path, source: pathlib.Path | None) -> pathlib.Path:
    """Writes the same pictures as `*.jpg`, or clips as `*.mp4`, for peers; keeps what is there.

    A clip is H.264 with a key frame every 2 s, and AAC.

    Args:
      kind: 'pictures' or 'clips'.
      directory: where a folder for them is made.
      source: as of `write_records`.

    Returns:
      The folder.
    """
    folder = directory / f"{kind}_as_files"
    if folder.exists():
        return folder
    unfinished = pathlib.Path(tempfile.mkdtemp(dir=directory))
    if kind == "pictures":
        for i, picture in enumerate(pictures(source)):
            (unfinished / f"{i:05d}.jpg").write_bytes(picture)
    else:
        for i, (frames, sound) in enumerate(clips(source, BenchmarkClips.num_examples)):
            _write_mp4(unfinished / f"{i:05d}.mp4", frames, sound)
    return unfinished.rename(folder)


def pictures(source: pathlib.Path | None) -> list[bytes]:
    """Returns photographs as JPEG files: those of a folder, or 64 made of two."""
    if source is not None:
        paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in FORMATS)
        if not paths:
            raise ValueError(
                f"Found no JPEG files in {source}; expected names that end with one of "
                f"{', '.join(FORMATS)}. Give another --source, or none."
            )
        return [path.read_bytes() for path in paths]
    rng = np.random.default_rng(0)
    return [_encode(_random_view(rng, PICTURE_SIZE), quality=92) for _ in range(64)]


def clip(
    rng: np.random.Generator, photo: PIL.Image.Image
) -> tuple[list[PIL.Image.Image], np.ndarray]:
    """Returns frames and mono sound of 10 s: a camera that moves over a photograph, and a melody.

    Args:
      rng: source of randomness.
      photo: of any size.
    """
    width, height = FRAME_SIZE
    photo = photo.convert("RGB").resize((2 * width, 2 * height), PIL.Image.Resampling.BICUBIC)
    times = np.linspace(0, 1, NUM_FRAMES)
    zoom = 1.2 + 0.6 * np.sin(2 * np.pi * (rng.random() + times * rng.uniform(0.5, 2)))
    x, y = (
        0.5 + 0.5 * np.sin(2 * np.pi * (rng.random() + times * rng.uniform(0.5, 2))) for _ in "xy"
    )
    frames = []
    for i in range(NUM_FRAMES):
        size = np.array(FRAME_SIZE) * zoom[i]
        corner = (np.array(photo.size) - size) * (x[i], y[i])
        box = (*corner, *(corner + size))
        frames.append(photo.resize(FRAME_SIZE, PIL.Image.Resampling.BILINEAR, box))
    pitch = np.repeat(rng.choice(55 * 2 ** (np.arange(40) / 12), 40), SAMPLE_RATE // 4)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    tone = sum(np.sin(n * phase) / n for n in range(1, 12))
    noise = rng.normal(size=len(tone)) * np.abs(np.sin(phase / 200)) ** 8
    return frames, (0.15 * tone + 0.03 * noise).astype(np.float32)


class _Records(base.EmbeddedBuilder, skip_registration=True):
    """What the three have in common."""

    def __init__(self, directory: pathlib.Path, source: pathlib.Path | None):
        self.source = source
        super().__init__(data_dir=str(directory))

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples of each split."""
        return {"train": self.num_examples}

    def _make_info(self, features: dict) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))


class BenchmarkPictures(_Records, skip_registration=True):
    """Photographs with one of 1,000 labels."""

    @property
    def num_examples(self) -> int:
        """Number of photographs."""
        return len(pictures(self.source))

    def _info(self) -> tfds.core.DatasetInfo:
        return self._make_info(
            {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=1_000),
            }
        )

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        for i, picture in enumerate(pictures(self.source)):
            yield i, {"image": io.BytesIO(picture), "label": i}


class BenchmarkClips(_Records, skip_registration=True):
    """Clips of pictures and sound with some of 527 labels."""

    num_examples = 12

    def _info(self) -> tfds.core.DatasetInfo:
        return self._make_info(
            {
                "video": tfds.features.Sequence(tfds.features.Image(encoding_format="jpeg")),
                "audio": tfds.features.Tensor(shape=(), dtype=np.object_),
                "labels": tfds.features.Sequence(tfds.features.ClassLabel(num_classes=527)),
            }
        )

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        for i, (frames, sound) in enumerate(clips(self.source, self.num_examples)):
            audio = io.BytesIO()
            soundfile.write(audio, sound, SAMPLE_RATE, format="FLAC")
            video = [io.BytesIO(_encode(frame, quality=85)) for frame in frames]
            yield i, {"video": video, "audio": audio.getvalue(), "labels": [i, 526 - i]}


class BenchmarkClouds(_Records, skip_registration=True):
    """Points on the surfaces of ellipsoids with one of 40 labels."""

    num_examples = 256

    def _info(self) -> tfds.core.DatasetInfo:
        return self._make_info(
            {
                "points": tfds.features.Tensor(shape=(NUM_POINTS, 3), dtype=np.float32),
                "label": tfds.features.ClassLabel(num_classes=40),
            }
        )

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        rng = np.random.default_rng(0)
        for i in range(self.num_examples):
            points = rng.normal(size=(NUM_POINTS, 3))
            points *= rng.uniform(0.3, 1, 3) / np.linalg.norm(points, axis=1, keepdims=True)
            yield i, {"points": points.astype(np.float32), "label": i % 40}


BUILDERS = {"pictures": BenchmarkPictures, "clips": BenchmarkClips, "clouds": BenchmarkClouds}


def clips(
    source: pathlib.Path | None, count: int
) -> Iterator[tuple[list[PIL.Image.Image], np.ndarray]]:
    """Yields the same clips every time; see `clip`."""
    photos = pictures(source)
    for i in range(count):
        photo = PIL.Image.open(io.BytesIO(photos[i * len(photos) // count]))
        yield clip(np.random.default_rng(i), photo)


def _write_mp4(path: pathlib.Path, frames: list[PIL.Image.Image], sound: np.ndarray) -> None:
    import av  # An extra.

    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "23", "g": "50"})
        video.width, video.height = FRAME_SIZE
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_image(frame)))
        samples = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        samples.sample_rate = SAMPLE_RATE
        container.mux(audio.encode(samples))
        for stream in (video, audio):
            container.mux(stream.encode(None))


def _random_view(rng: np.random.Generator, size: tuple[int, int]) -> PIL.Image.Image:
    import sklearn.datasets  # librosa needs it, so it is there; takes a second.

    photos = sklearn.datasets.load_sample_images().images
    photo = PIL.Image.fromarray(photos[rng.integers(len(photos))])
    share = rng.uniform(0.5, 0.85)  # Of the sides: 320 to 544 pixels wide.
    width, height = round(photo.width * share), round(photo.width * share * size[1] / size[0])
    height = min(height, photo.height)
    left, upper = rng.integers(photo.width - width + 1), rng.integers(photo.height - height + 1)
    box = (left, upper, left + width, upper + height)
    view = photo.resize(size, PIL.Image.Resampling.BICUBIC, box)
    return view.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT) if rng.integers(2) else view


def _encode(picture: PIL.Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="jpeg", quality=quality)
    return buffer.getvalue()
