"""What is said of a prepared set, which a recipe is sized by."""

import io
import math

import numpy as np
import PIL.Image
import pytest
import soundfile
import soxr

from perceiver_jax import config
from perceiver_jax.data import measure


def png(array):
    buffer = io.BytesIO()
    PIL.Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def flac(samples, rate):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC")
    return buffer.getvalue()


def test_an_embedded_set_is_counted_by_class():
    found = measure.measure("furniture11")
    assert (found.num_train, sum(found.class_counts), len(found.class_counts)) == (318, 318, 11)
    assert found.inputs == {"points": {"num_points": 1024}}
    assert not found.multi_label


def test_pictures_are_grey_only_if_none_has_colours():
    grey = np.full((48, 31), 51, np.uint8)
    found = measure._look("image", [png(grey), png(np.stack([grey] * 3, -1))])
    assert found == {"side": 31, "channels": 1, "mean": (0.2,), "std": (0.01,)}
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 0] = 255
    found = measure._look("image", [png(grey), png(grey), png(red)])
    assert (found["side"], found["channels"]) == (31, 3)
    assert found["mean"] == pytest.approx((1.4 / 3, 0.4 / 3, 0.4 / 3), abs=1e-4)
    assert found["std"][0] == pytest.approx(
        math.sqrt((2 * 0.04 + 1) / 3 - (1.4 / 3) ** 2), abs=1e-4
    )


@pytest.mark.parametrize(
    ("recorded", "found"), [(8_000, 8_000), (16_000, 16_000), (48_000, 48_000)]
)
def test_sounds_that_were_stored_at_a_higher_rate_are_known_by_their_spectrum(recorded, found):
    noise = np.random.default_rng(0).normal(size=recorded).astype(np.float32) / 10
    stored = flac(soxr.resample(noise, recorded, 48_000), 48_000)
    assert measure._look("audio", [stored]) == {"seconds": 1.0, "sample_rate": recorded}


def test_what_is_not_there_or_damaged_is_passed_over():
    assert measure._look("audio", [b"", b"fLaC", b"not a sound"]) == {}
    sound = flac(np.ones(4_000, np.float32) / 2, 8_000)
    assert measure._look("audio", [b"", sound])["seconds"] == 0.5


def test_a_few_long_texts_do_not_count():
    texts = [b"abc"] * 39 + [b"x" * 1000]
    assert measure._look("text", texts) == {"length": 3}


def test_validation_leaves_the_test_split_alone():
    assert measure.choose_splits("mnist5k") == ("train", "test")
    assert measure.choose_splits("mnist5k", validation=True) == ("train[:85%]", "train[85%:]")
    assert measure.measure("mnist5k", split="train[85%:]").num_train == 600
    # A set's own validation split is one.
    assert measure.choose_splits("glue/sst2", validation=True) == ("train", "validation")
    assert measure.choose_splits("glue/sst2") == ("train", "validation")
    with pytest.raises(config.UserError, match="Did you mean 'mnist5k'"):
        measure.choose_splits("mnist5")
