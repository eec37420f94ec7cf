"""The start-up benchmark's runs and figures; times themselves are never tested."""

import json

import pytest

from experiments.benchmarks import startup
from tests.experiments import tiny

TINY = (
    "--config=experiments/configs/modelnet40.py:mini",
    *tiny.MODEL,
    "--config.data.fields.points.num_points=17",
    "--config.eval.batch_size=76",
    "--repeats=1",
)
pytestmark = pytest.mark.xdist_group("train")


def test_cold_and_warm_runs_reach_their_first_step(tmp_path, capsys):
    path = tmp_path / "figures.json"
    startup.main([*TINY, f"--json={path}"])
    result = json.loads(path.read_text())
    assert all(run[0] > 0 for kind in ("cold", "warm") for run in result["first_step"][kind])
    ours, theirs = (times for (times,) in result["imports"].values())
    assert f"{ours / theirs:.2f} times" in capsys.readouterr().out


def test_run_that_ends_early_is_explained(capsys):
    with pytest.raises(SystemExit) as ended:
        startup.main([*TINY, "--config.optimizer.schedule.warmup_steps=100000"])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "ended with exit code 2 before its first step" in message
    assert "warmup_steps is 100000" in message
