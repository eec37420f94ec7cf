"""A map of attention over the input that it is of, as pixels: quick, and without figures."""

from collections.abc import Sequence
import dataclasses
import functools
import math
from typing import Any

from jaxtyping import Float, UInt8
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from perceiver_jax import config
from perceiver_jax.data.fields import text as text_lib

COLOURS = "turbo"  # Hues, so that what is light or dark beneath is not taken for attention.
MAX_FRAMES = 8  # Of a video, or of an array with more than two axes.
_RANGE = (0.07, 0.93)  # Of them: the ends are too dark to be told apart.
_GREYS = (50, 210)  # Of what is beneath: on black and on white hues are hardly seen.
_MASKED = 190  # Grey of what is masked.
_COLUMNS = 4  # Frames side by side.
_GAP = 2  # Pixels between frames.
_OVER_STRIPES = 0.6  # Of a panel's height, for lines: beside loud sound colours are seen, too.
_LETTERS = 32  # Of a text, in a line.
_VIEW = (math.radians(25), math.radians(20))  # Of points: from the right, and from above.

Picture = UInt8[np.ndarray, "h w 3"]


def overlay(
    kind: str,
    values: Any,
    grid: Any = None,
    *,
    limits: tuple[Any, Any] | None = None,
    side: int = 224,
    opacity: int | float = 0.6,
    mark: bool = True,
) -> Picture:
    """Draws the map of one latent and head over the input of one example.

    Pictures, frames and spectrograms become grey beneath the colours, from blue (lowest) by green
    to red (highest); sound and series are lines on coloured stripes, points and the bytes of texts
    have the colours themselves. Of a video or an array with more than two axes some frames are
    shown, evenly spaced, see `frames_shown`. What is masked (a score of -inf) is grey.

    Args:
      kind: of the input, as in `config.model.inputs`. One of the user's own is drawn as an array.
      values: the input, an element of the batch: uint8 [H, W, C], ids [M], points [M, 3].
      grid: scores or weights over the input's own grid [*X], as `Model.attention_maps` has them;
        None: the input alone.
      limits: numbers that are blue and red; None: the lowest and highest of the map.
      side: of a picture, in pixels, about: it is enlarged or shrunk by a whole number. What has
        several cells in a pixel has the colour of the highest. Sound and texts are as wide as
        several pictures.
      opacity: of the colours; 1: the map alone, raw; 0: the input alone, those frames of it that
        the map would be over.
      mark: whether the highest is framed.

    Raises:
      UserError: if the map has more axes than the input.
    """
    values = np.asarray(values)
    draw = _LAYOUTS.get(kind, _draw_array)
    if grid is None:
        return draw(values, None, None, side)
    grid = np.asarray(grid, np.float32)
    if grid.ndim > max(values.ndim, 1):
        raise config.UserError(
            f"The map has shape {grid.shape} and the input {kind!r} {values.shape}; expected the "
            "map of one latent and head, and the input of one example. Take one of each."
        )
    return draw(values, grid.shape, _paint(grid, limits, opacity, mark) if opacity else None, side)


def colours(fractions: Any) -> UInt8[np.ndarray, "*X 3"]:
    """Returns the colours of the scale, from 0 (lowest) to 1 (highest)."""
    scale = _scale()
    places = np.clip(np.nan_to_num(np.asarray(fractions, np.float32)), 0, 1) * (len(scale) - 1)
    return scale[np.rint(places).astype(int)]


def frames_shown(num_frames: int) -> list[int]:
    """Returns which frames of so many (of the map's first axis) are drawn."""
    shown = np.linspace(0, num_frames - 1, min(num_frames, MAX_FRAMES))
    return np.rint(shown).astype(int).tolist()


@dataclasses.dataclass(frozen=True)
class _Paint:
    """What is to be seen of a map.

    Attributes:
      shares: of each cell, from 0 (blue) to 1 (red); NaN: masked.
      opacity: of the colours.
      best: the highest cell; None: not to be marked.
    """

    shares: Float[np.ndarray, "*X"]
    opacity: int | float
    best: tuple[int, ...] | None

    @property
    def colours(self) -> UInt8[np.ndarray, "*X 3"]:
        """Of each cell."""
        return np.where(np.isnan(self.shares)[..., None], np.uint8(_MASKED), colours(self.shares))

    @property
    def grid(self) -> tuple[int, ...]:
        """Cells along each axis."""
        return self.shares.shape

    def slice(self, index: tuple[int, ...]) -> "_Paint":
        """What lies at an index of the first axes."""
        inside = self.best is not None and self.best[: len(index)] == index
        best = self.best[len(index) :] if inside else None
        return dataclasses.replace(self, shares=self.shares[index], best=best)

    def over(self, base: np.ndarray, colours: np.ndarray) -> np.ndarray:
        """Mixes colours with what is beneath."""
        mixed = (1 - self.opacity) * base.astype(np.float32) + self.opacity * colours
        return np.rint(mixed).astype(np.uint8)


def _paint(
    grid: Float[np.ndarray, "*X"],
    limits: tuple[Any, Any] | None,
    opacity: int | float,
    mark: bool,
) -> _Paint:
    there = np.isfinite(grid)
    found = grid[there]
    if limits is None:
        limits = (float(found.min()), float(found.max())) if found.size else (0.0, 1.0)
    low, high = limits
    best = None
    if mark and found.size and found.max() > found.min():
        best = np.unravel_index(np.where(there, grid, -np.inf).argmax(), grid.shape)
        best = tuple(int(i) for i in best)
    with np.errstate(invalid="ignore"):
        shares = np.clip((grid - low) / max(high - low, 1e-30), 0, 1)
    return _Paint(np.where(there, shares, np.float32(np.nan)), opacity, best)


@functools.cache
def _scale() -> np.ndarray:
    import matplotlib  # Here, for it takes a while.

    places = np.linspace(*_RANGE, 256)
    return np.rint(255 * matplotlib.colormaps[COLOURS](places)[:, :3]).astype(np.uint8)


# What is drawn of each kind, (input, grid of the map, what is to be seen of the map, side) ->
# picture. Without a grid, it is that of the input.

_Grid = tuple[int, ...] | None


def _draw_image(values: np.ndarray, grid: _Grid, paint: _Paint | None, side: int) -> Picture:
    return _cells(_rgb(values), paint, _sized(values.shape[:2], side))


def _draw_frames(values: np.ndarray, grid: _Grid, paint: _Paint | None, side: int) -> Picture:
    size = _sized(values.shape[1:3], side)
    return tiled([_cells(_rgb(frame), paint, size) for frame in values], 2)


def _draw_video(values: np.ndarray, grid: _Grid, paint: _Paint | None, side: int) -> Picture:
    times = len(values) if grid is None else grid[0]
    size = _sized(values.shape[1:3], side // 2)
    return tiled(
        [
            _cells(
                _rgb(values[time * len(values) // times]),
                None if paint is None else paint.slice((time,)),
                size,
            )
            for time in frames_shown(times)
        ]
    )


def _draw_mel(values: np.ndarray, grid: _Grid, paint: _Paint | None, side: int) -> Picture:
    """Time is from left to right, low frequencies are below."""
    low, high = np.quantile(values, [0.01, 0.99])
    levels = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    picture = np.repeat(np.rint(255 * levels.T[::-1, :, None]), 3, axis=2).astype(np.uint8)
    if paint is not None:
        best = paint.best and (paint.grid[1] - 1 - paint.best[1], paint.best[0])
        paint = _Paint(paint.shares.T[::-1], paint.opacity, best)
    return _cells(picture, paint, (side, side * 3 // 2))


def _draw_audio(values: np.ndarray, grid: _Grid, paint: _Paint | None, side: int) -> Picture:
    return _lines(values[:, None], paint, side)


def _draw_points(values: np.ndarray, grid: _Grid, paint: _Paint | None, side: int) -> Picture:
    """As seen from the front, a little from the right and from above; y is up."""
    turn, tilt = _VIEW
    x, y, z = np.moveaxis(values[:, :3].astype(np.float32), 1, 0)
    x, z = math.cos(turn) * x - math.sin(turn) * z, math.sin(turn) * x + math.cos(turn) * z
    y, z = math.cos(tilt) * y - math.sin(tilt) * z, math.sin(tilt) * y + math.cos(tilt) * z
    middle = [(axis.max() + axis.min()) / 2 for axis in (x, y)]
    extent = max(float(np.ptp(x)), float(np.ptp(y)), 1e-6)
    # Twice as large, and made smaller at the end: smooth edges.
    radius = max(2.0, 2.2 * side / math.sqrt(max(len(values), 1)) / 4)
    room = 2 * side - 6 * radius
    across, down = side + (x - middle[0]) / extent * room, side - (y - middle[1]) / extent * room
    if paint is None:
        depth = (z - z.min()) / max(float(np.ptp(z)), 1e-6)
        shades = np.repeat(np.rint(170 - 120 * depth)[:, None], 3, axis=1).astype(np.uint8)
    else:
        shades = paint.colours.reshape(-1, 3)
    picture = PIL.Image.new("RGB", (2 * side, 2 * side), "white")
    draw = PIL.ImageDraw.Draw(picture)
    for i in np.argsort(z, kind="stable"):  # The nearest last.
        box = _around(across[i], down[i], radius)
        draw.ellipse(box, fill=tuple(shades[i].tolist()), outline=(90, 90, 90))
    if paint is not None and paint.best is not None:
        box = _around(across[paint.best[0]], down[paint.best[0]], 2 * radius + 2)
        draw.ellipse(box, outline="black", width=3)
    return np.asarray(picture.resize((side, side), PIL.Image.Resampling.BOX))


def _draw_text(values: np.ndarray, grid: _Grid, paint: _Paint | None, side: int) -> Picture:
    """A letter has the colour of its highest byte; what is filled up is left out."""
    height = max(side // 14, 9)
    font = _font(height - 2)
    width = math.ceil(font.getlength("m")) + 1
    count = int(np.flatnonzero(values != text_lib.PAD).max(initial=-1)) + 1
    letters = _letters(values[:count])
    rows = max(1, -(-len(letters) // _LETTERS))
    picture = PIL.Image.new("RGB", (_LETTERS * width, rows * height), "white")
    draw = PIL.ImageDraw.Draw(picture)
    for i, (letter, start, stop) in enumerate(letters):
        left, top = i % _LETTERS * width, i // _LETTERS * height
        box = (left, top, left + width - 1, top + height - 1)
        is_best = False
        if paint is not None:
            is_best = paint.best is not None and start <= paint.best[0] < stop
            at = paint.best[0] if is_best else start
            white = np.full(3, 255, np.uint8)
            draw.rectangle(box, fill=tuple(paint.over(white, paint.colours[at]).tolist()))
        if paint is None or paint.opacity < 1:
            middle = (left + width / 2, top + height / 2)
            draw.text(middle, letter, font=font, fill="black", anchor="mm")
        if is_best:
            draw.rectangle(box, outline="black", width=2)
    return np.asarray(picture)


def _draw_label(values: np.ndarray, grid: _Grid, paint: _Paint | None, side: int) -> Picture:
    """One input is one patch of colour."""
    del values
    base = np.full((side // 4, side // 2, 3), 225, np.uint8)
    return base if paint is None else paint.over(base, paint.colours.reshape(3))


def _draw_array(values: np.ndarray, grid: _Grid, paint: _Paint | None, side: int) -> Picture:
    """By the axes of its grid: one patch, lines, a picture or several."""
    axes = values.ndim - 1 if grid is None else len(grid)
    if axes <= 0:
        return _draw_label(values, grid, paint, side)
    if values.ndim == axes:
        values = values[..., None]
    if grid is not None:  # Last patches are filled up, here by the last values.
        both = zip(values.shape, (*grid, *values.shape[axes:]), strict=True)
        values = np.pad(values, [(0, -n % c if n > c else 0) for n, c in both], mode="edge")
    if axes == 1:
        return _lines(values.reshape(len(values), -1), paint, side)
    if axes == 2:
        return _cells(_rgb(values), paint, _sized(values.shape[:2], side))
    return _slices(values, values.shape[:axes] if grid is None else grid, paint, side)


def _slices(values: np.ndarray, grid: tuple[int, ...], paint: _Paint | None, side: int) -> Picture:
    """Pictures of the last two axes of the grid."""
    size = _sized(values.shape[len(grid) - 2 : len(grid)], side // 2)
    outer = grid[:-2]
    pictures = []
    for flat in frames_shown(math.prod(outer)):
        index = tuple(int(i) for i in np.unravel_index(flat, outer))
        at = tuple(i * n // m for i, n, m in zip(index, values.shape, outer, strict=False))
        of_slice = None if paint is None else paint.slice(index)
        pictures.append(_cells(_rgb(values[at], values), of_slice, size))
    return tiled(pictures)


_LAYOUTS = {
    "audio": _draw_audio,
    "frames": _draw_frames,
    "image": _draw_image,
    "label": _draw_label,
    "mel": _draw_mel,
    "point_cloud": _draw_points,
    "text": _draw_text,
    "video": _draw_video,
}


def _rgb(values: np.ndarray, scaled_by: np.ndarray | None = None) -> Picture:
    """Pixels [H, W, C] of any numbers; of other than 3 channels the mean."""
    if values.dtype != np.uint8:
        scaled_by = values if scaled_by is None else scaled_by
        finite = scaled_by[np.isfinite(scaled_by)]
        low, high = (finite.min(), finite.max()) if finite.size else (0, 1)
        shares = (values.astype(np.float32) - low) / max(float(high) - float(low), 1e-30)
        values = np.nan_to_num(255 * np.clip(shares, 0, 1))
    if values.shape[-1] != 3:
        values = np.repeat(values.mean(axis=-1, keepdims=True), 3, axis=-1)
    return np.rint(values).astype(np.uint8)


def _sized(size: Sequence[int], side: int) -> tuple[int, int]:
    """About `side` pixels for the longer side: a whole number for each of the input, or of it."""
    longer = max(size)
    if longer > side:
        factor = max(1, round(longer / side))
        return -(-size[0] // factor), -(-size[1] // factor)
    factor = max(1, round(side / longer))
    return size[0] * factor, size[1] * factor


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if picture.shape[:2] == size:
        return picture
    is_larger = picture.shape[0] > size[0] or picture.shape[1] > size[1]
    how = PIL.Image.Resampling.BOX if is_larger else PIL.Image.Resampling.NEAREST
    image = PIL.Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize(size[::-1], how))


def _highest(shares: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Cells along each axis so few that they fit, each the highest of those that it stands for."""
    for axis, most in enumerate(size):
        count = shares.shape[axis]
        if count > most:
            # In the even blocks of `_sized`, if it made the size.
            starts = np.minimum(np.arange(most) * -(-count // most), count - 1)
            shares = np.fmax.reduceat(shares, np.unique(starts), axis=axis)
    return shares


def _cells(picture: np.ndarray, paint: _Paint | None, size: tuple[int, int]) -> Picture:
    """A picture, in grey beneath the colours of a map over it."""
    base = _resized(picture, size)
    if paint is None:
        return base
    dark, light = _GREYS
    grey = dark + (light - dark) / 255 * np.repeat(base.mean(axis=2, keepdims=True), 3, axis=2)
    fitting = dataclasses.replace(paint, shares=_highest(paint.shares, size))
    mixed = paint.over(grey, _resized(fitting.colours, size))
    if paint.best is None:
        return mixed
    return _boxed(mixed, paint.best, paint.grid)


def _boxed(picture: np.ndarray, cell: tuple[int, ...], grid: tuple[int, ...]) -> Picture:
    """Frames a cell in white and black, which is seen on any colour."""
    image = PIL.Image.fromarray(picture)
    draw = PIL.ImageDraw.Draw(image)
    (top, left), (bottom, right) = (
        [(i + more) * n // cells for i, n, cells in zip(cell, picture.shape, grid, strict=False)]
        for more in (0, 1)
    )
    for distance, colour in ((3, "black"), (2, "white"), (1, "white")):
        box = (left - distance, top - distance, right + distance - 1, bottom + distance - 1)
        draw.rectangle(box, outline=colour)
    return np.asarray(image)


def tiled(pictures: Sequence[np.ndarray], columns: int = _COLUMNS) -> Picture:
    """Pictures of one size in rows, from left to right."""
    columns = min(columns, len(pictures))
    height, width, _ = pictures[0].shape
    rows = -(-len(pictures) // columns)
    tiled = np.full(
        (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), 255, np.uint8
    )
    for i, picture in enumerate(pictures):
        top, left = i // columns * (height + _GAP), i % columns * (width + _GAP)
        tiled[top : top + height, left : left + width] = picture
    return tiled


def _lines(values: np.ndarray, paint: _Paint | None, side: int) -> Picture:
    """The channels [S, C] as lines, on stripes of the colours of a map along S."""
    height, width = side // 2, 2 * side
    picture = np.full((height, width, 3), 255, np.uint8)
    if paint is not None:
        starts = np.arange(width) * paint.shares.size // width
        highest = np.fmax.reduceat(paint.shares.reshape(-1), starts)
        stripes = dataclasses.replace(paint, shares=highest).colours
        picture = paint.over(picture, np.broadcast_to(stripes, picture.shape))
    if paint is None or paint.opacity < 1:
        values = np.nan_to_num(values.astype(np.float32))
        most = max(float(np.abs(values).max(initial=0)), 1e-6)
        for channel in values.T:
            _draw_line(picture, channel / most * (1.0 if paint is None else _OVER_STRIPES))
    if paint is not None and paint.best is not None:
        picture = _boxed(picture, (0, paint.best[0]), (1, paint.grid[0]))
    return picture


def _draw_line(picture: np.ndarray, values: np.ndarray) -> None:
    """Draws numbers of -1 to 1, in place: all between the least and greatest of a column."""
    height, width, _ = picture.shape
    edges = np.linspace(0, len(values), width + 1)
    if len(values) < 2 * width:  # A line through few values.
        places = np.interp(np.linspace(0, len(values) - 1, width + 1), range(len(values)), values)
        low, high = np.minimum(places[1:], places[:-1]), np.maximum(places[1:], places[:-1])
    else:
        starts = edges[:-1].astype(int)
        low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    top, bottom = ((1 - x) / 2 * (height - 3) for x in (high, low))
    rows = np.arange(height)[:, None]
    picture[(rows >= np.floor(top)) & (rows <= np.ceil(bottom) + 1)] = 30


def _letters(ids: np.ndarray) -> list[tuple[str, int, int]]:
    """Letters with the places of their bytes; special ids are one each."""
    special = {text_lib.MASK: "_"}
    letters, start = [], 0
    while start < len(ids):
        stop = start + 1
        if ids[start] < text_lib.NUM_SPECIAL:
            letters.append((special.get(int(ids[start]), "\u00b7"), start, stop))
        else:
            # What follows in UTF-8 begins with the bits 10.
            while stop < len(ids) and 0x80 <= ids[stop] - text_lib.NUM_SPECIAL < 0xC0:
                stop += 1
            letter = text_lib.decode(ids[start:stop])
            letters.append((letter if letter.isprintable() else " ", start, stop))
        start = stop
    return letters


@functools.cache
def _font(size: int) -> PIL.ImageFont.FreeTypeFont:
    import matplotlib  # Here, for it takes a while; its fonts are where there are no others.

    path = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSansMono.ttf"
    return PIL.ImageFont.truetype(path, size)


def _around(x: Any, y: Any, radius: Any) -> tuple[float, float, float, float]:
    return (float(x - radius), float(y - radius), float(x + radius), float(y + radius))
