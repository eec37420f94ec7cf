"""The curves of a run, drawn without a display."""

from collections.abc import Mapping, Sequence
import itertools
import pathlib
from typing import Any

import numpy as np

from perceiver_jax.training import task as task_lib

COLOURS = {"train": "#7f8c9b", "test": "#c0392b"}


def draw_curves(
    lines: Sequence[Mapping[str, Any]], metrics: Mapping[str, task_lib.Metric], path: pathlib.Path
) -> None:
    """Draws the metrics of both splits against the step, in the panels that they name.

    Args:
      lines: Lines of `metrics.jsonl`.
      metrics: By name, those of the task.
      path: The image to write.
    """
    from matplotlib import figure  # Here, for it takes a while; without pyplot, so no window.

    panels = list(dict.fromkeys(x.panel for x in metrics.values() if x.panel is not None))
    drawn = figure.Figure(figsize=(5.5 * len(panels), 4.2), dpi=130, layout="constrained")
    for axes, panel in zip(drawn.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        names = [name for name, metric in metrics.items() if metric.panel == panel]
        _draw(axes, lines, {name: metrics[name] for name in names})
        axes.set_ylabel(panel.label)
        axes.set_ylim(panel.limits)
    drawn.savefig(path, bbox_inches="tight")


def _draw(
    axes: Any, lines: Sequence[Mapping[str, Any]], metrics: Mapping[str, task_lib.Metric]
) -> None:
    """Draws metrics of both splits against the step, as far as they occur."""
    for (name, metric), marker in zip(metrics.items(), itertools.cycle("os^Dv"), strict=False):
        for split, colour in COLOURS.items():
            points = [(x["step"], x[name]) for x in lines if x["split"] == split and name in x]
            if points:
                steps, values = zip(*points, strict=True)
                values = np.array([np.nan if x is None else x for x in values], float)
                marked = list(range(len(values))) if split == "test" else _alone(values)
                axes.plot(
                    steps,
                    values,
                    metric.style,
                    color=colour,
                    marker=marker if marked else None,
                    markevery=marked,
                    markersize=3.5,
                    label=f"{split} {metric.label}",
                )
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False)


def _alone(values: np.ndarray) -> list[int]:
    """Places of finite values between others: no line is drawn there."""
    known = np.pad(np.isfinite(values), 1)
    return np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:]).tolist()
