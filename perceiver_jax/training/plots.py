"""Pictures of a run, drawn without a display."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib import figure as mpl_figure

COLOURS = {"train": "#7f8c9b", "test": "#c0392b"}
LABELS = {"loss": "loss", "top1": "top-1", "top5": "top-5", "mAP": "mAP"}
STYLES = {"top1": "-", "top5": ":", "mAP": "--", "loss": "-"}
MAX_NAMED = 60  # Classes that there is room to name.


def draw_curves(lines: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
    """Draws loss (left) and accuracies (right) of both splits against the step.

    Args:
      lines: Lines of `metrics.jsonl`.
      path: The picture to write.
    """
    figure = _figure(11.0, 4.2)
    left, right = figure.subplots(1, 2)
    _draw(left, lines, ["loss"])
    left.set_ylabel("loss")
    _draw(right, lines, ["top1", "top5", "mAP"])
    right.set_ylabel("accuracy, mAP")
    right.set_ylim(-0.02, 1.02)
    figure.savefig(path, bbox_inches="tight")


def draw_confusion(confusion: np.ndarray, class_names: Sequence[str], path: pathlib.Path) -> None:
    """Draws a confusion matrix, each row as fractions of that class's examples.

    Args:
      confusion: Counts by true class (rows) and predicted class (columns).
      class_names: Names of the classes.
      path: The picture to write.
    """
    size = len(class_names)
    fractions = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    named = size <= MAX_NAMED
    side = max(5.0, min(0.32 * size, 16.0)) if named else 10.0
    figure = _figure(side + 2.0, side + 1.0)
    axes = figure.subplots()
    image = axes.imshow(fractions, cmap="Blues", vmin=0.0, vmax=1.0)
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="fraction of the true class")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if named:
        axes.set_xticks(range(size), class_names, rotation=90, parse_math=False)
        axes.set_yticks(range(size), class_names, parse_math=False)
    if size <= 20:
        for (row, column), x in np.ndenumerate(fractions):
            if x > 0.0:
                colour = "white" if x > 0.5 else "black"
                axes.text(
                    column, row, f"{100 * x:.0f}", ha="center", va="center", color=colour, size=8
                )
        axes.set_title("per cent of the true class", size=10)
    figure.savefig(path, bbox_inches="tight")


def draw_per_class(
    values: np.ndarray, class_names: Sequence[str], label: str, path: pathlib.Path
) -> None:
    """Draws a bar for each class, best on top; of many classes the best and the worst.

    Args:
      values: One value in [0, 1] a class; NaN for a class that does not occur, which is left out.
      class_names: Names of the classes.
      label: What the values are.
      path: The picture to write.
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
    figure.savefig(path, bbox_inches="tight")


def _draw(axes: Any, lines: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Draws metrics of both splits against the step, as far as they occur."""
    for name in names:
        for split, colour in COLOURS.items():
            points = [(x["step"], x[name]) for x in lines if x["split"] == split and name in x]
            if points:
                steps, values = zip(*points, strict=True)
                axes.plot(
                    steps,
                    [np.nan if x is None else x for x in values],
                    STYLES[name],
                    color=colour,
                    marker="o" if split == "test" else None,
                    markersize=3.5,
                    label=f"{split} {LABELS[name]}",
                )
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False)


def _figure(width: float, height: float) -> "mpl_figure.Figure":
    """Returns an empty figure, in inches; without pyplot, so that no window system is needed."""
    from matplotlib import figure as mpl_figure  # Here, for it takes a while.

    return mpl_figure.Figure(figsize=(width, height), dpi=130, layout="constrained")
