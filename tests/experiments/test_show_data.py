"""`python -m experiments.show_data`."""

import dataclasses

import numpy as np
import PIL.Image
import pytest
import soundfile

from experiments import contact_sheets, show_data
from perceiver_jax import data
from perceiver_jax.data.fields import image

AUDIOSET = "--config=experiments/configs/audioset.py:mini"
DIGITS = "--config=experiments/configs/imagenet.py:mini"
pytestmark = pytest.mark.xdist_group("show_data")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Of two clips of pictures and mel spectrograms."""
    out = tmp_path_factory.mktemp("shown")
    tiny = ["--config.data.dataset=atari_clips/tiny", "--config.model.outputs.label.size=16"]
    show_data.main([f"{AUDIOSET},av_mel", *tiny, f"--out={out}", "--num=2"])
    return out


@pytest.fixture
def pairs():
    """Two pictures, all black before and white after augmentation."""
    black = np.zeros((2, 7, 5, 1), np.uint8)
    return contact_sheets.Pairs(image.Image(5), black, black + 255, ["cat", "dog"], ["cat", "fox"])


def test_each_field_has_a_sheet(shown):
    for name in ("audio", "video"):
        with PIL.Image.open(shown / f"{name}.png") as sheet:
            assert min(sheet.size) > 300


def test_the_sound_of_each_window_lies_beside(shown):
    files = sorted(shown.glob("audio_*.wav"))
    sounds = [soundfile.read(file) for file in files]
    assert [(len(samples), rate) for samples, rate in sounds] == [(61_440, 48_000)] * 2


def test_what_was_written_is_said(capsys, tmp_path):
    show_data.main([DIGITS, f"--out={tmp_path}", "--num=1"])
    said = capsys.readouterr().out
    assert said == f"{tmp_path}/image.png: 1 examples of 'image' (image), before and after " + (
        "augmentation\n"
    )


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


def test_weights_of_mixed_labels_are_named():
    texts = show_data.label_texts(np.array([[1, 0, 1], [0.25, 0.75, 0], [0, 0, 0]]), "abc")
    assert texts == ["a; c", "0.25 a; 0.75 b", "no label"]


def test_targets_are_written_whatever_they_are_and_may_be_none():
    x = {"x": np.ones((3, 5))}
    targets = {"animal": np.arange(3), "grams": np.array([1.0, 23456.0, 0.25])}
    names = {"animal": ["ant", "bee", "cat"]}
    made = data.from_arrays(x, targets, x, targets, batch_size=3, class_names=names)
    batch = made.read_train([2, 1], 0, augmented=False)
    assert show_data.target_texts(made, batch) == ["cat; grams 0.25", "bee; grams 2.346e+04"]
    without = dataclasses.replace(made, fields=made.inputs)
    assert show_data.target_texts(without, batch) == ["", ""]


@pytest.mark.parametrize("num", [0, 65])
def test_a_number_that_does_not_fit_ends_with_code_2(capsys, tmp_path, num):
    with pytest.raises(SystemExit) as exit_:
        show_data.main([DIGITS, f"--out={tmp_path}", f"--num={num}"])
    assert exit_.value.code == 2
    assert f"Got --num={num}; expected 1 to 64." in capsys.readouterr().err


def _has_image(artist):
    return bool(getattr(artist, "images", None)) and hasattr(artist, "get_xlabel")
