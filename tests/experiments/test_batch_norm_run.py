"""A model with batch norm is trained, kept and evaluated as any other."""

import numpy as np
import pytest

from experiments.configs import imagenet
import perceiver_jax
from perceiver_jax import config_file
from perceiver_jax import data as data_lib
from tests.experiments import tiny

pytestmark = pytest.mark.xdist_group("train")
SIDE = 12


def make_data():
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(16, SIDE, SIDE, 3)).astype(np.uint8)
    labels = np.arange(16) % 3
    return data_lib.from_arrays({"image": images}, labels, {"image": images}, labels, batch_size=8)


def test_moving_averages_are_kept_with_the_parameters(tmp_path):
    config = imagenet.get_config("mini")
    flags = (*tiny.MODEL, "--config.model.outputs.label.size=3", "--config.eval.batch_size=8")
    for flag in (*flags, "--config.train.steps=3", "--config.optimizer.schedule.warmup_steps=0"):
        config_file.override(config, *flag.removeprefix("--config.").split("=", 1))
    with config.unlocked():
        config.model.inputs.image.stem = {"kind": "conv", "num_channels": 4}
        for key in ("mean", "std"):
            config.model.inputs.image[key] = (0.5,) * 3
    perceiver_jax.train(config, tmp_path, data=make_data(), quiet=True)
    run = perceiver_jax.load_run(tmp_path)
    norm = run.params["image/stem/batch_norm"]
    # Pixels of noise have a mean of about 0 and a variance of about 1/3, and channels others.
    assert np.ptp(norm["mean"]) > 1e-4 and np.ptp(norm["variance"]) > 1e-3
    assert np.all(norm["variance"] < 1)
    count = perceiver_jax.param_count(run.params)
    assert count == sum(np.size(x) for m in run.params.values() for x in m.values()) - 2 * 4
