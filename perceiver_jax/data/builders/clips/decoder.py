"""A child process that decodes clips, and as many of them as there are cores."""

import collections
from collections.abc import Iterable, Iterator
import concurrent.futures
import os
import pickle
import queue
import subprocess
import sys
import threading
from typing import Any

from perceiver_jax.data.builders.clips import decode

TIMEOUT = 300.0  # Seconds for a clip; it is hung if it takes longer.


class Decoder:
    """Runs `decode.py`; a child that died or hangs is replaced, and the clip refused."""

    def __init__(self, timeout: float = TIMEOUT):
        """Starts nothing yet."""
        self._timeout = timeout
        self._child: subprocess.Popen | None = None

    def decode(self, **request: Any) -> dict:
        """Decodes a clip; arguments and result are those of `decode.decode`."""
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-P", decode.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        child = self._child
        timer = threading.Timer(self._timeout, child.kill)
        timer.start()
        try:
            pickle.dump(request, child.stdin)
            child.stdin.flush()
            return pickle.load(child.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            hung = not timer.is_alive()
            self.close()
            why = f"more than {self._timeout} s" if hung else f"exit status {child.returncode}"
            return {"error": ("crashed", f"the decoder was ended: {why}")}
        finally:
            timer.cancel()

    def close(self) -> None:
        """Ends the child."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def decode_all(requests: Iterable[dict[str, Any]], num_decoders: int) -> Iterator[dict]:
    """Yields the results of many requests in their order, decoded side by side."""
    free: queue.SimpleQueue[Decoder] = queue.SimpleQueue()
    decoders = [Decoder() for _ in range(num_decoders)]
    for decoder in decoders:
        free.put(decoder)

    def run(request: dict[str, Any]) -> dict:
        decoder = free.get()
        try:
            return decoder.decode(**request)
        finally:
            free.put(decoder)

    pending: collections.deque[concurrent.futures.Future] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(num_decoders) as pool:
        try:
            for request in requests:
                pending.append(pool.submit(run, request))
                if len(pending) > 2 * num_decoders:  # Results wait in memory.
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            for decoder in decoders:
                decoder.close()


def num_cores() -> int:
    """Returns how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it.
    return len(affinity(0)) if affinity else os.cpu_count() or 1
