import itertools

import ml_collections
import numpy as np
import pytest

from perceiver_jax import data
from perceiver_jax.data import fields


def test_unknown_kind_lists_the_known_and_the_nearest():
    with pytest.raises(ValueError, match="'vido'.*'audio', 'image'.*Did you mean 'video'"):
        fields.build_field("clip", kind="vido")


def test_unknown_key_lists_the_known_and_the_nearest():
    with pytest.raises(ValueError, match="key of field 'photo' 'img_size'.*mean 'image_size'"):
        fields.build_field("photo", kind="image", img_size=7)


def test_missing_key_says_what_to_set():
    with pytest.raises(ValueError, match="Set config.data.fields.clip.image_size"):
        fields.build_field("clip", kind="video", num_frames=7)


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
