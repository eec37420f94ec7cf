"""Rows of many requests -> batches of few sizes, so that few programs are compiled."""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
import contextlib
import dataclasses
import threading
import time
from typing import Any

import numpy as np

from perceiver_jax import config

Rows = Mapping[str, np.ndarray]


class ExpiredError(Exception):
    """Rows waited for longer than their deadline."""


class StoppedError(Exception):
    """The batcher takes no more."""


@dataclasses.dataclass
class _Job:
    """Rows that were given together, and what has been computed of them."""

    rows: Rows
    number: int
    deadline: float
    begun: float
    future: futures.Future
    taken: int = 0
    parts: list[Rows] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Call:
    """Something else that the thread computes."""

    function: Callable[[], Any]
    deadline: float
    begun: float
    future: futures.Future


class Batcher:
    """One thread that computes batches of whatever rows wait, in the order in which they came.

    A batch waits for more rows while it has room, requests that will bring some are announced, and
    its first row has waited for less than `wait`. It is filled up to one of `sizes`.
    """

    def __init__(
        self,
        compute: Callable[[Rows], Rows],
        sizes: Sequence[int],
        wait: float = 0.005,
        observe: Callable[[int, int, float, float], None] = lambda *_: None,
    ):
        """Starts the thread.

        Args:
            compute: makes of rows [n, ...] results [n, ...], by name, row by row.
            sizes: numbers of rows that it is called with.
            wait: seconds, see above.
            observe: told of each batch: rows, rows with those that fill it up, seconds that the
                first one waited, seconds that it took.
        """
        config.check({"sizes": tuple(sizes)}, sizes=config.AT_LEAST_ONE)
        self.sizes = tuple(sorted(set(sizes)))
        self._compute, self._wait, self._observe = compute, wait, observe
        self._jobs: collections.deque[_Job | _Call] = collections.deque()
        self._changed = threading.Condition()
        self._announced = 0
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def submit(self, rows: Rows, deadline: float = float("inf")) -> futures.Future:
        """Returns the future results of rows.

        Args:
            rows: by name, [n, ...]; of all jobs of the same names, types and shapes.
            deadline: in seconds of `time.monotonic`, by which they have to be begun.

        Raises:
            StoppedError: it was stopped.
        """
        number = len(next(iter(rows.values())))
        return self._add(_Job(rows, number, deadline, time.monotonic(), futures.Future()))

    def call(self, function: Callable[[], Any], deadline: float = float("inf")) -> futures.Future:
        """Returns the future result of a function that computes something else, on its turn."""
        return self._add(_Call(function, deadline, time.monotonic(), futures.Future()))

    @contextlib.contextmanager
    def announced(self) -> Iterator[None]:
        """Tells that rows are about to be submitted."""
        self._announce(1)
        try:
            yield
        finally:
            self._announce(-1)

    def waiting(self) -> int:
        """Returns how many rows wait."""
        with self._changed:
            return sum(job.number - job.taken for job in self._jobs if isinstance(job, _Job))

    def stop(self) -> None:
        """Takes no more, computes what waits, and ends the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _announce(self, number: int) -> None:
        with self._changed:
            self._announced += number
            if not self._announced:
                self._changed.notify()

    def _add(self, job: _Job | _Call) -> futures.Future:
        with self._changed:
            if self._stopped:
                raise StoppedError("The server is ending.")
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            if isinstance(taken, _Call):
                _finish(taken.future, taken.function)
            else:
                self._compute_batch(*taken)

    def _take(self) -> _Call | tuple[list[tuple[_Job, slice]], int] | None:
        """Waits for what is to be computed next: a call, or rows and the size of their batch."""
        with self._changed:
            while True:
                self._drop_expired()
                if not self._jobs:
                    if self._stopped:
                        return None
                    self._changed.wait()
                    continue
                if isinstance(self._jobs[0], _Call):
                    return self._jobs.popleft()
                ready = self._ready()
                patience = self._jobs[0].begun + self._wait - time.monotonic()
                is_full = ready >= self.sizes[-1] or isinstance(self._jobs[-1], _Call)
                if is_full or patience <= 0 or not self._announced or self._stopped:
                    return self._take_rows(ready)
                self._changed.wait(patience)

    def _drop_expired(self) -> None:
        now = time.monotonic()
        begun = self._jobs[0] if self._jobs and getattr(self._jobs[0], "taken", 0) else None
        for job in [job for job in self._jobs if job.deadline < now and job is not begun]:
            self._jobs.remove(job)
            job.future.set_exception(ExpiredError("waited for too long"))

    def _ready(self) -> int:
        """How many rows wait before the first call."""
        number = 0
        for job in self._jobs:
            if isinstance(job, _Call):
                break
            number += job.number - job.taken
        return number

    def _take_rows(self, ready: int) -> tuple[list[tuple[_Job, slice]], int]:
        size = best_size(ready, self.sizes)
        taken, room = [], min(size, ready)
        while room:
            job = self._jobs[0]
            number = min(room, job.number - job.taken)
            taken.append((job, slice(job.taken, job.taken + number)))
            job.taken += number
            room -= number
            if job.taken == job.number:
                self._jobs.popleft()
        return taken, size

    def _compute_batch(self, taken: list[tuple[_Job, slice]], size: int) -> None:
        begun = time.monotonic()
        waited = begun - taken[0][0].begun
        number = sum(part.stop - part.start for _, part in taken)
        try:
            results = self._compute(_batch(taken, size))
        except Exception as error:  # Of the program, or the device's memory: the thread goes on.
            for job, _ in taken:
                self._fail(job, error)
            return
        self._observe(number, size, waited, time.monotonic() - begun)
        at = 0
        for job, part in taken:
            end = at + part.stop - part.start
            job.parts.append({name: x[at:end] for name, x in results.items()})
            at = end
            if part.stop == job.number:
                _finish(job.future, lambda job=job: _joined(job.parts))

    def _fail(self, job: _Job, error: Exception) -> None:
        with self._changed, contextlib.suppress(ValueError):
            self._jobs.remove(job)  # Of one whose last rows were taken there is nothing left.
        job.future.set_exception(error)


def best_size(ready: int, sizes: Sequence[int]) -> int:
    """Returns how large a batch is made of rows that wait.

    The smallest that takes them all if at least half of it is filled, else the largest that they
    fill: what is left goes with those that come meanwhile.
    """
    fitting = [size for size in sizes if size >= ready]
    filled = [size for size in sizes if size <= ready]
    if fitting and (2 * ready >= fitting[0] or not filled):
        return fitting[0]
    return filled[-1]


def _batch(taken: list[tuple[_Job, slice]], size: int) -> dict[str, np.ndarray]:
    """Puts rows together, and repeats the last one up to the size."""
    batch = {}
    for name in taken[0][0].rows:
        parts = [job.rows[name][part] for job, part in taken]
        lacking = size - sum(map(len, parts))
        batch[name] = np.concatenate([*parts, np.repeat(parts[-1][-1:], lacking, axis=0)])
    return batch


def _joined(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _finish(future: futures.Future, function: Callable[[], Any]) -> None:
    """Sets a future to what a function returns or raises."""
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)
