"""Runs a function on many tasks in processes whose time and memory are limited.

Files that people have make parsers crash, hang or ask for all memory. Here that costs one task, and
the process is replaced. Processes import the function's module by its name, and neither JAX, TFDS
nor the user's program, which `multiprocessing` would run again from its beginning.
"""

import atexit
import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
import contextlib
import os
import pickle
import queue
import resource
import signal
import subprocess
import sys
import threading
import traceback
from typing import Any, NamedTuple

TIME_LIMIT = 300.0  # Seconds for a task; 256 MB of an OFF file take about 30.
MAX_MEMORY = 4 << 30  # Bytes of address space; trimesh takes about 15 times an OFF file's size.

_START_LIMIT = 300  # Seconds until a process is ready.
_PROGRAM = """
import sys
sys.path = sys.argv[1:]
from perceiver_jax.data.builders import isolated
isolated.serve()
"""


_KEPT: dict[tuple[Callable[[Any], Any], int], "Pool"] = {}
_KEPT_LOCK = threading.Lock()
_is_limited = False  # Whether this is one of the processes.


class BrokenError(Exception):
    """The function itself fails, by a bug or by what is installed; no task is at fault."""


class Ended(NamedTuple):
    """The result of a task that ended its process: 'crashed' or 'took too long', and details."""

    cause: str
    detail: str


class Pool:
    """Processes that run a function: started when needed, kept for more tasks, of any thread."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        num_processes: int,
        initialise: Callable[[], None] | None = None,
        *,
        time_limit: float = TIME_LIMIT,
        max_memory: int = MAX_MEMORY,
    ):
        """Starts nothing yet.

        Args:
            function: of a module that can be imported, or an object of one that can be called and
                pickled; so is `initialise`. An error that it raises is one of the program.
            num_processes: how many tasks are done side by side.
            initialise: called in each process before its memory is limited, to import what is
                large: an import that failed can't be repeated.
            time_limit: seconds that a task may take.
            max_memory: bytes of address space that a process may use.
        """
        setup = pickle.dumps((function, initialise, time_limit, max_memory))
        name = getattr(function, "__qualname__", type(function).__qualname__)
        name = f"{function.__module__}.{name}"
        self._processes = [_Process(name, setup, time_limit) for _ in range(num_processes)]
        self._idle: queue.LifoQueue[_Process] = queue.LifoQueue()  # No more start than are needed.
        for process in self._processes:
            self._idle.put(process)

    def run(self, task: Any) -> Any:
        """Returns `function(task)`, or `Ended` if it ended its process; waits for a free one.

        Args:
            task: like the result, it is pickled.

        Raises:
            BrokenError: a process does not start, or `function` raises an error.
        """
        process = self._idle.get()
        try:
            return process.run(task)
        except BaseException:  # An interrupt, say: what it still answers is not of the next task.
            process.end()
            raise
        finally:
            self._idle.put(process)

    def interrupt(self) -> None:
        """Has those `run` that other threads are in come to an end soon."""
        with self._idle.mutex:
            idle = list(self._idle.queue)
        for process in self._processes:
            if process not in idle:
                process.kill()

    def stop(self) -> None:
        """As `interrupt`, and for good."""
        for process in self._processes:
            process.stop()

    def end(self) -> None:
        """Ends the processes, if no thread is in `run`."""
        for process in self._processes:
            process.end()


def run_all(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    num_processes: int,
    initialise: Callable[[], None] | None = None,
    **limits: Any,
) -> Iterator[Any]:
    """Yields `Pool.run` of each task in their order.

    Args:
        function: as of `Pool`.
        tasks: arguments of `function`.
        num_processes: as of `Pool`.
        initialise: as of `Pool`.
        **limits: those of `Pool`.

    Raises:
        BrokenError: as `Pool.run`.
    """
    pool = Pool(function, num_processes, initialise, **limits)
    threads = futures.ThreadPoolExecutor(num_processes)
    pending: collections.deque[futures.Future] = collections.deque()
    try:
        for task in tasks:
            pending.append(threads.submit(pool.run, task))
            if len(pending) > 2 * num_processes:  # No more results wait in memory.
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:  # Threads wait for what processes answer.
        pool.stop()
        threads.shutdown(cancel_futures=True)
        pool.end()


def kept_pool(
    function: Callable[[Any], Any], initialise: Callable[[], None] | None = None
) -> "Pool | _Here":
    """Returns the pool of a function whose processes are there until this program ends.

    In one of the processes it is that process itself: what is limited needs no limits within, and
    processes of its own would outlive it where it is ended.
    """
    if _is_limited:
        return _Here(function, initialise)
    with _KEPT_LOCK:
        if not _own_kept():
            atexit.register(_end_kept)
        key = function, os.getpid()  # What was forked would take its parent's answers.
        if key not in _KEPT:
            _KEPT[key] = Pool(function, num_cores(), initialise)
        return _KEPT[key]


def interrupt_kept() -> None:
    """Interrupts all pools that are kept."""
    with _KEPT_LOCK:
        for pool in _own_kept():
            pool.interrupt()


def _own_kept() -> list[Pool]:
    return [pool for (_, process), pool in _KEPT.items() if process == os.getpid()]


def _end_kept() -> None:
    for pool in _own_kept():
        pool.end()


def num_cores() -> int:
    """Returns how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it.
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class _Here:
    """What a `Pool` is within one of its processes: calls the function."""

    def __init__(self, function: Callable[[Any], Any], initialise: Callable[[], None] | None):
        self._function = function
        if initialise:
            initialise()

    def run(self, task: Any) -> Any:
        return self._function(task)


class _Process:
    """A process that is started by its first task, and by the next one after it ended."""

    def __init__(self, name: str, setup: bytes, time_limit: float):
        self._name, self._setup, self._time_limit = name, setup, time_limit
        self._child: subprocess.Popen | None = None
        self._stopped = False

    def run(self, task: Any) -> Any:
        if self._child is not None and self._child.poll() is not None:
            self.end()  # While it waited: no task is at fault.
        answer = _ask(self._child or self._start(), pickle.dumps(task))
        if answer is None:
            code, _ = self.end()
            if code == -signal.SIGALRM:
                return Ended("took too long", f"not done within {self._time_limit:g} s")
            return Ended("crashed", f"the process ended with code {code}")
        result, broken = answer
        if broken:
            raise BrokenError(f"{self._name} is broken; it failed for {task}:\n{broken}")
        return result

    def stop(self) -> None:
        """Has `run`, which another thread may be in, come to an end soon."""
        self._stopped = True
        self.kill()

    def kill(self) -> None:
        """Has a task that another thread waits for come to an end."""
        if (child := self._child) is not None:
            child.kill()

    def end(self) -> tuple[int | None, str]:
        """Ends the process; returns its exit code and what it said while it started."""
        child, self._child = self._child, None
        if child is None:
            return None, ""
        child.kill()
        _, said = child.communicate()
        return child.returncode, said.decode(errors="replace")

    def _start(self) -> subprocess.Popen:
        child = self._child = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            process_group=0,  # An interrupt from the keyboard is for the build, which ends it.
        )
        if self._stopped:  # Meanwhile, by another thread.
            child.kill()
        if _ask(child, self._setup) is None:
            code, said = self.end()
            raise BrokenError(f"{self._name} does not start, exit status {code}:\n{said}")
        return child


def _ask(child: subprocess.Popen, request: bytes) -> Any:
    """Returns what a process answers; None if it ended."""
    with contextlib.suppress(OSError):  # It ended before.
        child.stdin.write(request)
        child.stdin.flush()
    try:
        return pickle.load(child.stdout)
    except Exception:  # Whatever pickle makes of what a dying process left.
        return None


def serve() -> None:
    """Is the process: reads what `run_all` sends; answers each task until there is no parent."""
    # The system's own alarm ends what hangs, even in code that never lets Python run again, and
    # after the parent was killed.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_START_LIMIT)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    global _is_limited
    _is_limited = True
    function, initialise, time_limit, max_memory = pickle.load(requests)
    if initialise:
        initialise()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = max_memory if most == resource.RLIM_INFINITY else min(max_memory, most)
    with contextlib.suppress(ValueError, OSError):  # macOS may refuse; then there is no limit.
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    with open(os.devnull, "wb") as nowhere:  # What a library prints must not get among answers.
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    answer: tuple[Any, str] = None, ""  # That it is ready.
    while True:
        signal.alarm(0)
        pickle.dump(answer, answers)
        answers.flush()
        try:
            task = pickle.load(requests)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, time_limit)
        try:
            answer = function(task), ""
        except Exception:
            answer = None, traceback.format_exc()
