"""Arrays that models predict -> files that other programs open."""

from collections.abc import Iterator, Mapping
import contextlib
import fractions
import os
import pathlib
import re
import uuid

import numpy as np

from perceiver_jax.data import fields as fields_lib
from perceiver_jax.data import written
from perceiver_jax.tasks import flow_colours

_AAC_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # In Hz.


def write(
    folder: pathlib.Path,
    stem: str,
    arrays: Mapping[str, np.ndarray],
    fields: Mapping[str, fields_lib.Field],
) -> dict[str, str]:
    """Writes arrays of an example as files that other programs open.

    - Video, and the sound that belongs to it: `STEM.mp4`. Sound alone, or of a rate that no such
      file has: `STEM.wav`.
    - Pictures: `STEM.png`.
    - Flow: `STEM.npy`, float32 [H, W, 2], and its colours, `STEM.png`.
    - Others: `STEM.npy`.

    Of several, the output's name is behind the stem.

    Args:
      folder: where, it is there.
      stem: what the files' names begin with.
      arrays: by name of the output.
      fields: of the model.

    Returns:
      The path of each output's file.
    """
    kinds = {name: getattr(fields.get(name), "feature", "") for name in arrays}
    videos = [n for n, x in arrays.items() if kinds[n] == "video" and _is_pictures(x, 4)]
    sounds = [n for n, x in arrays.items() if kinds[n] == "audio" and x.ndim == 1]
    together = len(videos) == len(sounds) == 1 and fields[sounds[0]].sample_rate in _AAC_RATES
    several = len(arrays) > 1 + together
    paths = {}
    for name, array in arrays.items():
        end = f"_{plain(name)}" if several and not (together and name in (*videos, *sounds)) else ""
        path = folder / f"{stem}{end}"
        if name in videos:
            sound = sounds[0] if together else None
            paths[name] = _write_clip(path, name, sound, arrays, fields)
        elif name in sounds:
            if not together:
                paths[name] = _write_sound(path, array, fields[name].sample_rate)
        elif kinds[name] == "flow":
            with _new(path.with_name(f"{path.name}.png")) as new:
                flow_colours.flow_picture(array).save(new)
            paths[name] = _write_numbers(path, array)
        elif _is_pictures(array, 3):
            paths[name] = _write_picture(path, array)
        else:
            paths[name] = _write_numbers(path, array)
    if together:
        paths[sounds[0]] = paths[videos[0]]
    return {name: str(path) for name, path in paths.items()}


def _is_pictures(array: np.ndarray, ndim: int) -> bool:
    channels = (3,) if ndim == 4 else (1, 3)
    return array.ndim == ndim and array.dtype == np.uint8 and array.shape[-1] in channels


def _write_clip(path, name, sound, arrays, fields):
    path = path.with_name(f"{path.name}.mp4")
    rate = fractions.Fraction(fields[name].frames_per_second).limit_denominator(1_000)
    with _new(path) as new:
        if sound is None:
            written.write_clip(new, arrays[name], frame_rate=rate)
        else:
            hertz = fields[sound].sample_rate
            written.write_clip(new, arrays[name], arrays[sound], rate, hertz)
    return path


def _write_sound(path, samples, rate):
    import soundfile  # Here, for it takes a while.

    path = path.with_name(f"{path.name}.wav")
    with _new(path) as new:
        soundfile.write(new, samples, rate, subtype="FLOAT")
    return path


def _write_picture(path, pixels):
    import PIL.Image

    path = path.with_name(f"{path.name}.png")
    with _new(path) as new:
        PIL.Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(new)
    return path


def _write_numbers(path, array):
    path = path.with_name(f"{path.name}.npy")
    with _new(path) as new:
        np.save(new, array)
    return path


@contextlib.contextmanager
def _new(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a name to write to, of the same suffix; the file gets its own when it is whole."""
    new = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield new
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def plain(name: str) -> str:
    """Returns what files of an example may be called: the end of its path, or of a pair's first."""
    last = re.split(r"[/\\]", name.partition(" -> ")[0].rstrip("/\\"))[-1]
    return re.sub(r"[^\w.-]+", "_", re.sub(r"\.\w{1,5}$", "", last))[:60].strip("_") or "example"
