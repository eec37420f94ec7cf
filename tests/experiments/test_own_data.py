"""The recipe for one's own data: sized by what was prepared."""

import dataclasses

import jax
import pytest

from experiments import cli, train
from experiments.configs import own_data
import perceiver_jax
from perceiver_jax import config as config_lib
from perceiver_jax import config_file, consistency, data, sizing, tasks

RECIPE = "experiments/configs/own_data.py"


@pytest.fixture(scope="module")
def digits():
    return config_file.load_config(f"{RECIPE}:mnist5k,minutes=2")


def test_grey_digits_stay_grey_and_are_not_mirrored(digits):
    image = digits.data.fields.image
    assert (image.image_size, image.channels, image.flip) == (28, 1, False)
    assert digits.model.inputs.image.mean == pytest.approx((0.13,), abs=0.01)
    assert digits.model.inputs.image.position_encoding.max_resolution == (7, 7)
    assert (digits.model.outputs.label.size, digits.task.loss) == (10, "softmax")


@pytest.mark.parametrize("name", ["docstrings", "furniture11", "mnist5k", "atari_clips/tiny"])
def test_what_is_chosen_fits_data_task_and_model(name):
    config = config_file.load_config(f"{RECIPE}:{name},minutes=1")
    made = data.build_data(**config.data)
    task = tasks.build_task(config.task, made.fields)
    consistency.check(config, made, task, num_devices=1)  # As before each training.
    model = perceiver_jax.build_model(config.model)
    batch = dataclasses.replace(made, batch_size=2).zero_batch()
    params = jax.eval_shape(model.init, jax.random.key(0), batch)
    out = jax.eval_shape(lambda p, b: model.apply(p, None, b)["label"], params, batch)
    assert out.shape == (2, config.model.outputs.label.size)


def test_time_decides_how_long_and_an_epoch_how_short(digits):
    keys = {"num_train": 4_000, "flops": 10**8, "cores": 2}
    steps = {}
    for minutes in (0.01, 10, 20, 1000):
        config = digits.copy_and_resolve_references()
        sizing.choose_steps(config, minutes=minutes, **keys)
        steps[minutes] = config.train.steps
        assert config.optimizer.schedule.warmup_steps < config.train.steps / 10
    assert steps[20] == pytest.approx(2 * steps[10], rel=0.1)
    assert steps[0.01] * config.data.batch_size / 4_000 == pytest.approx(5, rel=0.1)
    assert steps[1000] * config.data.batch_size / 4_000 == pytest.approx(120, rel=0.1)


def test_sound_and_pictures_of_clips_have_the_same_window():
    config = config_file.load_config(f"{RECIPE}:atari_clips/tiny,validation")
    audio, video = config.data.fields.audio, config.data.fields.video
    seconds = video.num_frames / video.frames_per_second
    assert audio.num_samples / audio.sample_rate == pytest.approx(seconds, rel=0.02)
    assert config.task.loss == "sigmoid"  # Of a set whose examples may have several labels.
    assert config.model.fusion.dropout_rates.to_dict() == {"video": 0.3}
    assert config.data.train_split == "train[:85%]"


def test_rare_classes_count_for_more_if_asked(capsys):
    plain = own_data.get_config("furniture11")
    assert "The classes are unbalanced" not in capsys.readouterr().out  # 14 to 42.
    weights = own_data.get_config("furniture11,balanced").task.class_weights
    assert plain.task.class_weights == () and len(weights) == 11
    assert max(weights) / min(weights) == pytest.approx(42 / 14, rel=1e-3)
    with pytest.raises(config_lib.UserError, match=r"Classes \[1\], counted from 0, have no"):
        sizing.balance((3, 0))


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("", "needs the name of a prepared set"),
        ("mnist5k,minutes=3", "'minutes=3' is not possible; expected minutes=1 or minutes=2"),
        ("mnist5k,validate", "Did you mean 'validation'"),
        ("nowhere,data_dir=/no/such", "looked for in /no/such"),
    ],
)
def test_a_wrong_argument_says_what_is_right(arg, message):
    with pytest.raises(config_lib.UserError, match=message):
        own_data.get_config(arg)


def test_a_baseline_is_for_one_process(capsys):
    flags = ["--distributed", "--baseline", f"--config={RECIPE}:mnist5k"]
    with pytest.raises(SystemExit) as ended:
        train.main(flags)
    assert ended.value.code == 2
    assert "--baseline is for one process" in capsys.readouterr().err
    assert cli.compare(None, {}) is None
