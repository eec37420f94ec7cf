"""What a run keeps of its data can be read back, whatever they are."""

import json

import numpy as np
import pytest

from perceiver_jax import config, workdir
from perceiver_jax import data as data_lib
from perceiver_jax.data import description
from perceiver_jax.data.fields import label

ONES = {"x": np.ones((4, 5, 2)), "x_mask": np.ones((4, 5)), "y": np.ones((4, 3), np.uint8)}
TARGETS = {
    "kind": np.arange(4) % 2,
    "traits": np.eye(4, 3, dtype=int),
    "weight": np.linspace(0, 1, 4),
}


def read_back(described):
    values = workdir.plain(json.loads(json.dumps(described.to_json())))
    return description.from_json(values, "data.json:")


@pytest.mark.parametrize(
    "dataset", ["mnist5k", "furniture11", "atari_clips/tiny", "imagenet2012", "audioset"]
)
def test_fields_of_a_data_set_are_read_back_as_they_were(make_data, dataset):
    data = make_data(dataset)
    described = description.Description(data.fields, {}, tuple(sorted(data.may_lack)))
    assert read_back(described) == described
    assert described.may_lack == (("audio",) if dataset == "audioset" else ())


def test_fields_of_arrays_are_read_back_without_their_augmentation():
    arrays = data_lib.from_arrays(
        ONES,
        TARGETS,
        ONES,
        TARGETS,
        batch_size=2,
        class_names={"kind": ["cat", "dog"]},
        augment={"y": lambda x, rng: x},
    )
    described = description.describe(arrays)
    found = read_back(described)
    assert list(found.fields) == list(described.fields)
    assert found.class_names == {"kind": ("cat", "dog"), "traits": ("0", "1", "2")}
    assert found.may_lack == ()
    zeros = [{k: x.zeros() for k, x in each.fields.items()} for each in (found, described)]
    for name, x in zeros[0].items():
        np.testing.assert_array_equal(x, zeros[1][name])
        assert type(found.fields[name]) is type(described.fields[name])


class Unknown(label.Label):
    """A kind that is in no table."""


def test_a_field_of_no_kind_is_refused():
    described = description.Description({"label": Unknown(3, False)}, {}, ())
    with pytest.raises(config.UserError, match="Field 'label' is a Unknown, which is no kind"):
        described.to_json()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"class_names": {"kind": ["cat"]}}, "class_names.kind has 1 names; expected a list of 2"),
        ({"class_names": {"kind": ["cat", "dog", "cow"]}}, "kind has 3 names"),
        ({"class_names": {"kind": "ab"}}, "class_names.kind is ab; expected a list of 2"),
        ({"class_names": {"kind": [0, 1]}}, r"kind is \(0, 1\); expected"),
        ({"class_names": {"x": ["cat", "dog"]}}, "class_names.x has 2 names; expected a list of 0"),
        ({"class_names": {"kinds": ["cat", "dog"]}}, "Unknown label .* 'kind'"),
        ({"may_lack": ["z"]}, "Unknown input in data.json: may_lack 'z'"),
    ],
)
def test_other_names_than_the_classes_have_are_refused(changed, message):
    arrays = data_lib.from_arrays(ONES, TARGETS, ONES, TARGETS, batch_size=2)
    values = description.describe(arrays).to_json() | changed
    with pytest.raises(config.UserError, match=message):
        description.from_json(workdir.plain(values), "data.json:")
