"""Small configs of each data set, and encoded clips whose content tells the time."""

import io

import numpy as np
import PIL.Image
import pytest
import soundfile

FIELDS = {
    "mnist5k": {"image": {"kind": "image", "image_size": 28, "channels": 1, "crop": "none"}},
    "furniture11": {"points": {"kind": "point_cloud", "num_points": 101}},
    "atari_clips/tiny": {
        "video": {"kind": "video", "num_frames": 7, "image_size": 23},
        "audio": {"kind": "audio", "num_samples": 13_440},  # 7 frames at 25 a second.
    },
    "imagenet2012": {"image": {"kind": "image", "image_size": 31}},
    "audioset": {"audio": {"kind": "mel", "num_samples": 61_440}},
    "modelnet40": {"points": {"kind": "point_cloud", "num_points": 101}},
}


@pytest.fixture
def make_data():
    from perceiver_jax import data  # Not before tests/conftest.py has named a place for data.

    def make(dataset="mnist5k", **changes):
        settings = {
            "dataset": dataset,
            "data_dir": "",
            "train_split": "train",
            "test_split": "test",
            "batch_size": 6,
            "num_workers": 0,
            "feature_names": "",
            "max_bad_records": 0,
            "mixup_alpha": 0.0,
            "cutmix_alpha": 0.0,
            "fields": FIELDS.get(dataset),
        }
        settings |= changes
        settings["fields"] = {**settings["fields"], "label": {"kind": "label"}}
        return data.build_data(**settings)

    return make


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def clock_video():
    """3 s at 25 frames a second: frame i is grey, of level i."""
    return [encode_picture(np.full((29, 37, 3), i, np.uint8)) for i in range(75)]


@pytest.fixture(scope="session")
def clock_audio():
    """3 s at 48 kHz: the sample at t seconds is t / 3."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.arange(144_000) / 144_000, 48_000, format="FLAC")
    return buffer.getvalue()


def encode_picture(pixels):
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()
