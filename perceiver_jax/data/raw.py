"""A file, bytes or an array of a user -> what is stored of it in a record.

Files become what `prepare_data` stores of them, by the same functions; so do arrays, which lose as
much by it: frames become JPEG files, audio gets 16 bits.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import io
import logging
import math
import numbers
import os
import pathlib
import stat
import tempfile
from typing import Any, NoReturn

import numpy as np
import PIL.Image

from perceiver_jax import config
from perceiver_jax.data import errors, npy
from perceiver_jax.data.builders import isolated
from perceiver_jax.data.fields import array as array_field
from perceiver_jax.data.fields import image as image_field
from perceiver_jax.data.fields import text as text_field

# By a field's feature, what can be given for it; and what gives both audio and video.
_EXPECTED = {
    "array": "an array as those of training, or a .npy file",
    "audio": "a file with sound, its bytes, or (samples, rate) with samples [S] or [S, channels]",
    "clip": "a video or audio file, or its bytes",
    "frames": "a pair (first, second) of image files, their bytes, Pillow images or arrays",
    "image": "an image file, its bytes, a Pillow image or an array uint8 [H, W, 3] or [H, W]",
    "points": "a mesh (.obj, .off, .ply, .stl), a .npy file, their bytes or an array [points, 3]",
    "text": "a string, the path of a file of UTF-8 (pathlib.Path), or its bytes",
    "video": "a video file, its bytes, or frames uint8 [T, H, W, 3], 25 a second, or else "
    "(frames, rate)",
}

_LOGGER = logging.getLogger(__name__)
_MISSING = "no such file or folder"  # Cause of a BadDataError.
_SOUND_TYPES = ("float16", "float32", "float64", "int16", "int32", "uint8")
_MAX_FRAME_RATE = 1_000  # A second; more are the samples of audio.
_BOM = b"\xef\xbb\xbf"  # Which some programs put before a text.


@dataclasses.dataclass(frozen=True)
class Row:
    """One of the examples of an `.npy` file, along its first axis; the others are not read."""

    path: str | os.PathLike[str]
    index: int


def is_file(raw: Any) -> bool:
    """Whether it is a file: a path, or the bytes of one."""
    return _is_bytes(raw) or isinstance(raw, str | os.PathLike)


def file_name(raw: Any) -> str:
    """Returns the name of a file as messages have it behind another; '' of bytes and arrays."""
    return f" ({os.fspath(raw)})" if isinstance(raw, str | os.PathLike) else ""


@contextlib.contextmanager
def refusing(what: str, feature: str) -> Iterator[None]:
    """Makes of what can't be read the message for the user.

    Args:
        what: names it.
        feature: of the field; or 'clip', for audio and video of one file.

    Raises:
        config.UserError: instead of an `errors.BadDataError`.
    """
    try:
        yield
    except errors.BadDataError as error:
        said = f"Can't read {what}: {config.said(error)}."
        remedy = "Correct it, or leave it out."
        if error.cause == _MISSING:
            raise config.MissingFileError(f"{said} {remedy}") from error
        expected = _EXPECTED.get(feature, f"what a record has as {feature!r}")
        raise config.UserError(f"{said} Expected {expected}. {remedy}") from error


def read_array(raw: Any, field: array_field.Array, what: str) -> np.ndarray:
    """Returns an array, or the one of a `.npy` file, as the field has it.

    Raises:
        errors.BadDataError: the file can't be read.
        config.UserError: it is another one than those of training.
    """
    if isinstance(raw, Row):
        with errors.of_bad_data():
            raw = np.array(npy.load(existing(raw.path), mmap_mode="r")[raw.index])
    elif is_file(raw):
        raw = npy.load(io.BytesIO(_content(raw)))
    return field.take(what, raw)


def read_image(raw: Any) -> bytes | PIL.Image.Image:
    """Returns an encoded image, or an opened one, which need not be one.

    Raises:
        errors.BadDataError: there is no such file, or the array is none of an image.
    """
    if is_file(raw):
        return _content(raw)
    if isinstance(raw, PIL.Image.Image):
        if not all(raw.size):
            raise errors.BadDataError("no pixels", f"{raw.width} x {raw.height}")
        return raw
    pixels = _numbers(raw)
    if pixels.ndim < 2 or pixels.shape[2:] not in ((), (1,), (3,), (4,)) or not pixels.size:
        _refuse_form(pixels)
    if pixels.dtype != np.uint8:
        _refuse_form(pixels)
    with errors.of_bad_data():
        return PIL.Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def read_frames(raw: Any) -> np.ndarray:
    """Returns a pair of images, uint8 [2, H, W, 3].

    Raises:
        errors.BadDataError: they are not two, can't be decoded, or are of two sizes.
    """
    if isinstance(raw, np.ndarray) and (raw.ndim != 4 or raw.dtype != np.uint8):
        _refuse_form(raw)
    if is_file(raw) or not hasattr(raw, "__len__"):
        raise errors.BadDataError("not a pair", f"one {type(raw).__name__}")
    if len(raw) != 2:
        raise errors.BadDataError("not a pair", f"{len(raw)} images")
    first, second = (np.asarray(image_field.decode(read_image(one))) for one in raw)
    if first.shape != second.shape:
        sizes = " and ".join(f"{x.shape[1]} x {x.shape[0]}" for x in (first, second))
        raise errors.BadDataError("two sizes", f"{sizes} pixels")
    return np.stack([first, second])


def read_text(raw: Any) -> np.ndarray:
    """Returns the ids of a text's bytes, `[MASK]` one of them.

    Of a file, white space at both ends is left out, as `prepare_data text_files` does.

    Raises:
        errors.BadDataError: there is no such file, it is no UTF-8, or has no letters.
    """
    if not is_file(raw):
        raise errors.BadDataError("wrong type", type(raw).__name__)
    text = raw if isinstance(raw, str) else _content(raw).removeprefix(_BOM).strip()
    if not text.strip():
        raise errors.BadDataError("empty text")
    return text_field.with_gaps(text)


def read_points(raw: Any, num_points: int, z_up: bool) -> np.ndarray:
    """Returns points float32 [P, 3], centred, in the unit ball, y up.

    Args:
        raw: a mesh, or points in a file or an array.
        num_points: number of points of a mesh, and the most of a cloud, drawn at random by the
            file's name without its suffix, as of ModelNet40.
        z_up: whether its z axis points up, and is turned.

    Raises:
        errors.BadDataError: it can't be read.
    """
    from perceiver_jax.data.builders.shapes import clouds, mesh, reading

    if not is_file(raw):
        with np.errstate(all="ignore"):  # Infinities are found by what comes out.
            points = clouds.subset(_numbers(raw), num_points, clouds.seed_of(""))
            return clouds.stored(points, z_up)
    with _path(raw, mesh.suffix_of) as path:
        key = "" if _is_bytes(raw) else path.stem
        task = {"path": str(path), "name": "", "key": key, "class": "any", "z_up": z_up}
        task |= {"num_points": num_points, "least": 1}  # The field says what it needs.
        if path.suffix.lower() == ".npy":
            with np.errstate(all="ignore"):
                results = reading.read(task)
        elif path.suffix.lower() in mesh.SUFFIXES:
            reading.check_packages()
            results = isolated.kept_pool(reading.read, reading.initialise).run(task)
        else:
            kind = f"a file {path.suffix!r}" if path.suffix else "of no kind that is known"
            raise errors.BadDataError("unsupported", kind)
    if isinstance(results, isolated.Ended):
        raise errors.BadDataError(*results)
    ((_, is_read, value),) = results
    if not is_read:
        raise errors.BadDataError(*value)
    return value


def read_segments(
    path: str | os.PathLike, with_video: bool, length: float, what: str
) -> Iterator[tuple[float, dict[str, Any]]]:
    """Decodes a file with video or audio segment by segment.

    Args:
        path: of the file.
        with_video: whether video is wanted.
        length: of a segment, in seconds; the last one is shorter.
        what: names it.

    Yields:
        Where each segment begins, in seconds, and what `decode.decode` returns of it.

    Raises:
        errors.BadDataError: it can't be read.
    """
    from perceiver_jax.data.builders.clips import decode, storage

    request = {"path": str(existing(path))}
    pool = isolated.kept_pool(decode.answer, decode.initialise)
    whole = _run(pool, request)["seconds"]
    request |= {"length": length, "cut": None, "with_video": with_video}
    start, frame = 0.0, 1 / storage.FRAME_RATE
    while start < max(whole - frame, frame):
        try:
            clip = _run(pool, request | {"start": start})
        except errors.BadDataError as error:
            if error.cause != "silent":
                raise
            # Silence is a part of a recording like others.
            clip = {"audio": b"", "video": [], "seconds": min(length, whole - start), "causes": {}}
        _warn(clip["causes"], what)
        yield start, clip
        start += length


def read_clip(raw: Any, with_video: bool, what: str) -> dict[str, Any]:
    """Decodes a file with video or audio.

    Args:
        raw: the file.
        with_video: whether video is wanted; without, it has to have audio.
        what: names it.

    Returns:
        `video`, a list of JPEG files, and `audio`, a FLAC file; what it lacks is empty.

    Raises:
        errors.BadDataError: it can't be read.
    """
    from perceiver_jax.data.builders.clips import decode

    with _path(raw) as path:
        request = {"path": str(path), "with_video": with_video, **decode.WHOLE_FILE}
        clip = _run(isolated.kept_pool(decode.answer, decode.initialise), request)
    _warn(clip["causes"], what)
    return clip


def _run(pool: isolated.Pool, request: dict[str, Any]) -> dict[str, Any]:
    result = pool.run(request)
    if isinstance(result, isolated.Ended):
        raise errors.BadDataError(*result)
    if "error" in result:
        raise errors.BadDataError(*result["error"])
    return result


def read_audio(raw: Any, with_video: bool, what: str) -> bytes:
    """Returns audio, also of an array with its rate, as `read_clip` does."""
    if is_file(raw):
        return read_clip(raw, with_video, what)["audio"]
    from perceiver_jax.data.builders.clips import storage

    samples, rate = _with_rate(raw, storage.SAMPLE_RATES[1])
    if rate is None:
        raise errors.BadDataError("no rate", f"{samples.dtype} {list(samples.shape)} alone")
    samples = samples[:, None] if samples.ndim == 1 else samples
    if samples.ndim != 2 or samples.dtype not in _SOUND_TYPES or not samples.size:
        _refuse_form(samples)
    if not np.isfinite(samples).all():
        raise errors.BadDataError("not finite", "NaN or infinity")
    clip = storage.encode_samples(samples.T, round(rate))
    _warn(clip["causes"], what)
    return clip["audio"]


def read_video(raw: Any, what: str) -> list[bytes]:
    """Returns video, also of an array of frames, as `read_clip` does."""
    if is_file(raw):
        return read_clip(raw, True, what)["video"]
    from perceiver_jax.data.builders.clips import storage

    frames, rate = _with_rate(raw, _MAX_FRAME_RATE)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        _refuse_form(frames)
    clip = storage.encode_frames(frames, storage.FRAME_RATE if rate is None else rate)
    _warn(clip["causes"], what)
    return clip["video"]


def _is_bytes(raw: Any) -> bool:
    return isinstance(raw, bytes | bytearray | memoryview)


def existing(raw: str | os.PathLike) -> pathlib.Path:
    """Returns the path of a file that is there, for processes that may be in another directory.

    Raises:
        errors.BadDataError: it is none, or empty.
    """
    path = pathlib.Path(raw).absolute()
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise errors.BadDataError(_MISSING) from error
    except (OSError, ValueError) as error:  # A null in the name.
        raise errors.BadDataError("can't be read", str(error)) from error
    if not stat.S_ISREG(found.st_mode):
        is_directory = stat.S_ISDIR(found.st_mode)
        raise errors.BadDataError("a directory" if is_directory else "not a regular file")
    if not found.st_size:
        raise errors.BadDataError("empty")
    return path


def _content(raw: Any) -> bytes:
    try:
        content = bytes(raw) if _is_bytes(raw) else existing(raw).read_bytes()
    except OSError as error:
        raise errors.BadDataError("can't be read", str(error)) from error
    if not content:
        raise errors.BadDataError("empty")
    return content


@contextlib.contextmanager
def _path(
    raw: Any, suffix_of: Callable[[bytes], str] = lambda content: ""
) -> Iterator[pathlib.Path]:
    """Gives the path of a file; bytes are written to one, whose suffix is as their contents."""
    if not _is_bytes(raw):
        yield existing(raw)
        return
    content = _content(raw)
    with tempfile.TemporaryDirectory(prefix="perceiver_") as directory:
        path = pathlib.Path(directory, f"file{suffix_of(content)}")
        path.write_bytes(content)
        yield path


def _numbers(raw: Any) -> np.ndarray:
    if not hasattr(raw, "__array__") and not isinstance(raw, list | tuple):
        raise errors.BadDataError("wrong type", type(raw).__name__)
    with errors.of_bad_data():
        return np.asarray(raw)


def _with_rate(raw: Any, most: int) -> tuple[np.ndarray, float | None]:
    """Takes apart an array and how many of its elements are a second, if that is given."""
    if not isinstance(raw, tuple):
        return _numbers(raw), None
    if len(raw) != 2 or not isinstance(raw[1], numbers.Real):
        kinds = ", ".join(type(each).__name__ for each in raw)
        raise errors.BadDataError("wrong type", f"({kinds})")
    if not (math.isfinite(raw[1]) and 0 < raw[1] <= most):
        raise errors.BadDataError("wrong rate", f"{raw[1]} a second")
    return _numbers(raw[0]), float(raw[1])


def _refuse_form(array: np.ndarray) -> NoReturn:
    raise errors.BadDataError("wrong form", f"{array.dtype} {list(array.shape)}")


def _warn(causes: Mapping[str, str], what: str) -> None:
    """Tells what a model does not get of a clip."""
    if "long" in causes:
        _LOGGER.warning("Of %s only the beginning is taken: it lasts %s.", what, causes["long"])
    if "damaged" in causes:
        _LOGGER.warning("Some of %s can't be decoded: %s.", what, causes["damaged"])
