"""What users type, and what they are told when they mistype it."""

import argparse

import numpy as np
import pytest

from experiments import cli
from perceiver_jax import config as config_lib
from perceiver_jax import data as data_lib
from perceiver_jax.data.fields import label

IMAGENET = "experiments/configs/imagenet.py"


def parse(*argv):
    return cli.parse_command_line(argparse.ArgumentParser("prog"), argv)


def load(*overrides, config=f"{IMAGENET}:mini"):
    return parse(f"--config={config}", *overrides)[1]


def test_absent_arguments_are_false_or_none():
    parsed = cli.parse_arguments("", flag=False, number=(3, 5))
    assert vars(parsed) == {"flag": False, "number": None}


def test_arguments_take_the_type_of_their_kind():
    parsed = cli.parse_arguments("number=5, flag", flag=False, number=(3, 5))
    assert vars(parsed) == {"flag": True, "number": 5}


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("flg", "Unknown argument 'flg'. Did you mean 'flag'\\? Known: flag, number=3, number=5"),
        ("number=4", "'number=4' is not possible; expected number=3 or number=5"),
        ("number", "'number' is not possible; expected number=3 or number=5"),
        ("flag=1", "'flag=1' is not possible; expected flag."),
        ("flag,flag", "'flag' is given twice"),
        ("flag,number=3", "flag and number contradict each other; give one"),
    ],
)
def test_wrong_arguments_are_explained(arg, message):
    with pytest.raises(cli.UsageError, match=message):
        cli.parse_arguments(arg, exclusive=[("flag", "number")], flag=False, number=(3, 5))


@pytest.mark.parametrize(
    ("typed", "key", "value"),
    [
        ("--config.train.steps=7", ("train", "steps"), 7),
        ("--config.optimizer.learning_rate=1", ("optimizer", "learning_rate"), 1.0),
        ("--config.model.encoder.remat=true", ("model", "encoder", "remat"), True),
        ("--config.data.data_dir=7", ("data", "data_dir"), "7"),
        ("--config.model.encoder.layers=['a','b']", ("model", "encoder", "layers"), ("a", "b")),
    ],
)
def test_overrides_keep_the_type_of_their_key(typed, key, value):
    found = load(typed)
    for name in key:
        found = found[name]
    assert found == value and type(found) is type(value)


def test_a_value_may_follow_as_a_word_of_its_own():
    assert load("--config.train.steps", "7").train.steps == 7


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            "--config.train.stps=5",
            "Unknown key config.train.stps. Did you mean 'config.train.steps'\\? "
            "Known in config.train: .*checkpoint_every, .*steps",
        ),
        ("--config.steps=5", "Did you mean 'config.train.steps'"),
        ("--config.num_bands=5", "Did you mean 'config.model.inputs.image.position_encoding.num_b"),
        ("--config.train.steps=many", "got str 'many', expected int such as"),
        ("--config.train.steps=1.5", "got float 1.5, expected int such as"),
        ("--config.train=5", "config.train is a section; set one of its keys: .*checkpoint_every"),
        ("--config.seed.x=5", "Unknown key config.seed.x.* Known in config.seed: nothing"),
        ("--wrkdir=x", "Unknown flag '--wrkdir'. Known: --config"),
    ],
)
def test_wrong_overrides_are_explained(typed, message):
    with pytest.raises(cli.UsageError, match=message):
        load(typed)


def test_a_missing_config_file_is_explained():
    with pytest.raises(cli.UsageError, match="Did you mean .*imagenet.py") as error:
        load(config="experiments/configs/imagnet.py")
    assert "common.py" not in str(error.value)  # It is no recipe.


def test_a_syntax_error_in_a_config_file_gives_its_place(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("def get_config(arg=''):\n    return {'a': 1\n")
    with pytest.raises(cli.UsageError, match="broken.py, line 2: .* Correct the file"):
        load(config=str(path))


def test_a_config_file_without_get_config_is_explained(tmp_path):
    path = tmp_path / "empty.py"
    path.write_text("")
    with pytest.raises(cli.UsageError, match="has no get_config"):
        load(config=str(path))


def test_a_mistake_ends_the_program_with_code_2_and_one_line(capsys):
    with pytest.raises(SystemExit) as exit_, cli.user_errors_end_the_program():
        load("--config.train.stps=5")
    assert exit_.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_value_that_the_library_refuses_is_a_mistake_too(capsys):
    import perceiver_jax

    with pytest.raises(SystemExit) as exit_, cli.user_errors_end_the_program():
        perceiver_jax.make_layers(3, 8)
    assert exit_.value.code == 2
    assert "can't be spaced evenly" in capsys.readouterr().err


class _Heic(label.Label):
    """A field whose files need a package that is not installed."""

    def read(self, value, window, rng):
        raise config_lib.MissingPackageError("No HEIC.")


def test_a_mistake_that_a_worker_process_finds_is_one_here(capsys):
    x, labels = np.ones((8, 5)), np.arange(8)
    data = data_lib.from_arrays({"x": x}, labels, {"x": x}, labels, batch_size=2, num_workers=1)
    data.fields["label"] = _Heic(8, multi_label=False)
    with pytest.raises(SystemExit) as exit_, cli.user_errors_end_the_program():
        next(data.train_batches(seed=0))
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "Error: No HEIC.\n"


def test_a_place_that_can_not_be_written_is_told_in_one_line(capsys, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as exit_, cli.user_errors_end_the_program():
        (tmp_path / "file" / "run").mkdir()
    assert exit_.value.code == 2
    assert f"Cannot read or write {tmp_path / 'file' / 'run'}: Not a dir" in capsys.readouterr().err


@pytest.mark.parametrize("bug", [lambda: int("x"), lambda: [].index(1), lambda: (1).real()])
def test_a_bug_keeps_its_traceback(bug):
    with pytest.raises((ValueError, TypeError)), cli.user_errors_end_the_program():
        bug()


def test_another_config_takes_the_overrides_of_the_command_line():
    words, overrides = cli.split_overrides(
        ["--a", "--config.seed=3", "x", "--config.train.steps", "7"]
    )
    assert words == ["--a", "x"]
    config = cli.load_config("experiments/configs/imagenet.py:mini", overrides)
    assert (config.seed, config.train.steps) == (3, 7)
