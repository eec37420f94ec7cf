"""A child process that decodes clips, and as many of them as there are cores."""

import collections
from collections.abc import Iterable, Iterator
import concurrent.futures
import os
import pathlib
import pickle
import queue
import subprocess
import sys
import threading
from typing import Any

from perceiver_jax.data.builders.clips import decode

TIMEOUT = 300.0  # Seconds for a clip; it is hung if it takes longer.

# `clips` as a package of its own: to import it as a part of this one takes seconds.
_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from clips import decode; decode.main()"


class BrokenDecoderError(Exception):
    """The decoder itself fails, by a bug or what is installed; no clip is at fault."""


class Decoder:
    """Runs `decode.py`; a child that died or hangs is replaced, and the clip refused.

    A child that can't start, or made a call that its libraries don't take, is an error.
    """

    def __init__(self, timeout: float = TIMEOUT):
        """Starts nothing yet."""
        self._timeout = timeout
        self._child: subprocess.Popen | None = None
        self._started = False

    def decode(self, **request: Any) -> dict:
        """Decodes a clip; arguments and result are those of `decode.decode`."""
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, pathlib.Path(decode.__file__).parents[1]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            self._started = False
        child = self._child
        timer = threading.Timer(self._timeout, child.kill)
        timer.start()
        try:
            self._started = self._started or pickle.load(child.stdout) == decode.READY
            pickle.dump(request, child.stdin)
            child.stdin.flush()
            reply = pickle.load(child.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            hung = not timer.is_alive()
            said = self.close()
            why = f"more than {self._timeout} s" if hung else f"exit status {child.returncode}"
            if not (self._started or hung):
                raise BrokenDecoderError(f"The decoder does not start, {why}:\n{said}") from None
            return {"error": ("crashed", f"the decoder was ended: {why}")}
        finally:
            timer.cancel()
        if "broken" in reply:
            raise BrokenDecoderError(
                f"The decoder is broken; it failed for {request['path']}:\n{reply['broken']}"
            )
        return reply

    def kill(self) -> None:
        """Has a call of `decode` in another thread end soon."""
        if (child := self._child) is not None:
            child.kill()

    def close(self) -> str:
        """Ends the child; returns what it said while it started."""
        if self._child is None:
            return ""
        self._child.kill()
        _, said = self._child.communicate()
        self._child = None
        return said.decode(errors="replace")


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
    try:
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
                    decoder.kill()
    finally:  # Only now no thread uses them.
        for decoder in decoders:
            decoder.close()


def num_cores() -> int:
    """Returns how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it.
    return len(affinity(0)) if affinity else os.cpu_count() or 1
