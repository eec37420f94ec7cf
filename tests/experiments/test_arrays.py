"""Arrays in memory are trained on in a few lines: scikit-learn's digits."""

import numpy as np
import pytest
import sklearn.datasets

from experiments import evaluate
from experiments.configs import imagenet
import perceiver_jax
from perceiver_jax import data as data_lib

pytestmark = pytest.mark.xdist_group("train")


@pytest.fixture(scope="module")
def digits():
    digits = sklearn.datasets.load_digits()
    images, labels = digits.images[..., None] / 8 - 1, digits.target  # [1797, 8, 8, 1]
    return data_lib.from_arrays(
        {"pixels": images[:1500]},
        labels[:1500],
        {"pixels": images[1500:]},
        labels[1500:],
        batch_size=64,
    )


@pytest.fixture(scope="module")
def config():
    config = imagenet.get_config("mini")
    config.experiment = "digits"
    position_encoding = {"kind": "fourier", "num_bands": 4, "max_resolution": (8, 8)}
    config.model.inputs = {"pixels": {"kind": "array", "position_encoding": position_encoding}}
    layers = ("cross_attend_0", "latent_transformer_0")
    config.model.encoder.update(layers=layers, num_self_attends=1, num_latents=8)
    config.model.encoder.latent_channels = 32
    config.optimizer.update(learning_rate=5e-3, schedule={"name": "cosine", "warmup_steps": 5})
    config.train.update(steps=60, log_every=60, eval_every=60, checkpoint_every=60)
    config.eval.batch_size = 100
    return config


@pytest.fixture(scope="module")
def run(digits, config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("digits")
    return workdir, perceiver_jax.train(config, workdir, data=digits)


def test_the_digits_are_learned(run):
    _, metrics = run
    assert metrics["top1"] > 0.4


@pytest.mark.parametrize("flags", [[], ["--baseline"]])
def test_the_workdir_says_which_arrays_they_were(run, flags, capsys):
    workdir, _ = run
    with pytest.raises(SystemExit):
        evaluate.main([f"--workdir={workdir}", *flags])
    assert "'pixels': 'float32 [1500, 8, 8, 1]'" in capsys.readouterr().err


def test_the_arrays_are_evaluated_as_in_training(run, digits):
    workdir, metrics = run
    again = perceiver_jax.evaluate(workdir, digits)
    assert again == pytest.approx(metrics, rel=1e-6)


def test_data_on_disk_belong_in_the_config(config, tmp_path):
    named = data_lib.build_data(**config.data)
    with pytest.raises(ValueError, match="'mnist5k', which is on disk.*in config.data"):
        perceiver_jax.train(config, tmp_path, data=named)


def test_classes_that_do_not_fit_are_explained(config, tmp_path):
    ones = np.ones((8, 8, 8, 1))
    two = data_lib.from_arrays(
        {"pixels": ones}, [0, 1] * 4, {"pixels": ones}, [0] * 8, batch_size=4
    )
    with pytest.raises(ValueError, match="outputs.label.size is 10; arrays has 2 classes"):
        perceiver_jax.train(config, tmp_path, data=two)


@pytest.mark.parametrize("names", [("pixels", "pixel_mask"), ("picture",)])
def test_inputs_that_the_model_does_not_read_are_refused(config, tmp_path, names):
    split = {name: np.ones((10, 8, 8, 1)) for name in names}
    labels = np.arange(10)
    other = data_lib.from_arrays(split, labels, split, labels, batch_size=4)
    with pytest.raises(ValueError, match=r"inputs are \['pixels'\]; arrays is read as \['pi"):
        perceiver_jax.train(config, tmp_path, data=other)
