import collections
import json
import pathlib
import pickle

import haiku as hk
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from perceiver_jax import config
from perceiver_jax.pretrained import files

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
W = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.arange(3, dtype=np.float32)


@pytest.mark.parametrize("name", ["zip.bin", "legacy.bin"])
def test_pytorchs_files_are_read_without_pytorch(name):
    # Of torch.save: views of one storage, a parameter, three floating types, metadata.
    read = files.read(FIXTURES / name).tensors
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    expected = {
        "whole": whole,
        "part": whole[1:3, ::2],
        "turned": whole.T,
        "half": np.arange(5, dtype=np.float16),
        "brain": np.arange(5).astype(ml_dtypes.bfloat16),
        "count": np.array(7),
        "parameter": np.arange(3, dtype=np.float32),
        "empty": np.zeros((0, 3), np.float32),
    }
    assert read.keys() == expected.keys()
    for key, x in expected.items():
        assert read[key].dtype == x.dtype
        np.testing.assert_array_equal(read[key], x)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "mapping", [dict, hk.data_structures.to_immutable_dict, collections.OrderedDict]
)
@pytest.mark.parametrize("array", [np.array, np.asfortranarray, jnp.asarray])
def test_pickles_of_haiku_parameters_are_read(protocol, mapping, array, tmp_path):
    params = mapping({"embed": {"w": array(W)}, "net/~/norm": {"b": array(B)}})
    path = tmp_path / "weights.pickle"
    path.write_bytes(pickle.dumps(params, protocol=protocol))
    read = files.read(path)
    assert read.is_pickle
    assert read.tensors.keys() == {"embed/w", "net/~/norm/b"}
    np.testing.assert_array_equal(read.tensors["embed/w"], W)


def test_parameters_and_state_of_a_pickle_are_read_together(tmp_path):
    path = tmp_path / "weights.pystate"
    path.write_bytes(
        pickle.dumps({"params": {"a": {"w": W}}, "state": {"a/~/ema": {"average": B}}})
    )
    assert files.read(path).tensors.keys() == {"a/w", "a/~/ema/average"}


def test_safetensors_in_parts_are_read_as_one(tmp_path):
    safetensors.numpy.save_file({"w": W}, tmp_path / "model-1.safetensors")
    safetensors.numpy.save_file({"b": B}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"w": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    read = files.read(files.find(tmp_path)).tensors
    np.testing.assert_array_equal(read["w"], W)
    np.testing.assert_array_equal(read["b"], B)


def test_brain_floats_in_safetensors_are_read(tmp_path):
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    data = np.array([1.0, -2.0]).astype(ml_dtypes.bfloat16).tobytes()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    np.testing.assert_array_equal(files.read(path).tensors["w"].astype(np.float32), [1.0, -2.0])


def test_a_mark_of_byte_order_is_no_damage(tmp_path):
    (tmp_path / "config.json").write_text('{"a": 1}', encoding="utf-8-sig")
    assert files.read_json(tmp_path / "config.json") == {"a": 1}


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin", "config.json"])
def test_what_the_system_does_not_open_is_refused_with_its_reason(name, tmp_path):
    (tmp_path / name).mkdir()  # Permissions are nothing to root, as which tests may run.
    read = files.read_json if name.endswith("json") else files.read
    with pytest.raises(config.UserError, match="can't be read: Is a directory; expected a file"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"w": "../w.safetensors"}}, "expected files beside it"),
        ({"weight_map": ["w"]}, "expected files beside it"),
        ({"weight_map": {"w": ""}}, "expected files beside it"),
        ({"weight_map": {"w": ".."}}, "expected files beside it"),
        ({"weight_map": {"w": "model.safetensors.index.json"}}, "expected files beside it"),
        ({"weight_map": {"b": "w.safetensors"}}, "differ in b, w"),
        ({"weight_map": {"w": "w.safetensors", "b": "b.safetensors"}}, "There is no"),
        ([], "expected a JSON object"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(index, message, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for place in (tmp_path, folder):
        safetensors.numpy.save_file({"w": W}, place / "w.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(config.UserError, match=message):
        files.read(files.find(folder))
