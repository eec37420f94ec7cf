"""The first signal is waited for, or ends what can be ended; the rest is as before."""

import os
import signal
import subprocess
import sys
import time

import pytest

from perceiver_jax.training import preemption


def _send(number):
    os.kill(os.getpid(), number)
    time.sleep(0)  # Handlers run between two instructions.


@pytest.mark.parametrize("number", preemption.SIGNALS)
def test_signal_is_only_noted_where_it_is_deferred(number):
    with preemption.Preemption() as signals, signals.deferred():
        assert not signals.requested()
        _send(number)
        assert signals.requested()


def test_signal_elsewhere_ends_what_is_going_on():
    with pytest.raises(preemption.Preempted), preemption.Preemption():
        _send(signal.SIGTERM)


def test_work_that_can_be_given_up_ends_between_two_items():
    done = []
    with preemption.Preemption() as signals, signals.deferred():
        with pytest.raises(preemption.Preempted):
            for item in signals.interrupt([1, 2, 3]):
                done.append(item)
                if item == 2:
                    _send(signal.SIGTERM)
    assert done == [1, 2]


def test_handlers_are_those_of_before_afterwards():
    before = [signal.getsignal(number) for number in preemption.SIGNALS]
    with preemption.Preemption():
        pass
    assert [signal.getsignal(number) for number in preemption.SIGNALS] == before


STUCK = """
import hashlib
from perceiver_jax.training import preemption
with preemption.Preemption():
    print("stuck", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""


def test_signal_ends_a_program_that_computes_and_has_nothing_to_save():
    command = [sys.executable, "-c", STUCK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"stuck\n"
        time.sleep(0.5)  # It has printed, and is about to compute.
        process.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        assert process.wait(60) == preemption.EXIT_CODE
        assert time.monotonic() - begin < 5
