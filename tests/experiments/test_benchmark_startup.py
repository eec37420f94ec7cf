"""The start-up benchmark's runs and figures; times themselves are never tested."""

import json

import pytest

from experiments import benchmark_startup
from tests.experiments import tiny

MINI = "experiments/configs/modelnet40.py:mini"
TINY = (
    *tiny.MODEL,
    "--config.data.modalities.points.num_points=17",
    "--config.eval.batch_size=76",
)
pytestmark = pytest.mark.xdist_group("train")


def test_cold_and_warm_runs_reach_their_first_step(tmp_path, capsys):
    path = tmp_path / "figures.json"
    flags = ["--repeats=1", "--imports=1", f"--json={path}"]
    benchmark_startup.main([f"--config={MINI}", *TINY, *flags])
    result = json.loads(path.read_text())
    for kind in ("cold", "warm"):
        (run,) = result["first_step"][MINI][kind]
        assert run["seconds"] > 0
    shown = capsys.readouterr().out
    assert "modelnet40.py:mini" in shown
    assert f"{benchmark_startup.import_ratio(result):.2f} times" in shown


def test_import_ratio_is_of_the_medians():
    seconds = {"perceiver_jax": [3.0, 1.0, 99.0], "jax, haiku": [2.0, 0.5, 2.5]}
    assert benchmark_startup.import_ratio({"imports": seconds}) == 1.5


def test_run_that_ends_early_is_explained(capsys):
    flags = ["--repeats=1", "--imports=1", "--config.optimizer.schedule.warmup_steps=100000"]
    with pytest.raises(SystemExit) as ended:
        benchmark_startup.main([f"--config={MINI}", *TINY, *flags])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "ended with exit code 2 before its first step" in message
    assert "warmup_steps is 100000" in message


@pytest.mark.parametrize("flag", ["--repeats=0", "--imports=0"])
def test_mistakes_get_a_message(flag, capsys):
    with pytest.raises(SystemExit) as ended:
        benchmark_startup.main([flag])
    assert ended.value.code == 2
    assert f"{flag}; expected at least 1" in capsys.readouterr().err
