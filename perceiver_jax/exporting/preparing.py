"""How inputs are prepared, as data: enough to do it again in another language.

Each kind of field has a function here, whose numbers go to `export.json` and whose sentences to the
folder's README, where they say what the numbers mean. Augmentation is left out.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from perceiver_jax import tiles
from perceiver_jax.data import augment, description
from perceiver_jax.data.fields import array as array_field
from perceiver_jax.data.fields import audio, frames, image, label, point_cloud, text, video

Json = dict[str, Any]


class Prepared(NamedTuple):
    """How an input is prepared.

    Attributes:
      kind: of the field.
      numbers: settings, by names that `sentences` explain.
      sentences: a paragraph.
    """

    kind: str
    numbers: Json
    sentences: str


def describe(name: str, field: Any, keys: Mapping[str, Any]) -> Prepared:
    """Describes how a field is read in evaluation.

    Args:
      name: of the input.
      field: of the input.
      keys: of the input in the config's model section, for what the program does by itself.
    """
    kind = description.kind(name, field)
    function = _KINDS.get(type(field))
    if function is None:  # Of the user's own.
        lines = (type(field).__doc__ or "").strip().splitlines()
        return Prepared(kind, _plain(vars(field)), lines[0] if lines else "A kind of one's own.")
    numbers, sentences = function(field)
    if keys.get("mean") is not None:
        numbers["in_program"] = {"mean": keys["mean"], "std": keys["std"]}
        computed = "(x - `mean`) / `std` of each channel (`in_program`)."
        if isinstance(field, frames.Frames | image.Image | video.Video):
            numbers["in_program"]["divide_by"] = 255
            computed = (
                "(pixel / `divide_by` - `mean`) / `std` of each channel (`in_program`), and so "
                "takes whole numbers of 0 to 255."
            )
        sentences += f" The program itself computes {computed}"
    return Prepared(kind, _plain(numbers), " ".join(sentences.split()))


def _array(field: array_field.Array) -> tuple[Json, str]:
    del field
    return {}, "An array as those that the model was trained on."


def _image(field: image.Image) -> tuple[Json, str]:
    crop = {
        "inception": {"fraction": augment.CENTRE_FRACTION, "odd_pixel": "before"},
        "centre": {"fraction": augment.CENTRE_FRACTION, "odd_pixel": "after"},
        "none": None,
    }[field.crop]
    numbers = {
        "colours": {1: "grey", 3: "RGB"}[field.channels],
        "upright": field.upright,
        "crop": crop,
        "crop_before_resize": field.crop == "centre",
        "size": [field.image_size, field.image_size],
        "resize": "bicubic",
    }
    return (
        numbers,
        f"""Decode to `colours` of 8 bits: grey is 0.299 red + 0.587 green + 0.114 blue;
      transparent pictures lie on white; if `upright`, turn as EXIF says. {_CROP} {_RESIZE}
      If `crop_before_resize`, pixels outside of the square count for nothing; else those beside
      its edges do.""",
    )


def _frames(field: frames.Frames) -> tuple[Json, str]:
    numbers = {"size": list(field.image_size), "overlap": tiles.OVERLAP}
    return (
        numbers,
        """Two frames of one size, RGB, upright, one after the other. Nothing is
      resized: a frame larger than `size` (height, width) is cut into tiles of that size, which
      overlap by `overlap` pixels or more, and what is computed of tiles is averaged, weighted by a
      pixel's distance to the nearest edge of its tile; a smaller one is continued by its edges.""",
    )


def _video(field: video.Video) -> tuple[Json, str]:
    numbers = {
        "stored": {
            "frames_per_second": video.STORED_FRAME_RATE,
            "short_side": 256,  # As `builders.clips.storage` has them, which needs PyAV.
            "jpeg_quality": 85,
            "max_seconds": 60,
        },
        "num_frames": field.num_frames,
        "frames_per_second": field.frames_per_second,
        "crop": {"fraction": augment.CENTRE_FRACTION, "odd_pixel": "before"},
        "size": [field.image_size, field.image_size],
        "resize": "bilinear",
        "window": 0.5,
    }
    return (
        numbers,
        f"""First a film is `stored`: so many frames a second, of each moment the one
      that shows then, its shorter side resized to `short_side`, as JPEG; at most `max_seconds`.
      With step = `stored.frames_per_second` / `frames_per_second`, start = `window` * max(0, stored
      frames - `num_frames` * step), frame i is the stored one round(start + i * step), or the last
      one; `window` is 0 for the begin of a film, 1 for its end. {_CROP} {_RESIZE}""",
    )


def _audio(field: audio.Audio | audio.Mel) -> tuple[Json, str]:
    numbers = {
        "stored": {"sample_rate": 48_000, "bits": 16, "pieces_per_second": 25, "max_seconds": 60},
        "num_samples": field.num_samples,
        "sample_rate": field.sample_rate,
        "window": 0.5,
        "resample": "soxr HQ",
    }
    return (
        numbers,
        """Samples in [-1, 1], the mean of all channels (or one of them, where they cancel
      each other). First a sound is `stored`: resampled to `stored.sample_rate` (by the library soxr
      with quality HQ, as `resample` says), at most `max_seconds` of it, cut or followed by silence
      to the nearest multiple of 1 / `pieces_per_second` seconds, rounded to `bits`. Of these n
      samples take length = ceil(`num_samples` * `stored.sample_rate` / `sample_rate`) from
      round(`window` * max(0, n - length)) on; `window` is 0 for the begin of a sound, 1 for its
      end. Resample them to `sample_rate`; cut them to `num_samples`, or let silence follow.""",
    )


def _mel(field: audio.Mel) -> tuple[Json, str]:
    numbers, sentences = _audio(field)
    numbers["mel"] = {
        "hop": field.hop,
        "frame": field.window,
        "frame_window": "hann",
        "padding": (field.window - field.hop) // 2,
        "num_bins": field.num_bins,
        "lowest_hz": 0,
        "highest_hz": field.sample_rate / 2,
        "scale": "htk",
        "norm": None,
        "log_offset": audio.LOG_OFFSET,
        "mean": audio.LOG_MEAN,
        "std": audio.LOG_STD,
    }
    return (
        numbers,
        f"""{sentences} Then, by `mel`: add `padding` zeros on both sides; cut frames of
      `frame` samples, each `hop` after the one before; multiply each with the periodic Hann window,
      0.5 - 0.5 cos(2 pi i / `frame`); take the squared magnitude of its real Fourier transform,
      `frame` / 2 + 1 frequencies from 0 to half of the sample rate. Bin b of `num_bins` is the sum
      of these powers, weighted by a triangle that rises from 0 at p[b] to 1 at p[b + 1] and falls
      to 0 at p[b + 2], where p are `num_bins` + 2 frequencies, evenly spaced on the mel scale 2595
      log10(1 + f / 700) from `lowest_hz` to `highest_hz`. The value is (ln(bin + `log_offset`) -
      `mean`) / `std`.""",
    )


def _points(field: point_cloud.PointCloud) -> tuple[Json, str]:
    numbers = {
        "num_points": field.num_points,
        "stored_points": max(2048, field.num_points),  # As `builders.shapes.clouds` has it.
        "up": "y",
        "window": 0.5,
    }
    return (
        numbers,
        """Points [n, 3] whose `up` axis points up; of a mesh `stored_points` drawn on
      its surface. Of more than these draw so many at random. Subtract their mean, and divide by the
      greatest distance from it. Point i of `num_points` is number (i * n // `num_points` +
      round(`window` * (n / `num_points` - 1))) mod n. Subtract the mean of these points, and divide
      by the greatest absolute coordinate.""",
    )


def _text(field: text.Text) -> tuple[Json, str]:
    numbers = {
        "encoding": "UTF-8",
        "max_length": field.max_length,
        "byte_offset": text.NUM_SPECIAL,
        "pad": text.PAD,
        "mask": text.MASK,
        "gap": text.GAP,
        "first": text.CLS if field.cls_sep else None,
        "last": text.SEP if field.cls_sep else None,
    }
    return (
        numbers,
        """The id of a byte of the text in `encoding` is its value + `byte_offset`;
      `gap` in a text is the id `mask`, a byte that is not known. Cut to `max_length` ids, among
      them `first` before the text and `last` after it where these are not null; fill up with `pad`.
      The input's mask is true where nothing is filled up.""",
    )


def _label(field: label.Label) -> tuple[Json, str]:
    return {"num_classes": field.num_classes}, "The number of a class, or 1 for each that it has."


_CROP = """With a `crop`, take the square in the middle whose side is floor(`fraction` * shorter
  side), at least 1; where it can't lie in the middle, the odd pixel is `odd_pixel` it."""
_RESIZE = """Resize it to `size` as Pillow does, by the filter `resize`: it is widened by the factor
  of shrinking, first along rows and then along columns, rounded to 8 bits after each; bicubic has
  a = -0.5."""

_KINDS = {
    array_field.Array: _array,
    audio.Audio: _audio,
    audio.Mel: _mel,
    frames.Frames: _frames,
    image.Image: _image,
    label.Label: _label,
    array_field.MultiHot: _label,
    point_cloud.PointCloud: _points,
    text.MaskedText: _text,
    text.Text: _text,
    video.Video: _video,
}


def _plain(value: Any) -> Any:
    """Returns a value as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value if isinstance(value, bool | int | float | str | None) else str(value)
