"""Texts and flow: a small model of each recipe is trained, evaluated and looked at."""

import json

import numpy as np
import pytest

from experiments.configs import flow, masked_text, multimodal
import perceiver_jax
from perceiver_jax import consistency, recipes, tasks
from perceiver_jax import data as data_lib

TEXTS = [f"this is text number {i}" for i in range(6)]


def shrink(config):
    recipes.shrink_encoder(config, num_latents=3, latent_channels=16)
    config.model.encoder.layers = ("cross_attend_0", "latent_transformer_0")
    config.model.encoder.update(num_self_attends=1, remat=False)
    config.optimizer.schedule = {"name": "constant"}
    config.train.update(steps=2, log_every=1, eval_every=2, checkpoint_every=2)
    config.eval.batch_size = 4
    return config


def of_texts():
    config = shrink(masked_text.get_config("mini"))
    config.model.encoder.update(qk_channels=None, v_channels=None)
    texts = {"text": TEXTS}
    kinds = {"text": {"kind": "masked_text", "max_length": 29}}
    return config, data_lib.from_arrays(texts, {}, texts, {}, batch_size=4, fields=kinds)


def of_pairs():
    config = shrink(flow.get_config("mini"))
    rng = np.random.default_rng(0)
    frames = {"frames": rng.integers(256, size=(4, 2, 9, 11, 3), dtype=np.uint8)}
    moved = {"flow": rng.normal(size=(4, 9, 11, 2))}
    kinds = {name: {"kind": name, "image_size": (5, 7)} for name in ("frames", "flow")}
    config.model.inputs.frames.position_encoding = recipes.fourier(2, 5, 7)
    del config.model.outputs.flow["size"]  # It has a default.
    return config, data_lib.from_arrays(frames, moved, frames, moved, batch_size=4, fields=kinds)


def of_clips():
    config = shrink(multimodal.get_config("mini"))
    rng = np.random.default_rng(0)
    clips = {
        "video": rng.integers(256, size=(4, 2, 8, 8, 3), dtype=np.uint8),
        "audio": rng.uniform(-1, 1, (4, 48)),
    }
    config.model.inputs.label.num_classes = config.model.outputs.label.size = 3
    config.model.outputs.audio.index_dims, config.model.outputs.video.index_dims = (3,), (2, 8, 8)
    kinds = {
        "audio_indices": {"kind": "indices", "num_indices": 2, "num_places": 3},
        "video_indices": {"kind": "indices", "num_indices": 5, "num_places": 128},
    }
    labels = np.array([0, 1, 2, 1])
    return config, data_lib.from_arrays(
        clips, labels, clips, labels, batch_size=4, fields=kinds
    )  # fmt: skip


RUNS = {"text": (of_texts, "filled.txt"), "flow": (of_pairs, "flow.png")}


@pytest.mark.parametrize("kind", RUNS)
def test_each_task_is_trained_and_evaluated_and_shows_what_it_predicts(kind, tmp_path):
    make, written = RUNS[kind]
    config, data = make()
    trained = perceiver_jax.train(config, tmp_path, data, quiet=True)
    evaluated = perceiver_jax.evaluate(tmp_path, data, quiet=True)
    main = perceiver_jax.load_run(tmp_path).task.main_metric
    assert np.isfinite(trained[main])
    assert evaluated[main] == pytest.approx(trained[main], rel=1e-5)
    assert (tmp_path / written).stat().st_size > 0
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss"]) for line in lines)


def test_outputs_that_do_not_fit_their_targets_are_refused_before_training(tmp_path):
    config, data = of_clips()
    config.model.outputs.video.index_dims = (2, 8, 7)
    with pytest.raises(ValueError, match="size is 3 at each of 2 x 8 x 7 places; .* 384 numbers"):
        perceiver_jax.train(config, tmp_path, data, quiet=True)
    config.model.outputs.video.index_dims = (2, 4, 16)  # As many, so that nobody could tell.
    config.model.outputs.audio.update(index_dims=(6,), size=8)
    with pytest.raises(ValueError, match="audio_indices.num_places is 3; .* has 6 places"):
        perceiver_jax.train(config, tmp_path, data, quiet=True)


def test_ids_beyond_the_embedding_are_refused(tmp_path):
    config, data = of_texts()
    config.model.inputs.text.vocab_size = 256
    with pytest.raises(ValueError, match="text.vocab_size is 256; .* ids up to 261"):
        perceiver_jax.train(config, tmp_path, data, quiet=True)


def test_an_embedding_without_a_size_has_that_of_its_kind():
    config, data = of_texts()
    del config.model.inputs.text["vocab_size"]
    consistency.check(config, data, tasks.build_task(config.task, data.fields), num_devices=1)


def test_a_label_that_is_read_has_the_classes_of_the_data(tmp_path):
    config, data = of_clips()
    config.model.inputs.label.num_classes = 2
    with pytest.raises(ValueError, match="label.num_classes is 2; arrays has 3 classes"):
        perceiver_jax.train(config, tmp_path, data, quiet=True)


def test_what_is_to_be_predicted_is_no_input_unless_evaluation_hides_it(tmp_path):
    config, data = of_clips()
    del config.model.outputs["audio"], config.model.outputs["video"]
    config.task = recipes.classes("label")
    config.model.fusion.masked_in_evaluation = ()
    with pytest.raises(ValueError, match="inputs has 'label', which config.task has to predict"):
        perceiver_jax.train(config, tmp_path, data, quiet=True)


def test_gaps_are_filled_in_a_text_alone(tmp_path):
    config, _ = of_texts()
    pictures = np.zeros((6, 8, 8, 3), np.uint8)
    given = {"text": TEXTS, "image": pictures}
    kinds = {"text": {"kind": "masked_text", "max_length": 29}}
    data = data_lib.from_arrays(given, {}, given, {}, batch_size=4, fields=kinds)
    _, config.model.inputs.image = recipes.image(8, num_bands=2)
    config.model.fusion = {"modality_channels": 4, "dropout_rates": {}}
    config.model.outputs.text.reads = "image"
    with pytest.raises(ValueError, match="reads is 'image', which is no text; .* .'text'."):
        perceiver_jax.train(config, tmp_path, data, quiet=True)
