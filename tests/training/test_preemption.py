"""The first signal is waited for, or ends what can be ended; the rest is as before."""

import os
import signal
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
