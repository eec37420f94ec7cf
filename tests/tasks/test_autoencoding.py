"""Video, audio and class from what was read: weighted errors, PSNR, subsets of places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from perceiver_jax import tasks
from perceiver_jax.data.fields import audio, label, text, video

FIELDS = {
    "audio": audio.Audio(22),
    "label": label.Label(3, multi_label=False),
    "text": text.Text(7),
    "video": video.Video(2, 5),
}
WEIGHTS = {"video": 0.03, "audio": 1.0, "label": 1e-4}


def build(weights=None):
    return tasks.build_task({"kind": "autoencoding", "weights": weights or WEIGHTS}, FIELDS)


def make_arrays(size=3):
    rng = np.random.RandomState(0)
    batch = {
        "video": rng.randint(256, size=(size, 2, 5, 5, 3)).astype(np.uint8),
        "audio": rng.uniform(-1, 1, (size, 22)).astype(np.float32),
        "label": np.array([0, 2, 1], np.int32)[:size],
    }
    outputs = {
        "video": batch["video"] / 255 + rng.normal(scale=0.1, size=(size, 2, 5, 5, 3)),
        "audio": batch["audio"].reshape(size, 11, 2) + rng.normal(scale=0.1, size=(size, 11, 2)),
        "label": rng.normal(size=(size, 3)),
    }
    batch = {name: jnp.asarray(x) for name, x in batch.items()}
    return {name: jnp.asarray(x, jnp.float32) for name, x in outputs.items()}, batch


def test_the_loss_is_the_weighted_sum_of_mean_absolute_errors_and_cross_entropy():
    outputs, batch = make_arrays()
    losses, _ = build().loss(outputs, batch)
    log_p = np.asarray(jax.nn.log_softmax(outputs["label"]))
    for i in range(3):
        expected = (
            0.03 * np.abs(outputs["video"][i] - batch["video"][i] / 255.0).mean()
            + np.abs(outputs["audio"][i].reshape(-1) - batch["audio"][i]).mean()
            - 1e-4 * log_p[i, batch["label"][i]]
        )
        assert losses[i] == pytest.approx(expected, rel=1e-5)


def test_psnr_and_top_1_are_those_of_numpy_and_scikit_learn():
    outputs, batch = make_arrays()
    task = build()
    rows = {name: np.asarray(x, np.float64) for name, x in task.rows(outputs, batch).items()}
    rows["label_target"] = np.asarray(batch["label"])
    got = task.metrics(rows)
    error = np.square(np.asarray(outputs["video"]) - batch["video"] / 255).reshape(3, -1).mean(1)
    assert got["video_PSNR"] == pytest.approx((10 * np.log10(1 / error)).mean(), rel=1e-5)
    error = np.square(np.asarray(outputs["audio"]).reshape(3, 22) - batch["audio"]).mean(1)
    assert got["audio_PSNR"] == pytest.approx((10 * np.log10(4 / error)).mean(), rel=1e-5)
    best = np.asarray(outputs["label"]).argmax(1)
    assert got["label_top1"] == sklearn.metrics.accuracy_score(batch["label"], best)
    assert list(got) == ["loss", "video_PSNR", "audio_PSNR", "label_top1"]
    assert (task.main_metric, task.lower_is_better) == ("video_PSNR", False)
    reported = task.loss(outputs, batch)[1]
    for name in ("video_PSNR", "audio_PSNR", "label_top1"):
        assert np.mean(reported[name]) == pytest.approx(got[name], rel=1e-5)


def test_a_subset_of_places_is_compared_with_the_same_places():
    outputs, batch = make_arrays()
    places = {"video": np.array([[0, 7, 49]] * 3), "audio": np.array([[1, 10]] * 3)}
    some = outputs | {
        name: outputs[name].reshape(3, -1, outputs[name].shape[-1])[:, x[0]]
        for name, x in places.items()
    }
    batch_of_some = batch | {f"{name}_indices": jnp.asarray(x) for name, x in places.items()}
    losses, _ = build({"video": 1.0, "audio": 1.0}).loss(some, batch_of_some)
    pixels = (batch["video"] / 255.0).reshape(3, 50, 3)[:, places["video"][0]]
    samples = batch["audio"].reshape(3, 11, 2)[:, places["audio"][0]]
    expected = np.abs(some["video"] - pixels).mean((1, 2))
    expected += np.abs(some["audio"] - samples).mean((1, 2))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_what_an_example_lacks_counts_nowhere():
    outputs, batch = make_arrays()
    task = build({"audio": 1.0})
    batch["audio_mask"] = jnp.array([True, False, True])
    losses, _ = task.loss(outputs, batch)
    assert losses[1] == 0 < losses[0]
    rows = {name: np.asarray(x, np.float64) for name, x in task.rows(outputs, batch).items()}
    got = task.metrics(rows)["audio_PSNR"]
    error = np.square(np.asarray(outputs["audio"]).reshape(3, 22) - batch["audio"]).mean(1)[[0, 2]]
    assert got == pytest.approx((10 * np.log10(4 / error)).mean(), rel=1e-5)


def test_several_classes_of_an_example_share_its_weight():
    fields = {"label": label.Label(3, multi_label=True)}
    task = tasks.build_task({"kind": "autoencoding", "weights": {"label": 1.0}}, fields)
    logits = np.array([[1.0, 2.0, 0.5]], np.float32)
    labels = np.array([[0.0, 1.0, 1.0]], np.float32)
    losses, reported = task.loss({"label": jnp.asarray(logits)}, {"label": jnp.asarray(labels)})
    log_p = np.asarray(jax.nn.log_softmax(logits))[0]
    assert losses[0] == pytest.approx(-(log_p[1] + log_p[2]) / 2, rel=1e-5)
    assert reported["label_top1"][0] == 1


def test_predictions_are_pixels_samples_and_probabilities():
    outputs, batch = make_arrays()
    outputs["video"] = outputs["video"].at[0, 0, 0, 0].set(jnp.array([-0.5, 0.5, 1.5]))
    outputs["audio"] = outputs["audio"].at[0, 0].set(jnp.array([-1.5, 0.25]))
    got = build().predict(outputs)
    assert (got["video"].dtype, got["video"].shape) == (np.uint8, batch["video"].shape)
    np.testing.assert_array_equal(got["video"][0, 0, 0, 0], [0, 128, 255])
    np.testing.assert_allclose(got["audio"][0, :2], [-1.0, 0.25])
    np.testing.assert_allclose(got["label"].sum(axis=1), 1, rtol=1e-5)


def test_evaluation_keeps_a_few_numbers_an_example():
    outputs, batch = make_arrays()
    rows = build().rows(outputs, batch)
    assert max(x.size for x in rows.values()) <= 9


def test_every_field_is_drawn_beside_what_was_made_of_it():
    outputs, batch = make_arrays()
    task = build()
    predictions = jax.device_get(task.predict(outputs))
    files = dict(task.render({}, {}, lambda count: (jax.device_get(batch), predictions)))
    assert {name: len(x.axes) for name, x in files.items()} == {"video.png": 6, "audio.png": 3}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"vidoe": 1.0}, "Unknown field in config.task.weights 'vidoe'.*mean 'video'"),
        ({"video": -1.0}, "config.task.weights.video is -1.0; expected at least 0"),
        ({"text": 1.0}, "config.task.weights has 'text', which can't be reconstructed"),
        (3.0, "config.task.weights is 3.0; expected a section"),
    ],
)
def test_a_wrong_section_says_what_is_right(weights, message):
    with pytest.raises(ValueError, match=message):
        build(weights)
