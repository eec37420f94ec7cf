"""Reads files of shapes in processes with limited memory and time, as many as there are cores.

A file that makes the process die or takes too long costs that file, not the build.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
import contextlib
import json
import math
import os
import pathlib
import pickle
import queue
import subprocess
import sys
import threading
from typing import Any

Result = tuple[str, str, Any]  # As `process.answer` yields.

_PACKAGE = pathlib.Path(__file__).parents[3]
# The packages above `shapes` come without what their __init__ imports: JAX and TFDS take seconds.
_PROGRAM = f"""
import sys, types
for name in "perceiver_jax", "perceiver_jax.data":
    sys.modules[name] = types.ModuleType(name)
sys.modules["perceiver_jax"].__path__ = [{str(_PACKAGE)!r}]
sys.modules["perceiver_jax.data"].__path__ = [{str(_PACKAGE / "data")!r}]
from perceiver_jax.data.builders.shapes import process
process.serve()
"""
# The file ended, or holds what a process left that died while it wrote.
_NO_ANSWER = (
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    OSError,
    ValueError,
    pickle.UnpicklingError,
)

_TASKS_PER_START = 8  # A process takes a second to start.
TIME_LIMIT = 300.0  # Seconds for one file; 256 MB of an OFF file take about 30.


def read_all(
    tasks: Sequence[Mapping[str, Any]], time_limit: float = TIME_LIMIT
) -> Iterator[list[Result]]:
    """Does tasks (see `process.answer`) in parallel.

    Args:
        tasks: the tasks.
        time_limit: seconds that one of them may take.

    Yields:
        What `process.answer` yields for a task, in the order of the tasks.
    """
    num_workers = max(1, min(math.ceil(len(tasks) / _TASKS_PER_START), os.cpu_count() or 1))
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()

    def do(task: Mapping[str, Any]) -> list[Result]:
        worker = idle.get()
        try:
            return worker.do(task, time_limit)
        finally:
            idle.put(worker)

    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(futures.ThreadPoolExecutor(num_workers))
        for _ in range(num_workers):
            worker = _Worker()
            stack.callback(worker.stop)  # Before the pool's exit, which waits for its threads.
            idle.put(worker)
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        pending: collections.deque[futures.Future] = collections.deque()
        for task in tasks:
            pending.append(pool.submit(do, task))
            if len(pending) > 4 * num_workers:  # No more results are held than these.
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


class _Worker:
    """A process that runs `process.py`, started again after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._stopped = False

    def do(self, task: Mapping[str, Any], time_limit: float) -> list[Result]:
        process = self._process or self._start()
        timed_out = threading.Event()

        def end() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(time_limit, end)
        timer.start()
        try:
            process.stdin.write(json.dumps(task).encode() + b"\n")
            process.stdin.flush()
            answered = pickle.load(process.stdout)
        except _NO_ANSWER:
            self._end()
            if timed_out.is_set():
                cause, detail = "took too long", f"not read within {time_limit:g} s"
            else:
                cause, detail = "crashed", f"the process ended with code {process.returncode}"
            return [(task["name"], "", (cause, detail))]
        finally:
            timer.cancel()
        if isinstance(answered, str):
            raise RuntimeError(f"The program that reads {task['name']} is broken:\n{answered}")
        return answered

    def stop(self) -> None:
        """Ends the process for good; what another thread waits for gets no answer."""
        self._stopped = True
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            process.stdout.close()
            with contextlib.suppress(OSError):  # It may hold what the process did not read.
                process.stdin.close()

    def _start(self) -> subprocess.Popen:
        process = self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            process_group=0,  # An interrupt from the keyboard is for the build, which ends it.
        )
        if self._stopped:  # Meanwhile, by another thread.
            self._end()
        try:
            pickle.load(process.stdout)
        except _NO_ANSWER:
            self._end()
            raise RuntimeError(
                "The process that reads shapes ended before it began; its message is above."
            ) from None
        return process
