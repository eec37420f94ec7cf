"""Values that can't work are refused by their names, before anything runs or is written."""

import argparse
import pathlib

import pytest

from experiments import cli, train

CONFIGS = "experiments/configs"
RECIPES = [
    p for p in sorted(pathlib.Path(CONFIGS).glob("*.py")) if "def get_config" in p.read_text()
]
POINTS, CLIPS = f"{CONFIGS}/modelnet40.py:mini", f"{CONFIGS}/audioset.py:mini"
SHAPES = "config.model.inputs.points.position_encoding"


def parse(*argv):
    return cli.parse_command_line(argparse.ArgumentParser("prog"), argv)[1]


@pytest.mark.parametrize("path", RECIPES, ids=str)
@pytest.mark.parametrize("arg", ["", "mini"])
def test_every_recipe_is_in_range(path, arg):
    parse(f"--config={path}:{arg}")


@pytest.mark.parametrize(
    ("config", "typed", "message"),
    [
        (POINTS, "config.seed=-1", "config.seed is -1; expected at least 0. Change it"),
        (POINTS, "config.seed=99999999999", "at least 0 and at most 2147483647"),
        (POINTS, "config.train.steps=0", "config.train.steps is 0; expected at least 1"),
        (POINTS, "config.train.steps=1e3", "got float 1000.0, expected int such as"),
        (POINTS, "config.train.log_every=-1", "expected at least 0"),
        (POINTS, "config.data.batch_size=0", "config.data.batch_size is 0; expected at least 1"),
        (POINTS, "config.eval.num_windows=-3", "expected at least 1"),
        (POINTS, "config.data.num_workers=100000", "expected at least 0 and at most 1024"),
        (POINTS, f"{SHAPES}.num_bands=0", "num_bands is 0; expected at least 1"),
        (POINTS, f"{SHAPES}.max_resolution=(3,0,3)", r"is \(3, 0, 3\); expected at least 1"),
        (POINTS, f"{SHAPES}.max_resolution=('a',)", r"got tuple \('a',\), expected tuple such"),
        (POINTS, "config.model.encoder.layers=()", "layers is empty; expected at least one"),
        (POINTS, "config.model.encoder.layers=(1,2)", r"got tuple \(1, 2\), expected tuple such"),
        (POINTS, "config.model.encoder.dropout_rate=1", "expected at least 0 and less than 1"),
        (POINTS, "config.optimizer.learning_rate=nan", "got str 'nan', expected float"),
        (POINTS, "config.optimizer.learning_rate=1e999", "is inf; expected a finite number"),
        (POINTS, "config.optimizer.b1=1", "expected at least 0 and less than 1"),
        (POINTS, "config.optimizer.eps=0", "expected more than 0"),
        (POINTS, "config.experiment=../x", "expected a name that a directory may have"),
        (CLIPS, "config.model.fusion.dropout_rates.video=2", "at least 0 and less than 1"),
        (CLIPS, "config.data.fields.video.crop_area=(0.5,0.2)", "the lesser one first"),
        (CLIPS, "config.data.fields.video.crop_area=(0.5,)", "expected two numbers"),
    ],
)
def test_numbers_out_of_range_are_explained(config, typed, message):
    with pytest.raises(ValueError, match=message):
        parse(f"--config={config}", f"--{typed}")


def test_a_whole_number_in_a_pair_of_numbers_is_one():
    config = parse(f"--config={CLIPS}", "--config.data.fields.video.crop_area=(0.5,1)")
    assert config.data.fields.video.crop_area == (0.5, 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import missing_module", "file.py, line 1: ModuleNotFoundError: No module named 'missing"),
        ("def get_config(arg):\n    return 1 / 0", "file.py, line 2: ZeroDivisionError"),
        ("def get_config():\n    pass", "TypeError: get_config.* Correct the file or its arg"),
        ("def get_config(arg):\n    return {}", "returned dict; expected a ml_collections"),
        (
            "import ml_collections\n"
            "def get_config(arg):\n    return ml_collections.ConfigDict({'seed': 0})",
            "no experiment and no data .* experiments/configs has examples",
        ),
        ("\x00\x01", "SyntaxError|null bytes|Correct the file"),
    ],
)
def test_errors_of_a_config_file_are_explained(tmp_path, text, message):
    path = tmp_path / "file.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        parse(f"--config={path}")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "Error: The following arguments are required: --config. See --help."),
        (["--config"], "Error: Argument --config: expected one argument. See --help."),
        ([f"--config={CONFIGS}"], f"Error: Unknown config file '{CONFIGS}'."),
        ([f"--config={POINTS}", "--config.train.stps=1"], "Did you mean 'config.train.steps'?"),
        ([f"--config={POINTS}", "--config.data.batch_size=-8"], "batch_size is -8; expected at"),
    ],
)
def test_mistakes_end_with_code_2_one_line_and_nothing_written(tmp_path, capsys, argv, message):
    with pytest.raises(SystemExit) as exit_:
        train.main([*argv, f"--workdir={tmp_path / 'run'}"])
    shown = capsys.readouterr().err
    assert exit_.value.code == 2
    assert message in shown and shown.count("\n") == 1
    assert not (tmp_path / "run").exists()
