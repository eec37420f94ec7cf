"""Pictures can be drawn of what runs give, gaps included."""

import numpy as np
from PIL import Image
import pytest

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
    plots.draw_curves(lines, tmp_path / "curves.png")
    assert _is_drawn(tmp_path / "curves.png")


@pytest.mark.parametrize("num_classes", [2, 13, 67])
def test_confusion_is_drawn_for_few_and_many_classes(tmp_path, num_classes):
    confusion = np.eye(num_classes, dtype=int)
    confusion[1] = 0  # A class without examples.
    names = [f"class {i}" for i in range(num_classes)]
    plots.draw_confusion(confusion, names, tmp_path / "confusion.png")
    assert _is_drawn(tmp_path / "confusion.png")


@pytest.mark.parametrize("num_classes", [2, 13, 67])
def test_classes_are_drawn_where_some_never_occur(tmp_path, num_classes):
    values = np.linspace(0.0, 1.0, num_classes)
    values[0] = np.nan
    names = [f"class {i}" for i in range(num_classes)]
    plots.draw_per_class(values, names, "accuracy", tmp_path / "classes.png")
    assert _is_drawn(tmp_path / "classes.png")


def test_names_of_classes_are_no_formulas(tmp_path):
    names = [r"$\frac$", "a$x$b"]
    plots.draw_confusion(np.eye(2, dtype=int), names, tmp_path / "confusion.png")
    plots.draw_per_class(np.array([0.2, 0.7]), names, "accuracy", tmp_path / "classes.png")
    assert _is_drawn(tmp_path / "confusion.png") and _is_drawn(tmp_path / "classes.png")
