"""Pictures can be drawn of what runs give, gaps included."""

import numpy as np
from PIL import Image

from perceiver_jax.tasks import classification
from perceiver_jax.training import plots


def _is_drawn(path):
    """Whether the file is a picture of more than one colour."""
    return np.asarray(Image.open(path)).std() > 0


def test_a_value_between_gaps_is_drawn_as_a_point(tmp_path):
    def draw(values, name):
        lines = [{"step": i, "split": "train", "loss": x} for i, x in enumerate(values)]
        plots.draw_curves(lines, {"loss": classification.METRICS["loss"]}, tmp_path / name)
        red, green, blue = np.asarray(Image.open(tmp_path / name))[..., :3].T.astype(int)
        return np.count_nonzero((abs(red - 0x7F) < 9) & (abs(green - 0x8C) < 9) & (blue > 0x90))

    none = draw([None], "none.png")  # The legend's line.
    assert draw([1.0], "one.png") > none + 20
    assert draw([1.0, None, 2.0, np.nan], "two.png") > none + 40


def test_curves_are_drawn_of_metrics_with_gaps_and_nan(tmp_path):
    lines = [
        {"step": 2, "split": "train", "loss": 2.0, "top1": 0.1},
        {"step": 3, "split": "test", "loss": None, "top1": 0.2, "top5": 0.5, "mAP": None},
        {"step": 4, "split": "train", "loss": 1.0, "top1": 0.3},
    ]
    plots.draw_curves(lines, classification.METRICS, tmp_path / "curves.png")
    assert _is_drawn(tmp_path / "curves.png")
