"""Several processes train to the numbers of one, end when one of them dies, and resume together."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

from experiments import train
from tests.experiments import tiny

# With four fake devices each process has two examples of a batch, and the test split of 7 is padded
# to 16.
TINY = (
    "--config=experiments/configs/imagenet.py:mini",
    *tiny.MODEL,
    *tiny.DIGITS,
    "--config.eval.batch_size=8",
    "--config.optimizer.schedule.name=constant",
    "--config.optimizer.schedule.warmup_steps=1",
    "--config.train.log_every=1",
    "--config.train.eval_every=0",
    "--config.train.checkpoint_every=2",
)
SECONDS = 300  # Far more than a run takes: only a hanging process is ended by it.
pytestmark = pytest.mark.xdist_group("train")


def _start(workdir: pathlib.Path, steps: int, cache: pathlib.Path) -> list[subprocess.Popen]:
    """Starts two processes of one run, with two devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
    }
    processes = []
    for i in range(2):
        place = (
            f"--coordinator_address=localhost:{port}",
            "--num_processes=2",
            f"--process_id={i}",
        )
        command = [sys.executable, "-m", "experiments.train", *TINY, *place]
        command += [f"--workdir={workdir}", f"--config.train.steps={steps}"]
        with workdir.with_name(f"process_{i}.log").open("a") as log:
            processes.append(
                subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            )
    return processes


def _wait(process: subprocess.Popen, workdir: pathlib.Path) -> int:
    try:
        return process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        logs = [log.read_text() for log in workdir.parent.glob("process_*.log")]
        pytest.fail("\n".join(["a process hangs", *logs]))


def _lines(workdir: pathlib.Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: x for k, x in line.items() if k != "examples_per_second"} for line in lines]


def _last_checkpoint(workdir: pathlib.Path) -> int:
    names = [path.name for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]
    return max(map(int, names), default=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two processes, one of which was killed: its workdir and the other one's end."""
    directory = tmp_path_factory.mktemp("processes")
    workdir = directory / "run [v2]"
    first, second = _start(workdir, 100_000, directory / "cache")
    try:
        deadline = time.monotonic() + SECONDS
        while not _last_checkpoint(workdir) and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        second.kill()
        second.wait()
    killed = time.monotonic()
    code = _wait(first, workdir)
    seconds = time.monotonic() - killed
    steps = _last_checkpoint(workdir) + 3
    codes = [_wait(process, workdir) for process in _start(workdir, steps, directory / "cache")]
    return {"workdir": workdir, "steps": steps, "ended": (code, seconds), "codes": codes}


def test_the_others_end_with_an_error_within_a_minute_when_one_is_killed(run):
    code, seconds = run["ended"]
    assert code != 0
    assert seconds < 60


def test_the_same_command_goes_on_with_all(run):
    assert run["codes"] == [0, 0]
    assert "resuming from step" in run["workdir"].with_name("process_0.log").read_text()


def test_one_process_writes(run):
    assert "loss" not in run["workdir"].with_name("process_1.log").read_text()
    assert len(list((run["workdir"] / "tensorboard").iterdir())) == 2  # One for each start.


def test_two_processes_give_the_metrics_of_one_each_step_once(run, tmp_path):
    one = tmp_path / "one"
    train.main([*TINY, f"--workdir={one}", f"--config.train.steps={run['steps']}"])
    expected = _lines(one)
    assert [line["step"] for line in expected[:-1]] == list(range(1, run["steps"] + 1))
    for line, of_one in zip(_lines(run["workdir"]), expected, strict=True):
        assert line == {
            name: x if isinstance(x, str) else pytest.approx(x, rel=1e-5)
            for name, x in of_one.items()
        }
