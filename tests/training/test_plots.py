"""Pictures can be drawn of what runs give, gaps included."""

import numpy as np
from PIL import Image

from perceiver_jax.tasks import classification
from perceiver_jax.training import plots


def _is_drawn(path):
    """Whether the file is a picture of more than one colour."""
    return np.asarray(Image.open(path)).std() > 0


def test_curves_are_drawn_of_metrics_with_gaps_and_nan(tmp_path):
    lines = [
        {"step": 2, "split": "train", "loss": 2.0, "top1": 0.1},
        {"step": 3, "split": "test", "loss": None, "top1": 0.2, "top5": 0.5, "mAP": None},
        {"step": 4, "split": "train", "loss": 1.0, "top1": 0.3},
    ]
    plots.draw_curves(lines, classification.METRICS, tmp_path / "curves.png")
    assert _is_drawn(tmp_path / "curves.png")
