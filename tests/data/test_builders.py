import collections
import importlib.util
import io

import numpy as np
import PIL.Image
import pytest
import soundfile

from perceiver_jax.data import datasets, sources
from perceiver_jax.data.builders import atari_clips, furniture11
from perceiver_jax.data.builders.atari_clips import play


def read(name, split, *features):
    builder = datasets.prepared_builder(name, "")
    records = sources.TfdsRecords(str(builder.data_dir), split, features)
    return [records[i] for i in range(len(records))]


def test_mnist5k_has_4000_and_1000_digits_as_many_of_each_class():
    for split, size in {"train": 400, "test": 100}.items():
        counts = collections.Counter(
            example["label"] for example in read("mnist5k", split, "label")
        )
        assert counts == dict.fromkeys(range(10), size)


def test_mnist5k_shows_digits():
    examples = read("mnist5k", "test", "image", "label")
    pixels = np.stack([np.asarray(PIL.Image.open(io.BytesIO(e["image"]))) for e in examples])
    labels = np.array([e["label"] for e in examples])
    means = np.stack([pixels[labels == digit].mean(axis=0) for digit in range(10)])
    nearest = ((pixels[:, None] - means) ** 2).sum(axis=(2, 3)).argmin(axis=1)
    assert (nearest == labels).mean() > 0.75


def test_furniture11_has_318_and_73_clouds_every_fifth_of_a_class_in_test():
    sizes = {}
    for split in ("train", "test"):
        labels = [example["label"] for example in read("furniture11", split, "label")]
        sizes[split] = np.bincount(labels, minlength=11)
    assert (sizes["train"].sum(), sizes["test"].sum()) == (318, 73)
    np.testing.assert_array_equal(sizes["test"], (sizes["train"] + sizes["test"]) // 5)


def test_furniture11_fills_the_cube_and_keeps_names_and_licences():
    examples = read("furniture11", "test", "points", "creator", "license", "name")
    for example in examples:
        assert example["points"].shape == (1_024, 3)
        assert 0.8 < np.abs(example["points"]).max() <= 1
        assert example["creator"] and example["name"]
        assert example["license"].startswith(b"CC")


def test_furniture11_class_names_are_those_of_its_file():
    with np.load(furniture11._PATH) as arrays:
        assert tuple(arrays["classes"]) == furniture11.CLASSES


@pytest.fixture(scope="module")
def clips():
    features = ("clip_id", "video", "audio", "labels")
    return {split: read("atari_clips/tiny", split, *features) for split in ("train", "test")}


def test_atari_clips_have_the_planned_number(clips):
    assert {split: len(examples) for split, examples in clips.items()} == atari_clips.TINY.sizes
    assert atari_clips.FULL.sizes == {"train": 640, "test": 160}


def test_atari_clips_are_labelled_with_their_game(clips):
    for example in clips["train"]:
        (label,) = example["labels"]
        assert example["clip_id"].decode().startswith(atari_clips.GAMES[label])


def test_atari_seeds_are_never_shared(clips):
    episodes = {}
    for split, examples in clips.items():
        episodes[split] = {e["clip_id"].decode().rsplit("_", 2)[1] for e in examples}
    assert not episodes["train"] & episodes["test"]
    builder = atari_clips.AtariClips(config="full")
    seeds = [seed for split in ("train", "test") for _, seed in builder._episodes(split)]
    assert len(set(seeds)) == len(seeds) == 16 * 10


def test_atari_clips_last_4_s_in_picture_and_sound(clips):
    for example in clips["test"]:
        sound, rate = soundfile.read(io.BytesIO(example["audio"]))
        assert len(example["video"]) == 4 * 25
        assert rate == 48_000
        assert sound.shape == (4 * 48_000,)


def test_atari_clips_move_and_sound(clips):
    for example in clips["test"]:
        first, last = (
            np.asarray(PIL.Image.open(io.BytesIO(example["video"][i])), float) for i in (0, -1)
        )
        assert first.std() > 5
        assert np.abs(first - last).mean() > 0.5
    assert any(soundfile.read(io.BytesIO(e["audio"]))[0].std() > 0.01 for e in clips["test"])


def test_an_episode_is_the_same_every_time():
    first, second, other = (play.episode(("alien", seed, 1)) for seed in (3, 3, 5))
    assert first == second
    assert first != other


def test_atari_frames_and_sound_are_in_step():
    shown = sorted(play._SHOWN_TICKS)
    times = np.array(shown) / 60
    assert np.abs(times - np.arange(100) / 25).max() < 1 / 60


def test_missing_emulator_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install perceiver-haiku\[atari\]"):
        datasets.prepared_builder("atari_clips/tiny", str(tmp_path))
