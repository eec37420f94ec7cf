"""The recipe for arrays in memory: sized by the arrays."""

import jax
import numpy as np
import pytest

from experiments.configs import own_data
import perceiver_jax
from perceiver_jax import config as config_lib
from perceiver_jax import consistency, data, recipes, tasks


def in_memory(inputs, targets=None, **keys):
    targets = np.arange(6) % 3 if targets is None else targets
    return data.from_arrays(inputs, targets, inputs, targets, batch_size=2, **keys)


def array(*shape):
    return np.random.default_rng(0).normal(3, 5, (6, *shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "patch_size", "grid"),
    [
        ((24, 1), (1,), (24,)),
        ((100, 6), (2,), (50,)),
        ((251, 1), (4,), (63,)),
        ((1460, 1), (23,), (64,)),
        ((129, 1), (3,), (43,)),  # Not a patch of 3 with most of the last one filled up.
        ((28, 28, 1), (2, 2), (14, 14)),
        ((5, 31, 32, 2), (3, 3, 3), (2, 11, 11)),
    ],
)
def test_patches_are_as_small_as_few_inputs_allow(shape, patch_size, grid):
    _, keys = recipes.array(shape, mean=(0,) * shape[-1], std=(1,) * shape[-1])
    assert keys["patch_size"] == patch_size
    assert keys["position_encoding"]["max_resolution"] == grid


def test_series_of_unequal_length_are_normalised_by_what_there_is():
    x, real = array(29, 3), np.arange(29) < np.arange(7, 13)[:, None]
    x[..., 2] = 4
    x[~real] = np.nan
    arrays = in_memory({"series": x, "series_mask": real}, {"kind": np.arange(6) % 3})
    config = own_data.for_arrays(arrays)
    keys = config.model.inputs.series
    np.testing.assert_allclose(keys.mean, np.nanmean(x, axis=(0, 1)), rtol=1e-3)
    np.testing.assert_allclose(keys.std[:2], np.nanstd(x, axis=(0, 1))[:2], rtol=1e-3)
    assert keys.std[2] == 1 and keys.mask_channels and set(config.model.inputs) == {"series"}
    assert config.model.outputs.to_dict() == {"kind": {"kind": "mean_pool", "size": 3}}
    assert config.task.target == "kind"


def test_several_inputs_and_several_labels_an_example_make_a_model():
    inputs = {"series": array(11, 2), "image": array(5, 7, 3), "points": array(13, 3)}
    arrays = in_memory(inputs, np.eye(6)[:, :4])
    config = own_data.for_arrays(arrays, sets=["points"])
    assert config.task.loss == "sigmoid"
    assert "position_encoding" not in config.model.inputs.points
    assert config.model.inputs.points.num_channels == 64
    model = perceiver_jax.build_model(config.model)
    consistency.check(config, arrays, tasks.build_task(config.task, arrays.fields), 1)
    batch = arrays.zero_batch()
    params = jax.eval_shape(model.init, jax.random.key(0), batch)
    outputs = jax.eval_shape(lambda p: model.apply(p, None, batch), params)
    assert outputs["label"].shape == (2, 4)


def test_single_numbers_of_a_set_reach_the_outputs():
    config = own_data.for_arrays(in_memory({"x": array(5, 1)}), sets=["x"])
    model = perceiver_jax.build_model(config.model)
    params = model.init(jax.random.key(0), {"x": array(5, 1)})
    out, other = (model.latents(params, {"x": array(5, 1) * i}, pooled=True) for i in (1, 2))
    assert np.abs(out - other).max() > 1e-3


def test_small_sets_are_seen_often_and_large_ones_thirty_times():
    small = own_data.for_arrays(in_memory({"x": array(11, 2)}))
    assert small.train.steps == own_data.MIN_STEPS
    many = np.zeros((9000, 5, 1), np.uint8)
    arrays = data.from_arrays({"x": many}, many[:, 0, 0] % 2, {"x": many[:7]}, [0] * 7,
                              batch_size=16)  # fmt: skip
    large = own_data.for_arrays(arrays)
    assert large.train.steps == 30 * 9000 // 16


@pytest.mark.parametrize(
    ("inputs", "targets", "keys", "message"),
    [
        ((11,), None, {}, r"'x' as float32 \[6, 11\]; expected numbers \[E, ..., C\].*None"),
        ((5, 1), {"y": array()}, {}, r"with the targets \['y'\]; expected one label"),
        ((5, 1), {"y": np.arange(6), "z": np.arange(6)}, {}, r"\['y', 'z'\]; expected one label"),
        ((5, 1), None, {"sets": ["xs"]}, "Unknown set 'xs'; expected one of .*'x'"),
    ],
)
def test_arrays_that_the_recipe_is_not_for_are_refused(inputs, targets, keys, message):
    arrays = in_memory({"x": array(*inputs)}, targets)
    with pytest.raises(config_lib.UserError, match=message):
        own_data.for_arrays(arrays, **keys)
