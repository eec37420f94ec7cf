"""Processes that decode outlive signals to all of a run's processes, and not the run."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import multiprocessing, os, signal, time
from perceiver_jax import data

if __name__ == "__main__":
    batches = data.build_data(
        dataset="furniture11", data_dir="", train_split="train", test_split="test", batch_size=7,
        num_workers=1, feature_names="", max_bad_records=0, mixup_alpha=0, cutmix_alpha=0,
        fields={"points": {"kind": "point_cloud", "num_points": 11}},
    ).train_batches(seed=0)
    next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGTERM)
    os.kill(worker.pid, signal.SIGINT)
    for _ in range(20):  # More than it has made in advance.
        next(batches)
    print(worker.pid, flush=True)
    time.sleep(600)
"""


UNGUARDED = """
import numpy as np
from perceiver_jax import data
print("runs", flush=True)
x, labels = np.ones((8, 3)), np.arange(8) % 2
data.from_arrays({"x": x}, labels, {"x": x}, labels, batch_size=4, num_workers=2).train_batches(0)
"""

# Without /proc nothing tells a process that runs from one that has ended.
needs_proc = pytest.mark.skipif(not pathlib.Path("/proc").exists(), reason="needs /proc")


def _is_running(pid):
    """Whether a process is there; one that has ended may still be in the table."""
    status = pathlib.Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_a_script_that_workers_would_run_again_is_refused_before_they_start(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (1, "runs\n")
    assert f"num_workers=2 in {script}" in done.stderr
    assert 'below `if __name__ == "__main__":`' in done.stderr


@needs_proc
def test_a_worker_answers_no_signals_and_ends_with_a_run_that_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment
    ) as run:
        worker = int(run.stdout.readline())
        assert _is_running(worker)
        run.send_signal(signal.SIGKILL)
    end = time.monotonic() + 60
    while _is_running(worker) and time.monotonic() < end:
        time.sleep(0.01)
    assert not _is_running(worker)
