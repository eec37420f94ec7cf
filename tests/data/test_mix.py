"""MixUp and CutMix: pictures and labels are mixed alike, whoever does it."""

import numpy as np
import pytest

from perceiver_jax.data import mix
from tests.data.test_pipeline import JITTER, take


def batch(rng, size=8, side=31):
    return {
        "image": rng.integers(256, size=(size, side, side, 3), dtype=np.uint8),
        "label": np.arange(size, dtype=np.int32) % 7,
        "mask": np.ones(size, bool),
    }


def mixed(batch, mixup_alpha=0.0, cutmix_alpha=0.0, step=3):
    return mix.mix(["image"], {"label": 7}, mixup_alpha, cutmix_alpha, 0, 1, step, batch)


def own_shares(batch, result):
    return result["label"][np.arange(len(batch["label"])), batch["label"]]


def test_mixup_is_the_weighted_mean_of_pictures_and_labels(rng):
    plain = batch(rng)
    result = mixed(plain, mixup_alpha=1.0)
    for i, own in enumerate(own_shares(plain, result)):
        pictures = plain["image"].astype(float)
        expected = own * pictures[i] + (1 - own) * pictures[i ^ 1]
        np.testing.assert_allclose(result["image"][i], expected, atol=0.51)
        label = own * np.eye(7)[plain["label"][i]] + (1 - own) * np.eye(7)[plain["label"][i ^ 1]]
        np.testing.assert_allclose(result["label"][i], label, atol=1e-6)


def test_cutmix_labels_are_the_areas_of_one_box(rng):
    plain = batch(rng)
    result = mixed(plain, cutmix_alpha=1.0)
    for i, own in enumerate(own_shares(plain, result)):
        is_own = (result["image"][i] == plain["image"][i]).all(axis=-1)
        is_other = (result["image"][i] == plain["image"][i ^ 1]).all(axis=-1)
        assert (is_own | is_other).all()
        assert own == pytest.approx(is_own.mean(), abs=1e-6)
        rows, columns = (~is_own).any(axis=1), (~is_own).any(axis=0)
        np.testing.assert_array_equal(~is_own, rows[:, None] & columns)


def test_the_box_of_cutmix_has_the_area_that_was_drawn():
    black, white = (np.full((32, 32, 3), level, np.uint8) for level in (0, 255))
    mixed_picture, own = mix.cut_mix(black, white, 0.75, np.array([0.5, 0.5]))
    assert own == 0.75
    assert mixed_picture.mean() == 255 / 4


def test_with_both_each_example_takes_one_of_them(rng):
    plain = batch(rng, size=64, side=7)
    result = mixed(plain, mixup_alpha=1.0, cutmix_alpha=1.0)
    copied = (result["image"] == plain["image"]) | (
        result["image"] == plain["image"][np.arange(64) ^ 1]
    )
    is_cutmix = copied.all(axis=(1, 2, 3))
    assert 16 < is_cutmix.sum() < 48


def test_fractions_are_of_the_beta_distribution(rng):
    plain = batch(rng, size=2, side=1)
    own = [own_shares(plain, mixed(plain, mixup_alpha=0.2, step=s))[0] for s in range(500)]
    assert np.mean(own) == pytest.approx(0.5, abs=0.06)
    assert np.var(own) == pytest.approx(1 / (4 * 1.4), abs=0.03)


def test_examples_without_weight_and_their_neighbours_stay_as_they_are(rng):
    plain = batch(rng)
    plain["mask"][2] = False
    result = mixed(plain, mixup_alpha=1.0)
    np.testing.assert_array_equal(result["image"][2:4], plain["image"][2:4])
    np.testing.assert_array_equal(result["label"][2:4], np.eye(7)[plain["label"][2:4]])
    assert (result["image"][:2] != plain["image"][:2]).any()


def test_processes_share_a_mixed_batch(make_data):
    data = make_data(fields=JITTER, batch_size=12, mixup_alpha=0.2, cutmix_alpha=1.0)
    whole = take(data.train_batches(seed=3), 2)
    shares = [take(data.train_batches(3, process, 3), 2) for process in range(3)]
    for step, expected in enumerate(whole):
        for name in expected:
            union = np.concatenate([share[step][name] for share in shares])
            np.testing.assert_array_equal(union, expected[name])


def test_mixed_batches_have_the_form_of_the_spec(make_data):
    data = make_data(fields=JITTER, mixup_alpha=0.2)
    (mixed_batch,) = take(data.train_batches(seed=0), 1)
    expected = {name: (array.shape, array.dtype) for name, array in data.zero_batch().items()}
    found = {name: (array.shape, array.dtype) for name, array in mixed_batch.items()}
    assert found == expected
    assert found["label"] == ((6, 10), np.float32)


def test_only_training_is_mixed(make_data):
    data = make_data(test_split="test[:6]", fields=JITTER, mixup_alpha=0.2)
    (test_batch,) = take(data.test_batches(6, 1))
    assert test_batch["label"].dtype == np.int32


def test_what_can_not_be_mixed_is_an_error(make_data):
    with pytest.raises(ValueError, match="Got 3 examples.*expected an even number"):
        make_data(mixup_alpha=0.2).train_batches(0, 0, 2)
    with pytest.raises(ValueError, match="input 'points' is no image"):
        make_data("furniture11", cutmix_alpha=1.0)
