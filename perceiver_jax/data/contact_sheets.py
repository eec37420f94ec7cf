"""Contact sheets of training examples, before and after augmentation; a function a kind."""

from collections.abc import Callable, Sequence
import dataclasses
import textwrap
from typing import Any

from matplotlib import colors
from matplotlib import figure as mpl_figure
import numpy as np

from perceiver_jax.data.fields import text as text_lib

MAX_FRAMES = 10  # Of a strip.
MAX_ARROWS = 16  # Along the longer side of a flow.
MAX_LINES = 12  # Of a text.
_SMALL = 64  # Images up to this side, in pixels, are shown with square pixels.
_HEIGHT_COLOURS = "viridis"


@dataclasses.dataclass(frozen=True)
class Pairs:
    """One input of several examples.

    Attributes:
      field: how it is read, from `perceiver_jax/data`.
      before: the arrays without augmentation.
      after: the arrays as the model gets them.
      labels: of each example, without augmentation.
      mixed_labels: of each example, as the model gets them.
    """

    field: Any
    before: np.ndarray
    after: np.ndarray
    labels: Sequence[str]
    mixed_labels: Sequence[str]

    @property
    def augmented(self) -> bool:
        """Whether augmentation changed anything."""
        return not np.array_equal(self.before, self.after)


def draw_sheet(kind: str, pairs: Pairs, title: str) -> mpl_figure.Figure:
    """Draws one input of the examples; kinds without an own form are drawn as lines.

    Args:
      kind: of the field, as in `config.data.fields`.
      pairs: the examples.
      title: the sheet's first line.
    """
    layout = LAYOUTS.get(kind, SERIES)
    columns = min(layout.columns, len(pairs.labels))
    rows = -(-len(pairs.labels) // columns)
    width, height = layout.size
    figure = mpl_figure.Figure(
        figsize=(max(columns * width, 6.0), rows * height + 0.7), dpi=110, layout="constrained"
    )
    figure.suptitle(f"{title}\n{layout.describe(pairs)}", size=10, parse_math=False)
    cells = np.atleast_1d(figure.subfigures(rows, columns, wspace=0.03, hspace=0.03)).flat
    norm = layout.norm(pairs) if layout.norm else None
    for i, (cell, label) in enumerate(zip(cells, pairs.labels, strict=False)):
        cell.set_facecolor("#f2f2f2" if (i // columns + i % columns) % 2 else "white")
        mixed = pairs.mixed_labels[i]
        text = _shorten(label if mixed == label else f"{label} -> {mixed}", width)
        cell.suptitle(text, size=9, parse_math=False)
        layout.draw(cell, pairs, i, norm)
    return figure


def _draw_image(cell: Any, pairs: Pairs, i: int, norm: None) -> None:
    for axes, title, pixels in _two(cell, pairs, i):
        _show(axes, pixels)
        axes.set_title(title, size=8)


def _draw_video(cell: Any, pairs: Pairs, i: int, norm: None) -> None:
    shown = np.arange(0, len(pairs.before[i]), _frame_step(pairs))
    times = shown / pairs.field.frames_per_second
    rows = _versions(pairs, i)
    axes = cell.subplots(len(rows), 1, squeeze=False, gridspec_kw={"hspace": 0})[:, 0]
    for row, (title, clip) in zip(axes, rows, strict=True):
        side = clip.shape[2]
        _show(row, np.concatenate(list(clip[shown]), axis=1), side)
        row.vlines(np.arange(1, len(shown)) * side - 0.5, -0.5, side - 0.5, "white", lw=1.5)
        row.set_ylabel(title, size=8)
    centres = (np.arange(len(shown)) + 0.5) * axes[-1].get_xlim()[1] / len(shown)
    axes[-1].set_xticks(centres, [f"{t:.2f}" for t in times], size=7)
    axes[-1].tick_params(length=0)
    axes[-1].set_xlabel("seconds in the window", size=8)


def _draw_frames(cell: Any, pairs: Pairs, i: int, norm: None) -> None:
    for axes, title, frames in _two(cell, pairs, i):
        _show(axes, np.concatenate(list(frames), axis=1), max(frames.shape[1:3]))
        axes.axvline(frames.shape[2] - 0.5, color="white", lw=1.5)
        axes.set_title(title, size=8)


def _draw_flow(cell: Any, pairs: Pairs, i: int, norm: None) -> None:
    longest = np.nanmax(np.linalg.norm(pairs.before[i], axis=-1), initial=1e-6)
    for axes, title, flow in _two(cell, pairs, i):
        step = -(-max(flow.shape[:2]) // MAX_ARROWS)
        rows, columns = np.mgrid[: flow.shape[0] : step, : flow.shape[1] : step]
        right, down = np.moveaxis(flow[rows, columns], -1, 0)
        # The longest is as long as they are apart.
        arrows = {"angles": "xy", "scale_units": "xy", "scale": longest / step, "width": 0.005}
        axes.quiver(columns, rows, right, down, **arrows)
        axes.set_aspect("equal")
        axes.invert_yaxis()
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"{title}, up to {longest:.3g} pixels".removeprefix(", "), size=8)


def _draw_text(cell: Any, pairs: Pairs, i: int, norm: None) -> None:
    for axes, title, ids in _two(cell, pairs, i):
        gaps = np.where(ids == text_lib.MASK, text_lib.NUM_SPECIAL + ord("_"), ids)
        text = textwrap.fill(text_lib.decode(gaps), 44)
        text = "\n".join(text.splitlines()[:MAX_LINES])
        options = {"size": 7, "va": "top", "family": "monospace", "parse_math": False}
        axes.text(0, 1, text, transform=axes.transAxes, **options)
        axes.set_axis_off()
        axes.set_title(title, size=8)


def _draw_mel(cell: Any, pairs: Pairs, i: int, norm: colors.Normalize) -> None:
    mel = pairs.field
    duration = mel.num_samples / mel.sample_rate
    for axes, title, spectrogram in _two(cell, pairs, i):
        image = axes.imshow(
            spectrogram.T,
            cmap="magma",
            norm=norm,
            aspect="auto",
            origin="lower",
            interpolation="nearest",
            extent=(0, duration, 0, mel.num_bins),
        )
        axes.set_title(title, size=8)
        axes.set_xlabel("seconds", size=8)
        axes.tick_params(labelsize=7)
    cell.axes[0].set_ylabel(f"mel bin, 0 to {mel.sample_rate / 2000:g} kHz", size=8)
    bar = cell.colorbar(image, ax=cell.axes, fraction=0.05, pad=0.02)
    bar.set_label("log power, standardised", size=8)
    bar.ax.tick_params(labelsize=7)


def _draw_audio(cell: Any, pairs: Pairs, i: int, norm: None) -> None:
    rate = pairs.field.sample_rate
    windows = _versions(pairs, i)
    grid = cell.subplots(2, len(windows), squeeze=False, height_ratios=(1, 2), sharex=True)
    for (wave, spectrogram), (title, samples) in zip(grid.T, windows, strict=True):
        wave.plot(np.arange(len(samples)) / rate, samples, lw=0.3, color="#2c5f8a")
        wave.set_ylim(-1, 1)
        wave.set_title(title, size=8)
        spectrogram.set_facecolor("black")
        with np.errstate(divide="ignore"):  # Of silence.
            spectrogram.specgram(
                samples, NFFT=1024, noverlap=512, Fs=rate, cmap="magma", vmin=-140, vmax=-40
            )
        spectrogram.set_xlabel("seconds", size=8)
        spectrogram.yaxis.set_major_formatter(lambda hertz, _: f"{hertz / 1000:g}")
        spectrogram.set_xlim(0, len(samples) / rate)
        for axes in (wave, spectrogram):
            axes.tick_params(labelsize=7)
    grid[0, 0].set_ylabel("amplitude", size=8)
    grid[1, 0].set_ylabel("kHz", size=8)
    bar = cell.colorbar(spectrogram.images[0], ax=list(grid[1]), fraction=0.05, pad=0.02)
    bar.set_label("dB", size=8)
    bar.ax.tick_params(labelsize=7)


def _draw_points(cell: Any, pairs: Pairs, i: int, norm: None) -> None:
    limit = max(1.0, float(np.abs(pairs.after).max()), float(np.abs(pairs.before).max()))
    norm = colors.Normalize(pairs.before[i, :, 1].min(), pairs.before[i, :, 1].max())
    clouds = _versions(pairs, i)
    grid = cell.subplots(1, len(clouds), squeeze=False, subplot_kw={"projection": "3d"})[0]
    for axes, (title, points) in zip(grid, clouds, strict=True):
        x, y, z = points.T
        axes.scatter(
            x, y, z, c=y, cmap=_HEIGHT_COLOURS, norm=norm, s=3, linewidths=0, depthshade=False
        )
        axes.view_init(elev=20, azim=-60, vertical_axis="y")
        axes.set_box_aspect((1, 1, 1), zoom=0.95)
        axes.set_facecolor("none")
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), zlim=(-limit, limit))
        for name in "xyz":
            getattr(axes, f"set_{name}label")(name, size=8, labelpad=-10)
            getattr(axes, f"set_{name}ticks")((-0.5, 0, 0.5))
        axes.tick_params(labelsize=6, pad=-3)
        axes.set_title(title, size=8, y=0.98)


def _draw_series(cell: Any, pairs: Pairs, i: int, norm: None) -> None:
    for axes, title, values in _two(cell, pairs, i):
        lines = axes.plot(values.reshape(len(values), -1), lw=0.8)
        axes.set_title(title, size=8)
        axes.set_xlabel("step", size=8)
        axes.tick_params(labelsize=7)
    cell.axes[0].set_ylabel("value", size=8)
    if 1 < len(lines) <= 10:
        channels = range(len(lines))
        cell.legend(
            lines,
            channels,
            loc="outside right center",
            title="channel",
            fontsize=7,
            title_fontsize=7,
        )


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a kind is drawn.

    Attributes:
      draw: draws example i of the pairs into a sub-figure.
      describe: says what is shown.
      columns: examples side by side.
      size: width and height of an example, in inches.
      norm: colours that all examples share.
    """

    draw: Callable[[Any, Pairs, int, Any], None]
    describe: Callable[[Pairs], str]
    columns: int
    size: tuple[float, float]
    norm: Callable[[Pairs], colors.Normalize] | None = None


def _size(pairs: Pairs) -> str:
    size = " x ".join(map(str, pairs.after.shape[1:]))
    return f"{size}, {'before and after augmentation' if pairs.augmented else 'not augmented'}"


def _shared_norm(pairs: Pairs) -> colors.Normalize:
    return colors.Normalize(*np.quantile(pairs.before, [0.001, 0.999]))


LAYOUTS = {
    "audio": Layout(_draw_audio, lambda p: f"samples: {_size(p)}", 3, (4.2, 3.4)),
    "flow": Layout(
        _draw_flow, lambda p: f"height x width x (right, down): {_size(p)}", 2, (6.4, 3.2)
    ),
    "frames": Layout(
        _draw_frames, lambda p: f"2 frames x height x width x channels: {_size(p)}", 2, (6.4, 2.2)
    ),
    "image": Layout(_draw_image, lambda p: f"height x width x channels: {_size(p)}", 4, (3.4, 2.1)),
    "mel": Layout(
        _draw_mel, lambda p: f"frames x mel bins: {_size(p)}", 2, (6.4, 2.6), _shared_norm
    ),
    "point_cloud": Layout(
        _draw_points,
        lambda p: f"points x (x, y, z): {_size(p)}; the colour is the height y",
        2,
        (6.4, 3.4),
    ),
    "video": Layout(
        _draw_video,
        lambda p: (
            f"frames x height x width x channels: {_size(p)}; shown: 1 frame in {_frame_step(p)}"
        ),
        1,
        (11.0, 3.2),
    ),
}
TEXT = Layout(_draw_text, lambda p: f"ids of bytes: {_size(p)}", 2, (6.4, 2.6))
LAYOUTS |= {"masked_text": TEXT, "text": TEXT}
SERIES = Layout(_draw_series, lambda p: f"steps x channels: {_size(p)}", 2, (6.4, 2.2))


def _versions(pairs: Pairs, i: int) -> list[tuple[str, np.ndarray]]:
    """Example i before and after, with titles; only one if nothing is augmented."""
    if not pairs.augmented:
        return [("", pairs.after[i])]
    return [("before", pairs.before[i]), ("after", pairs.after[i])]


def _two(cell: Any, pairs: Pairs, i: int) -> list[tuple[Any, str, np.ndarray]]:
    """Axes side by side for the versions of an example, with titles and arrays."""
    versions = _versions(pairs, i)
    grid = cell.subplots(1, len(versions), sharey=True, squeeze=False)[0]
    return [(axes, *version) for axes, version in zip(grid, versions, strict=True)]


def _frame_step(pairs: Pairs) -> int:
    return -(-pairs.before.shape[1] // MAX_FRAMES)


def _show(axes: Any, pixels: np.ndarray, side: int = 0) -> None:
    small = (side or max(pixels.shape[:2])) <= _SMALL
    grey = pixels.shape[-1] == 1
    axes.imshow(
        pixels[..., 0] if grey else pixels,
        cmap="gray" if grey else None,
        vmin=0,
        vmax=255,
        interpolation="nearest" if small else "antialiased",
    )
    axes.set_xticks([])
    axes.set_yticks([])


def _shorten(text: str, width: float) -> str:
    return textwrap.shorten(text, int(width * 12), placeholder=" ...")
