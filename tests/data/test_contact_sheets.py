"""Contact sheets of examples before and after augmentation."""

import dataclasses

import numpy as np
import pytest

from perceiver_jax.data import contact_sheets
from perceiver_jax.data.fields import image, text


@pytest.fixture
def pairs():
    """Two pictures, all black before and white after augmentation."""
    black = np.zeros((2, 7, 5, 1), np.uint8)
    return contact_sheets.Pairs(image.Image(5), black, black + 255, ["cat", "dog"], ["cat", "fox"])


def test_before_is_left_of_after(pairs):
    figure = contact_sheets.draw_sheet("image", pairs, "title")
    drawn = [axes.images[0].get_array() for axes in figure.findobj(match=_has_image)]
    assert [float(np.mean(picture)) for picture in drawn] == [0, 255, 0, 255]


def test_a_label_that_augmentation_changes_is_shown_in_both_forms(pairs):
    figure = contact_sheets.draw_sheet("image", pairs, "title")
    cells = np.ravel(figure.subfigs)
    assert [cell.get_suptitle() for cell in cells] == ["cat", "dog -> fox"]


def test_names_of_classes_are_no_formulas(pairs, tmp_path):
    named = dataclasses.replace(pairs, labels=[r"$\frac$", "a$x$b"], mixed_labels=["$x$"] * 2)
    contact_sheets.draw_sheet("image", named, r"$\frac$").savefig(tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").exists()


def test_unchanged_examples_are_drawn_once(pairs):
    same = contact_sheets.Pairs(pairs.field, pairs.before, pairs.before, pairs.labels, pairs.labels)
    figure = contact_sheets.draw_sheet("image", same, "title")
    assert len(figure.findobj(match=_has_image)) == 2
    assert "not augmented" in figure.get_suptitle()


def test_a_kind_without_an_own_form_is_drawn_as_lines():
    series = np.arange(42.0).reshape(1, 14, 3)
    pairs = contact_sheets.Pairs(None, series, series + 1, ["walk"], ["walk"])
    figure = contact_sheets.draw_sheet("sensors", pairs, "title")
    drawn = [line for axes in figure.subfigs[0].axes for line in axes.lines]
    np.testing.assert_array_equal(
        [line.get_ydata() for line in drawn], [*series[0].T, *series[0].T + 1]
    )


def _has_image(artist):
    return bool(getattr(artist, "images", None)) and hasattr(artist, "get_xlabel")


def test_texts_are_drawn_as_texts_with_their_gaps():
    ids = text.with_gaps(b"one[MASK]two")[None]
    pairs = contact_sheets.Pairs(None, ids, ids, ["x"], ["x"])
    figure = contact_sheets.draw_sheet("masked_text", pairs, "title")
    (axes,) = figure.subfigs[0].axes
    assert axes.texts[0].get_text() == "one_two"


def test_a_flow_is_drawn_as_arrows_to_the_right_and_down():
    flow = np.full((1, 5, 7, 2), (3.0, 1.0), np.float32)
    pairs = contact_sheets.Pairs(None, flow, flow, ["x"], ["x"])
    figure = contact_sheets.draw_sheet("flow", pairs, "title")
    (axes,) = figure.subfigs[0].axes
    arrows = axes.collections[0]
    assert (arrows.U == 3).all() and (arrows.V == 1).all() and arrows.N == 35
    assert axes.yaxis_inverted()


def test_two_frames_are_drawn_beside_each_other():
    frames = np.arange(2 * 5 * 7 * 3, dtype=np.uint8).reshape(1, 2, 5, 7, 3)
    pairs = contact_sheets.Pairs(None, frames, frames, ["x"], ["x"])
    figure = contact_sheets.draw_sheet("frames", pairs, "title")
    (axes,) = figure.subfigs[0].axes
    shown = axes.images[0].get_array()
    np.testing.assert_array_equal(shown, np.concatenate([frames[0, 0], frames[0, 1]], axis=1))
