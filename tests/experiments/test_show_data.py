"""`python -m experiments.show_data`."""

import dataclasses

import numpy as np
import PIL.Image
import pytest
import soundfile

from experiments import show_data
from perceiver_jax import data

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
