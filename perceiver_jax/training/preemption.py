"""Ends a run on SIGTERM and SIGINT: at once where nothing would be lost, else after the step.

Preemptible machines send SIGTERM and wait, often for 30 seconds; Ctrl-C sends SIGINT.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

# EX_TEMPFAIL of sysexits.h: nothing is wrong, try again.
EXIT_CODE = 75
SIGNALS = (signal.SIGTERM, signal.SIGINT)
NOTHING_NEW = "Ended before there was anything new to save"

# Seconds that the main thread is given to notice a signal, and then to tidy up.
_NOTICE, _TIDY = 1.0, 4.0


class Preempted(BaseException):
    """A signal ended the run; as KeyboardInterrupt, not an Exception that code may handle."""


class Preemption:
    """Knows whether a signal asked the run to end; listens while it is entered.

    Python runs its handlers between two instructions of the main thread, which may be minutes away
    (the compiler, a device). So a thread of its own answers the first signal with a line, ends the
    program if there is nothing to lose and the main thread does not, and ends it at the second,
    with the code that shells use (128 + the signal's number).

    Args:
      coordinates: Whether this is the first of several processes. It ends a second after them:
        without it they would not end by themselves, but fail.
    """

    def __init__(self, coordinates: bool = False):
        """Begins without having been asked."""
        self._patience = 1.0 if coordinates else 0.0
        self._requested = self._deferred = False
        self._any_process, self._asked = None, None
        self._left = threading.Event()

    def __enter__(self) -> "Preemption":
        """Begins to listen; only the main thread can."""
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._old_fd = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        self._old_handlers = {number: signal.signal(number, self._handle) for number in SIGNALS}
        self._thread = threading.Thread(target=self._watch, daemon=True, name="signals")
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        """Leaves signals to whom they were before."""
        self._left.set()
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_fd)
        os.close(self._pipe[1])  # Ends the thread.
        self._thread.join()
        os.close(self._pipe[0])

    def agree(self, any_process: Callable[[bool], Any]) -> None:
        """Makes several processes end together; from now on all have to ask for `requested` alike.

        Args:
          any_process: Returns whether an argument was true in any process; its result, and so the
            answer of `requested`, is waited for at the next question only.
        """
        self._any_process = any_process

    def requested(self) -> bool:
        """Whether to end now."""
        if self._any_process is None:
            return self._requested
        answer, self._asked = self._asked, self._any_process(self._requested)
        return answer is not None and bool(answer)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within it there is something to save: the first signal only sets `requested`.

        Elsewhere it raises `Preempted`, or ends the program if that can't be raised soon.
        """
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def interrupt(self, items: Iterable[T]) -> Iterator[T]:
        """Yields the items, for work that may be given up between two of them.

        Raises:
          Preempted: When a signal has come.
        """
        for item in items:
            if self.requested():
                raise Preempted
            yield item

    def end(self) -> NoReturn:
        """Ends the program at once, and its workers; what JAX still computes is not waited for."""
        time.sleep(self._patience)
        kill_workers()
        _exit(EXIT_CODE)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first, self._requested = not self._requested, True
        if first and not self._deferred:
            raise Preempted

    def _watch(self) -> None:
        """Reads the numbers of the signals that come, until the pipe is closed."""
        ending = False
        while number := os.read(self._pipe[0], 1):
            name = signal.Signals(number[0])
            if name not in SIGNALS:
                continue
            if ending:
                kill_workers()
                _exit(128 + name)
            ending = True
            when = " after this step" if self._deferred else ""
            print(f"\n{name.name}: ending{when}; again ends at once.", file=sys.stderr)
            if not self._deferred:
                threading.Thread(target=self._end_if_stuck, daemon=True).start()

    def _end_if_stuck(self) -> None:
        self._left.wait(_NOTICE)
        if self._requested:  # The main thread has noticed, and is on its way out.
            self._left.wait(_TIDY)
        if not self._deferred and not self._left.is_set():
            print(f"{NOTHING_NEW}. The same command resumes.", file=sys.stderr)
            self.end()


def kill_workers() -> None:
    """Ends processes that decode: they ignore signals, and would be waited for till their batch."""
    for process in multiprocessing.active_children():
        process.kill()


def _exit(code: int) -> NoReturn:
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), b"\x1b[?25h")  # Shows the cursor, which a live bar hides.
    os._exit(code)
