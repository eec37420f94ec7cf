"""The benchmark's processes and figures; times themselves are never tested."""

import argparse
import json
import sys

import pytest

from experiments.benchmarks import command, growth, protocol, step
from perceiver_jax import config_file

MINI = "experiments/configs/modelnet40.py:mini"
WORKER = """
from experiments.benchmarks import protocol
held = []
def prepare(settings):
    def allocate():
        held.append(bytearray(b"x") * 2**26)
        assert len(held) < settings.get("dies", 3), "out of memory"
    if "legs" in settings:
        raise protocol.WorkerError("needs two legs")
    return {"model_flops": 8, "peak_operations": 8}, {"step": allocate, "peak": lambda: None}
protocol.serve(prepare)
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts a worker that allocates 64 MiB in each step, and dies in its third."""
    folder = tmp_path_factory.mktemp("worker")
    (folder / "allocates.py").write_text(WORKER)
    return lambda **settings: protocol.Worker(
        sys.executable, "allocates", settings, PYTHONPATH=str(folder)
    )


@pytest.fixture(scope="module")
def result(start):
    """A step by ours and the plain forms; one peer is not there, another fails in a step."""
    config = config_file.load_config(MINI)
    with config.unlocked():
        config.data.fields.points.num_points = 31
        config.model.encoder.update(num_latents=5, latent_channels=8, num_self_attends=1)
    flags = argparse.Namespace(
        peers=["plain", "hf", "perceiver_pytorch"],
        peer_python="/nowhere/python",
        mode="train",
        batch_size=2,
        repeats=1,
    )
    start_step = step.start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            step,
            "start",
            lambda name, *rest: start() if name == "perceiver_pytorch" else start_step(name, *rest),
        )
        return step.measure(config, {}, flags)


def test_ours_and_plain_forms_have_the_same_model_and_other_operations(result):
    ours, plain = result["workers"]["ours"], result["workers"]["plain"]
    assert ours["parameters"] == plain["parameters"] > 0
    assert ours["model_flops"] == plain["model_flops"] > 0
    assert ours["executed_flops"] != plain["executed_flops"]


def test_utilization_is_operations_over_seconds_and_peak(result):
    ours = result["workers"]["ours"]
    (seconds,) = ours["step_seconds"]
    expected = ours["executed_flops"] / seconds / result["peak_flops"]
    assert ours["executed_flops_utilization"] == pytest.approx(expected)


def test_peer_that_is_not_there_is_named_and_ours_still_measured(result, capsys):
    step.report(result)
    printed = capsys.readouterr().out
    assert "hf: not measured, it needs /nowhere/python" in printed
    assert f"{result['workers']['ours']['parameters']:,}" in printed


def test_peer_that_fails_in_a_step_does_not_end_the_others(result):
    assert "ended with exit code 1" in result["workers"]["perceiver_pytorch"]["error"]
    assert len(result["workers"]["plain"]["step_seconds"]) == 1


def test_result_is_json(result, tmp_path):
    command.write(result, tmp_path / "new" / "figures.json")
    assert json.loads((tmp_path / "new" / "figures.json").read_text()) == result


def test_memory_is_the_peak_of_the_steps(start):
    worker = start()
    worker.ask()
    if (before := worker.ask("memory")["peak_megabytes"]) is None:
        pytest.skip("this system does not tell")
    worker.ask("step")
    after = worker.ask("memory")["peak_megabytes"]
    worker.close()
    assert before < 32 < 60 < after < 128


def test_reason_of_a_worker_reaches_the_parent(start):
    with pytest.raises(protocol.WorkerError, match="needs two legs"):
        start(legs=1).ask()


def test_growth_writes_figures_and_their_picture(start, tmp_path, monkeypatch, capsys):
    dies = {step.OURS: 9, "plain": 3}
    monkeypatch.setattr(step, "start", lambda name, *_: start(dies=dies[name]))
    path = tmp_path / "figures.json"
    growth.main(["--repeats=1", "--largest=4096", "--peers=plain", f"--json={path}"])
    rows = json.loads(path.read_text())
    assert [row["inputs"] for row in rows["ours"]] == [1024, 4096]
    assert all(row["median_seconds"] > 0 for row in rows["ours"])
    assert [row["error"][:10] for row in rows["plain"]] == ["ended with"]  # It is left out then.
    assert (tmp_path / "figures.png").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--peers=hff", "unknown peer 'hff'; expected some of plain, hf"),
        ("--batch_size=0", "got 0; expected a whole number, at least 1"),
        ("--repeats=-1", "got -1; expected a whole number, at least 1"),
        ("--config.train.accumulate_steps=3", "32 examples cannot be accumulated in 3 steps"),
    ],
)
def test_mistakes_get_a_message(flag, message, capsys):
    with pytest.raises(SystemExit) as ended:
        step.main([f"--config={MINI}", flag])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
