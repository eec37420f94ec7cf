"""A workdir is one run's at a time."""

import subprocess
import sys

import pytest

from perceiver_jax.training import lock

HOLD = """
import pathlib, sys
from perceiver_jax.training import lock
with lock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_refused_until_the_first_is_gone_even_killed(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    lock.check(tmp_path / "run")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        message = f"Another run is training in {tmp_path}/run: process {process.pid} on"
        with pytest.raises(lock.InUseError, match=message):
            lock.check(tmp_path / "run")
        with pytest.raises(lock.InUseError, match=message), lock.held(tmp_path / "run"):
            pass
        process.kill()
    with lock.held(tmp_path / "run"):
        pass


def test_checking_makes_nothing(tmp_path):
    lock.check(tmp_path / "run")
    assert not list(tmp_path.iterdir())
