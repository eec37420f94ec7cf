"""Drawings of what models predict, without a display."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from perceiver_jax.tasks import flow_colours

if TYPE_CHECKING:
    from matplotlib import figure as mpl_figure

MAX_NAMED = 60  # Classes that there is room to name.
MAX_DRAWN = 12  # Numbers of an example that there is room to draw.
MAX_FRAMES = 8  # Of a video.


def draw_confusion(confusion: np.ndarray, class_names: Sequence[str]) -> "mpl_figure.Figure":
    """Draws a confusion matrix, each row in per cent of that class's examples.

    Args:
      confusion: Counts by true class (rows) and predicted class (columns).
      class_names: Names of the classes.
    """
    size = len(class_names)
    per_cent = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    named = size <= MAX_NAMED
    side = max(5.0, min(0.32 * size, 16.0)) if named else 10.0
    figure = _figure(side + 2.0, side + 1.0)
    axes = figure.subplots()
    image = axes.imshow(per_cent, cmap="Blues", vmin=0.0, vmax=100.0)
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="per cent of the true class")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if named:
        axes.set_xticks(range(size), class_names, rotation=90, parse_math=False)
        axes.set_yticks(range(size), class_names, parse_math=False)
    if size <= 20:
        for (row, column), x in np.ndenumerate(per_cent):
            if x > 0.0:
                colour = "white" if x > 50.0 else "black"
                axes.text(column, row, f"{x:.0f}", ha="center", va="center", color=colour, size=8)
    return figure


def draw_per_class(
    values: np.ndarray, class_names: Sequence[str], label: str
) -> "mpl_figure.Figure":
    """Draws a bar for each class, best on top; of many classes the best and the worst.

    Args:
      values: One value in [0, 1] a class; NaN for a class that does not occur, which is left out.
      class_names: Names of the classes.
      label: What the values are.
    """
    occurs = np.flatnonzero(~np.isnan(values))
    order = occurs[np.argsort(-values[occurs], kind="stable")]
    half = MAX_NAMED // 2
    shown = order if len(order) <= MAX_NAMED else np.concatenate([order[:half], order[-half:]])
    figure = _figure(7.5, 1.2 + 0.24 * len(shown))
    axes = figure.subplots()
    axes.barh(range(len(shown)), values[shown], color="#7aa6c9", height=0.7)
    for row, x in enumerate(values[shown]):
        axes.text(1.02, row, f"{x:.2f}", va="center", size=8)
    axes.set_yticks(range(len(shown)), [class_names[i] for i in shown], parse_math=False)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0.0, 1.08)
    mean = values[occurs].mean()
    axes.axvline(mean, color="black", linewidth=1, linestyle="--")
    axes.set_xlabel(label)
    title = f"{len(order)} classes, mean {mean:.3f}"
    if len(shown) < len(order):
        axes.axhline(half - 0.5, color="black", linewidth=0.8)
        title += f"; the {half} best and the {half} worst"
    axes.set_title(title, size=10)
    return figure


def draw_predictions(prediction: np.ndarray, target: np.ndarray) -> "mpl_figure.Figure":
    """Draws predictions against targets, a panel for each of an example's first numbers.

    Args:
      prediction: Numbers [E, L].
      target: Numbers [E, L].
    """
    count = min(target.shape[1], MAX_DRAWN)
    columns = min(count, 4)
    rows = -(-count // columns)
    figure = _figure(4.0 * columns, 3.8 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for number, axes in enumerate(panels):
        if number >= count:
            axes.set_visible(False)
            continue
        pair = target[:, number], prediction[:, number]
        axes.scatter(*pair, s=12, color="#7aa6c9", alpha=0.7)
        both = np.concatenate(pair)
        both = both[np.isfinite(both)]
        if both.size:  # The same numbers on both axes, so that the diagonal is one.
            low, high = both.min(), both.max()
            margin = 0.05 * (high - low) or 1.0
            limits = (low - margin, high + margin)
            axes.set(xlim=limits, ylim=limits, aspect="equal")
            axes.plot(limits, limits, color="black", linewidth=0.8)
        axes.set_xlabel("target" if count == 1 else f"target {number}")
        axes.set_ylabel("prediction")
        axes.grid(alpha=0.3)
    return figure


def draw_flows(
    frames: np.ndarray, target: np.ndarray, prediction: np.ndarray, known: np.ndarray
) -> "mpl_figure.Figure":
    """Draws a row for each example: its frame, its flow, the predicted one and the error.

    Args:
      frames: The first of each pair, uint8 [E, H, W, 3].
      target: In pixels [E, H, W, 2].
      prediction: In pixels [E, H, W, 2].
      known: Where the flow is known [E, H, W]; the rest is grey.
    """
    height, width = frames.shape[1:3]
    figure = _figure(12.0, 0.4 + len(frames) * (3.0 * height / width + 0.2))
    cells = figure.subplots(len(frames), 4, squeeze=False)
    for row, frame, true, guess, there in zip(
        cells, frames, target, prediction, known, strict=True
    ):
        lengths = np.hypot(true[..., 0], true[..., 1])[there]
        longest = float(np.quantile(lengths, 0.99)) if lengths.size else 1.0
        error = np.where(there, np.hypot(*np.moveaxis(guess - true, -1, 0)), np.nan)
        mean = np.nanmean(error) if there.any() else np.nan
        grey = np.where(there[..., None], flow_colours.flow_colours(true, longest), 0.5)
        row[0].imshow(frame)
        row[1].imshow(grey)
        row[2].imshow(flow_colours.flow_colours(guess, longest))
        drawn = row[3].imshow(error, cmap="magma", vmin=0.0)
        figure.colorbar(drawn, ax=row[3], fraction=0.046, pad=0.03)
        titles = ("frame", f"flow, full colour: {longest:.3g} px", "predicted")
        for axes, title in zip(row, (*titles, f"error, mean {mean:.3g} px"), strict=True):
            axes.set_title(title, size=8)
            axes.set_axis_off()
    return figure


def draw_frames(target: np.ndarray, prediction: np.ndarray) -> "mpl_figure.Figure":
    """Draws images, or some frames of videos, above what was predicted.

    Args:
      target: uint8 [E, H, W, C] or [E, T, H, W, C].
      prediction: The same.
    """
    if target.ndim == 4:
        target, prediction = target[:, None], prediction[:, None]
    shown = np.linspace(0, target.shape[1] - 1, min(target.shape[1], MAX_FRAMES)).astype(int)
    figure = _figure(1.3 * len(shown) + 0.6, 2.7 * len(target))
    axes = figure.subplots(2 * len(target), 1, squeeze=False)[:, 0]
    for i, row in enumerate(axes):
        frames = (prediction if i % 2 else target)[i // 2][shown]
        strip = np.concatenate(list(frames), axis=1)
        row.imshow(strip[..., 0] if strip.shape[-1] == 1 else strip, cmap="gray", vmin=0, vmax=255)
        row.set_ylabel("predicted" if i % 2 else "target", size=8)
        row.set_xticks([])
        row.set_yticks([])
    return figure


def draw_signals(target: np.ndarray, prediction: np.ndarray) -> "mpl_figure.Figure":
    """Draws signals [E, ...] as lines, above what was predicted."""
    figure = _figure(9.0, 1.9 * len(target))
    for axes, true, guess in zip(
        figure.subplots(len(target), 1, squeeze=False)[:, 0], target, prediction, strict=True
    ):
        axes.plot(true.reshape(-1), linewidth=0.6, color="black", label="target")
        axes.plot(guess.reshape(-1), linewidth=0.6, color="#d1603d", label="predicted", alpha=0.8)
        axes.legend(loc="upper right", fontsize=7)
        axes.tick_params(labelsize=7)
    return figure


def _figure(width: float, height: float) -> "mpl_figure.Figure":
    """Returns an empty figure, in inches; without pyplot, so that no window system is needed."""
    from matplotlib import figure as mpl_figure  # Here, for it takes a while.

    return mpl_figure.Figure(figsize=(width, height), dpi=130, layout="constrained")
