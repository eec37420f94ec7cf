"""Images can be drawn of what models predict, gaps included."""

import io

import numpy as np
from PIL import Image
import pytest

from perceiver_jax.tasks import plots


def _is_drawn(figure):
    """Whether it is an image of more than one colour."""
    drawn = io.BytesIO()
    figure.savefig(drawn)
    return np.asarray(Image.open(drawn)).std() > 0


@pytest.mark.parametrize("num_classes", [2, 13, 67])
def test_confusion_is_drawn_for_few_and_many_classes(num_classes):
    confusion = np.eye(num_classes, dtype=int)
    confusion[1] = 0  # A class without examples.
    names = [f"class {i}" for i in range(num_classes)]
    assert _is_drawn(plots.draw_confusion(confusion, names))


@pytest.mark.parametrize("num_classes", [2, 13, 67])
def test_classes_are_drawn_where_some_never_occur(num_classes):
    values = np.linspace(0.0, 1.0, num_classes)
    values[0] = np.nan
    names = [f"class {i}" for i in range(num_classes)]
    assert _is_drawn(plots.draw_per_class(values, names, "accuracy"))


def test_names_of_classes_are_no_formulas():
    names = [r"$\frac$", "a$x$b"]
    assert _is_drawn(plots.draw_confusion(np.eye(2, dtype=int), names))
    assert _is_drawn(plots.draw_per_class(np.array([0.2, 0.7]), names, "accuracy"))


def test_predictions_and_targets_have_the_same_axis_and_the_diagonal_halves_the_panel():
    target = np.linspace(0.0, 1.0, 7)[:, None]
    figure = plots.draw_predictions(30.0 * target, target)
    (panel,) = figure.axes
    figure.draw_without_rendering()
    assert panel.get_xlim() == panel.get_ylim()
    box = panel.get_window_extent()
    assert box.width == pytest.approx(box.height)


@pytest.mark.parametrize("value", [0.0, 3.0, np.nan])
def test_predictions_of_one_value_are_drawn(value):
    assert _is_drawn(plots.draw_predictions(np.full((3, 2), value), np.full((3, 2), value)))
