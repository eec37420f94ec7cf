"""A run from the command line to its pictures, its continuation, and what is refused before it."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from experiments import evaluate, train
import perceiver_jax
from perceiver_jax import workdir as workdir_lib
from tests.experiments import tiny

CONFIG = "--config=experiments/configs/imagenet.py:mini"
TINY = (
    *tiny.MODEL,
    *tiny.DIGITS,
    "--config.eval.batch_size=4",
    "--config.optimizer.schedule.warmup_steps=1",
    "--config.train.log_every=1",
    "--config.train.eval_every=2",
    "--config.train.checkpoint_every=2",
)
pytestmark = pytest.mark.xdist_group("train")


def run(workdir, steps):
    train.main([CONFIG, f"--workdir={workdir}", *TINY, f"--config.train.steps={steps}"])


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """That of a run of two steps, gone on with to four."""
    workdir = tmp_path_factory.mktemp("runs") / "[v2] [/old] a\\b"
    run(workdir, 2)
    run(workdir, 4)
    return workdir


@pytest.fixture(scope="module")
def evaluated(workdir):
    """The metrics of that run, evaluated."""
    return perceiver_jax.evaluate(workdir)


def test_running_again_goes_on_where_the_run_stopped(workdir):
    assert [x["step"] for x in lines(workdir) if x["split"] == "train"] == [1, 2, 3, 4]


def test_evaluations_are_recorded(workdir):
    assert [x["step"] for x in lines(workdir) if x["split"] == "test"] == [2, 4]


@pytest.mark.parametrize("name", ["config.json", "curves.png", "confusion.png", "per_class.png"])
def test_the_workdir_has_its_files(workdir, evaluated, name):
    assert (workdir / name).stat().st_size > 0


def test_the_config_can_be_read_back(workdir):
    config = workdir_lib.read(workdir)
    assert config.train.steps == 4
    assert config.model.encoder.layers == ("cross_attend_0", "latent_transformer_0")


def test_evaluation_gives_what_training_recorded_last(workdir, evaluated):
    recorded = lines(workdir)[-1]
    assert evaluated == pytest.approx({name: recorded[name] for name in evaluated}, rel=1e-6)


def test_per_class_figures_count_each_test_example_once(workdir, evaluated):
    rows = json.loads((workdir / "per_class.json").read_text())
    assert len(rows) == 10
    assert sum(row["examples"] for row in rows.values()) == 7


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.model.outputs.label.size=11", "mnist5k has 10 classes"),
        ("--config.task.loss=sigmoid", "one class an example"),
        ("--config.data.batch_size=6", "multiple of the 4 devices. Set it to 8"),
        ("--config.train.accumulate_steps=3", "4 devices x 3 accumulate_steps. Set it to 12"),
        ("--config.train.accumulate_steps=0", "accumulate_steps is 0"),
        ("--config.train.parallelism=fspd", "Unknown config.train.parallelism 'fspd'"),
        ("--config.eval.batch_size=7", "multiple of the 4 devices. Set it to 8"),
        ("--config.data.train_split=train[:0]", "which has no examples"),
        ("--config.model.dtype=float64", "which JAX has off"),
        ("--config.eval.num_windows=2", "num_windows is 2"),
        ("--config.data.dataset=mnist", "Did you mean 'mnist5k'"),
        ("--config.train.steps=0", "steps is 0"),
        ("--config.optimizer.name=lam", "lamb"),
        (
            "--config.model.encoder.num_self_attend_heads=7",
            "num_self_attend_heads = 7 does",
        ),
    ],
)
def test_a_config_that_cannot_work_is_refused_before_anything_is_written(
    override, message, tmp_path, capsys
):
    with pytest.raises(SystemExit) as exit_:
        train.main([CONFIG, f"--workdir={tmp_path / 'run'}", *TINY, override])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_go_on_with_another_config(workdir, capsys):
    before = lines(workdir)
    with pytest.raises(SystemExit) as exit_:
        train.main([CONFIG, f"--workdir={workdir}", *TINY, "--config.optimizer.b1=0.5"])
    assert exit_.value.code == 2
    assert "\n  config.optimizer.b1: 0.9 -> 0.5\n" in capsys.readouterr().err
    assert lines(workdir) == before


def test_the_workdir_says_what_its_data_are(workdir):
    known = json.loads((workdir / "data.json").read_text())
    assert known["classes"] == [str(i) for i in range(10)]
    assert (known["train"]["examples"], known["test"]["examples"]) == (40, 7)


@pytest.fixture
def of_other_data(workdir, tmp_path):
    """That of the run, as if it had begun with classes of other names and fewer examples."""
    other = tmp_path / "run"
    shutil.copytree(workdir, other)
    known = json.loads((other / "data.json").read_text())
    known["classes"][:2] = ["one", "nought"]
    known["train"]["examples"] = 20
    (other / "data.json").write_text(json.dumps(known))
    return other


@pytest.mark.parametrize("command", [train, evaluate], ids=["train", "evaluate"])
def test_a_run_whose_data_are_others_now_is_refused(of_other_data, command, capsys):
    before = {path: path.stat().st_mtime_ns for path in of_other_data.rglob("*")}
    flags = [CONFIG, *TINY] if command is train else []
    with pytest.raises(SystemExit) as exit_:
        command.main([*flags, f"--workdir={of_other_data}"])
    assert exit_.value.code == 2
    message = capsys.readouterr().err
    assert f"{of_other_data} is of a run on other data (was -> is):\n" in message
    assert "\n  class 0: 'one' -> '0'\n  class 1: 'nought' -> '1'\n" in message
    assert ("\n  examples of train: 20 -> 40\n" in message) == (command is train)
    assert {path: path.stat().st_mtime_ns for path in of_other_data.rglob("*")} == before


def test_other_data_can_be_accepted(of_other_data):
    known = {"classes": ["0", "1"], "train": {"examples": 40}}
    changes = workdir_lib.check_same_data(known, of_other_data, accept_changes=True)
    assert changes[:2] == ["class 0: 'one' -> '0'", "class 1: 'nought' -> '1'"]
    assert changes[-1] == "and 3 more"


def test_a_run_of_before_its_data_were_kept_is_taken_as_it_is(of_other_data):
    (of_other_data / "data.json").unlink()
    assert workdir_lib.check_same_data({"classes": ["a"]}, of_other_data) == []


def test_data_that_cannot_be_read_back_are_explained(of_other_data):
    (of_other_data / "data.json").write_text('{"classes": 3}')
    with pytest.raises(ValueError, match="data.json is damaged.*delete it if they are the same"):
        workdir_lib.check_same_data({"classes": ["a"]}, of_other_data)


def test_a_model_is_not_evaluated_on_another_number_of_classes(of_other_data, capsys):
    (of_other_data / "data.json").unlink()
    config = of_other_data / "config.json"
    config.write_text(config.read_text().replace('"size": 10', '"size": 9'))
    with pytest.raises(SystemExit) as exit_:
        evaluate.main([f"--workdir={of_other_data}"])
    assert exit_.value.code == 2
    assert (
        "outputs.label.size is 9; mnist5k has 10 classes. Evaluate it on" in capsys.readouterr().err
    )


def test_a_workdir_whose_checkpoint_has_other_shapes_is_explained(workdir, tmp_path, capsys):
    other, changed = tmp_path / "run", "--config.model.encoder.latent_channels=32"
    shutil.copytree(workdir, other)
    before = sorted(path.name for path in other.rglob("*"))
    with pytest.raises(SystemExit) as exit_:
        train.main([CONFIG, f"--workdir={other}", *TINY, changed, "--accept_changes"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith(
        "accepted: config.model.encoder.latent_channels: 24 -> 32\n"
        f"Error: The checkpoint of step 4 in {other / 'checkpoints'} is of another model"
    )
    assert sorted(path.name for path in other.rglob("*")) == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [("", "config.json is damaged: .*Expecting value"), (None, "There is no .*config.json")],
)
def test_a_workdir_without_its_config_is_explained(workdir, tmp_path, capsys, damage, message):
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    if damage is not None:
        (tmp_path / "config.json").write_text(damage)
    with pytest.raises(SystemExit) as exit_:
        train.main([CONFIG, f"--workdir={tmp_path}", *TINY])
    assert exit_.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_data_set_that_is_not_there_is_explained(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        train.main(["--config=experiments/configs/modelnet40.py", f"--workdir={tmp_path / 'run'}"])
    assert exit_.value.code == 2
    assert "modelnet40.py:mini" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_workdir_without_a_run_is_explained(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        evaluate.main([f"--workdir={tmp_path}"])
    assert exit_.value.code == 2
    assert "expected the workdir of a training run" in capsys.readouterr().err


def test_a_mistyped_command_is_answered_before_jax_starts():
    code = (
        "import sys; from experiments import train\n"
        "try: train.main(['--config=experiments/configs/imagnet.py'])\n"
        "finally: print('haiku' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 2
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_processes=2"], "--coordinator_address and --process_id missing"),
        (["--distributed", "--process_id=1"], "--coordinator_address and --num_processes missing"),
    ],
)
def test_processes_that_are_half_described_are_refused(flags, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        train.main([CONFIG, f"--workdir={tmp_path / 'run'}", *flags])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_process_that_nothing_tells_which_one_it_is_says_what_would():
    command = [sys.executable, "-m", "experiments.train", CONFIG, "--distributed"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 2
    assert "coordinator_address should be defined. Expected Slurm" in done.stderr
