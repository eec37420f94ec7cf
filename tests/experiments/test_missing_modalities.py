"""Clips without sound or without picture, from their files to training and evaluation."""

import json

import jax
import numpy as np
import pytest

from experiments import prepare_data, train
from experiments.configs import audioset
import perceiver_jax
from perceiver_jax import config_file
from perceiver_jax import data as data_lib
from tests.data import media

pytestmark = pytest.mark.xdist_group("train")
# One cross-attend and few inputs: quick to compile.
TINY = (
    "--config.model.encoder.layers=('cross_attend_0',)",
    "--config.model.encoder.streaming=False",
    "--config.model.encoder.num_latents=5",
    "--config.model.encoder.latent_channels=24",
    "--config.data.fields.video.image_size=16",
    "--config.model.inputs.video.position_encoding.max_resolution=(8,2,2)",
    "--config.model.outputs.label.size=2",
    "--config.task.loss=softmax",
    "--config.data.dataset=films",
    "--config.optimizer.schedule.warmup_steps=1",
    "--config.data.batch_size=4",
    "--config.eval.batch_size=4",
    "--config.eval.num_windows=2",
)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Where a data set is of clips with both, with sound alone, and with picture alone."""
    folder = tmp_path_factory.mktemp("films")
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            clips = folder / "films" / split / label
            media.write_clip(clips / "both.mp4", seconds=1.4)
            media.write_clip(clips / "sound.wav", seconds=1.4)
            media.write_clip(clips / "picture.mp4", seconds=1.4, sound=False)
    prepare_data.main(["video_folder", f"--source={folder / 'films'}", f"--data_dir={folder}"])
    return folder


def make_config(films, *overrides):
    config = audioset.get_config("mini")
    for flag in (*TINY, f"--config.data.data_dir={films}", *overrides):
        key, _, text = flag.removeprefix("--config.").partition("=")
        config_file.override(config, key, text)
    return config


@pytest.fixture(scope="module")
def batch(films):
    """The test split: its six clips, and two of padding."""
    config = make_config(films, "--config.eval.batch_size=8", "--config.eval.num_windows=1")
    data = data_lib.build_data(**config.data)
    (batch,) = data.test_batches(**config.eval)
    return data, config, batch


def test_masks_say_what_each_clip_has(batch):
    data, _, batch = batch
    kinds = np.stack([batch["audio_mask"], batch["video_mask"]], axis=1)
    assert (
        sorted(kinds[:6].tolist()) == [[False, True]] * 2 + [[True, False]] * 2 + [[True] * 2] * 2
    )
    assert not kinds[6:].any()
    assert not batch["video"][~batch["video_mask"]].any()
    assert not batch["audio"][~batch["audio_mask"]].any()
    spec = data.zero_batch()
    assert {"audio_mask", "video_mask"} <= spec.keys() == batch.keys()
    assert spec["audio_mask"].dtype == batch["audio_mask"].dtype == bool


def test_logits_of_a_clip_do_not_depend_on_an_input_that_it_lacks(batch):
    _, config, batch = batch
    model = perceiver_jax.build_model(config.model)
    inputs = {name: batch[name] for name in ("audio", "video", "audio_mask", "video_mask")}
    apply = jax.jit(model.apply)
    shapes = jax.eval_shape(model.init, jax.random.key(0), inputs)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: 0.1 * rng.normal(size=x.shape).astype(x.dtype), shapes)
    before = np.asarray(apply(params, None, inputs)["label"])
    noise = rng.integers(256, size=inputs["video"].shape, dtype=np.uint8)
    after = np.asarray(apply(params, None, inputs | {"video": noise})["label"])
    changed = (before != after).any(axis=1)
    np.testing.assert_array_equal(changed, inputs["video_mask"])
    noise = rng.normal(size=inputs["audio"].shape).astype(np.float32)
    after = np.asarray(apply(params, None, inputs | {"audio": noise})["label"])
    np.testing.assert_array_equal((before != after).any(axis=1), inputs["audio_mask"])
    assert np.isfinite(before).all()


def test_clips_that_lack_all_inputs_of_a_model_do_not_count(films):
    config = make_config(films)
    del config.data.fields["video"]
    data = data_lib.build_data(**config.data)
    for batches in (data.test_batches(6, 1), data.train_batches(0)):
        batch = next(batches)
        np.testing.assert_array_equal(batch["mask"], batch["audio_mask"])


def test_such_clips_are_trained_on_and_evaluated(films, tmp_path):
    command = ["--config=experiments/configs/audioset.py:mini", f"--workdir={tmp_path}", *TINY]
    intervals = [f"--config.train.{name}_every=2" for name in ("log", "eval", "checkpoint")]
    command += [f"--config.data.data_dir={films}", "--config.train.steps=2", *intervals]
    train.main(command)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert (lines[-1]["split"], lines[-1]["examples"], lines[-1]["windows"]) == ("test", 6, 12)
    assert all(np.isfinite(line["loss"]) for line in lines)
