import itertools

import ml_collections
import numpy as np
import pytest

from perceiver_jax import config, data
from perceiver_jax.data import fields

IMAGE = dict(kind="image", image_size=5)
VIDEO = dict(kind="video", num_frames=2, image_size=5)
MEL = dict(kind="mel", num_samples=2048)
CLOUD = dict(kind="point_cloud", num_points=5)


def build_field(**settings):
    return config.build_from_table(fields.FIELDS, settings, "config.data.fields.x")


def test_unknown_kind_lists_the_known_and_the_nearest():
    with pytest.raises(ValueError, match="'vido'.*'audio', 'flow'.*Did you mean 'video'"):
        build_field(kind="vido")


def test_unknown_key_lists_the_known_and_the_nearest():
    with pytest.raises(ValueError, match="Unknown key config.data.fields.x.img_size.*'image_size'"):
        build_field(kind="image", img_size=7)


def test_missing_key_says_what_to_set():
    with pytest.raises(ValueError, match="Missing key config.data.fields.x.image_size"):
        build_field(kind="video", num_frames=7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(IMAGE, image_size=0), "x.image_size is 0; expected at least 1"),
        (dict(IMAGE, channels=2), "x.channels is 2; expected 1 .grey. or 3"),
        (
            dict(kind="image", image_size=5, crop="none "),
            "Unknown config.data.fields.x.crop 'none ",
        ),
        (dict(IMAGE, scale=-0.1), "x.scale is -0.1; expected at least 0"),
        (dict(IMAGE, rand_augment_magnitude=11), "at least 0 and at most 10"),
        (dict(IMAGE, crop_area=(0.5, 0.2)), "the lesser one first"),
        (
            dict(kind="image", image_size=5, crop_aspect=(0, 1)),
            "x.crop_aspect is .*; expected more ",
        ),
        (
            dict(VIDEO, contrast=2),
            "x.contrast is 2; expected at l",
        ),
        (
            dict(VIDEO, frames_per_second=0),
            "expected more than 0",
        ),
        (dict(kind="audio", num_samples=0), "x.num_samples is 0; expected at least 1"),
        (dict(MEL, hop=0), "x.hop is 0; expected at least 1"),
        (
            dict(MEL, time_masks=-1),
            "x.time_masks is -1; expected at least",
        ),
        (
            dict(MEL, num_samples=2049),
            "x.num_samples is 2049, hop 1024 and window 20",
        ),
        (dict(kind="point_cloud", num_points=0), "x.num_points is 0; expected at least 1"),
        (
            dict(CLOUD, axis_scale=(0, 1)),
            "x.axis_scale is .*more than 0",
        ),
        (
            dict(CLOUD, max_dropped=1),
            "x.max_dropped is 1; .* less than 1",
        ),
        (
            dict(kind="label", num_classes=0, multi_label=False),
            "x.num_classes is 0; expected at le",
        ),
        (dict(kind="number", size=0), "x.size is 0; expected at least 1"),
    ],
)
def test_settings_out_of_range_are_refused_by_their_path(settings, message):
    with pytest.raises(config.UserError, match=message):
        build_field(**settings)


@pytest.mark.parametrize(
    "key", ["batch_size", "num_workers", "mixup_alpha", "cutmix_alpha", "max_bad_records"]
)
def test_numbers_of_a_pipeline_out_of_range_are_refused_by_their_path(make_data, key):
    with pytest.raises(config.UserError, match=f"^config.data.{key} is -1; expected at least"):
        make_data(**{key: -1})


def test_a_config_dict_builds_like_a_dict(make_data):
    settings = {"image": {"kind": "image", "image_size": 31, "crop_area": (0.3, 1.0)}}
    assert make_data(fields=settings) == make_data(fields=ml_collections.ConfigDict(settings))


@pytest.mark.parametrize("dataset", ["mnist5k", "atari_clips/tiny", "modelnet40"])
def test_fake_batches_have_the_form_of_real_ones(make_data, dataset, tmp_path):
    wanted = make_data(dataset, data_dir=str(tmp_path))
    spec = wanted.zero_batch()
    batches = list(itertools.islice(data.fake_batches(wanted, seed=3), 2))
    for batch in batches:
        assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
            name: (array.shape, array.dtype) for name, array in spec.items()
        }
    (name, *_) = wanted.fields
    assert (batches[0][name] != batches[1][name]).any()
    again = next(data.fake_batches(wanted, seed=3))
    np.testing.assert_array_equal(again[name], batches[0][name])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "config.data.fields is empty"),
        ({"fields": {"image": {"kind": "image", "image_size": 3}}}, "config.data.dataset is empty"),
    ],
)
def test_a_section_without_what_it_needs_says_so(keys, message):
    with pytest.raises(ValueError, match=message):
        data.build_data(**keys)
