"""How a benchmark and the processes that it times talk: a JSON object a line.

Each worker (our model, a peer) has a process of its own, so that memory is its own, and runs a step
when it is told to, so that workers take turns. Only the standard library is imported here: peers
live in environments without JAX.
"""

from collections.abc import Callable, Mapping
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

_ROOT = pathlib.Path(__file__).parents[2]
_STATUS = pathlib.Path("/proc/self/status")


class WorkerError(RuntimeError):
    """Something that can't be measured; the message says why, after "it"."""


class Worker:
    """The parent's handle of a process that answers with `serve`."""

    def __init__(self, python: str, module: str, settings: Mapping[str, Any], **environment: str):
        """Starts the process; it begins to prepare at once.

        Args:
          python: the interpreter.
          module: what it runs, which calls `serve`.
          settings: what is measured; JSON values.
          **environment: variables to add.
        """
        self._process = subprocess.Popen(
            [python, "-m", module, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env=os.environ | environment,
        )

    def ask(self, action: str = "") -> dict[str, Any]:
        """Sends the name of an action, none at first, and waits for the answer.

        Raises:
          WorkerError: if the worker gave a reason why it can't be measured, or ended without one.
        """
        if action:
            self._process.stdin.write(action + "\n")
            self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or "null")
        if answer is None or "error" in answer:
            self.close()
            ended = f"ended with exit code {self._process.returncode}, see its output above"
            raise WorkerError(answer["error"] if answer else ended)
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def serve(
    prepare: Callable[[dict[str, Any]], tuple[dict, Mapping[str, Callable[[], Any]]]],
) -> None:
    """Answers the parent until it closes the pipe.

    The first answer says what was prepared; then each line names an action, whose answer is the
    `seconds` that it took. `memory` answers `peak_megabytes`, above what was resident when the
    worker was ready (null where the system can't tell).

    Args:
      prepare: given the settings, returns facts (JSON values) and actions, which block until done.
        A `WorkerError` that it raises is passed on.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # What libraries print must not mix with the answers.
    try:
        facts, actions = prepare(json.loads(sys.argv[1]))
    except WorkerError as error:
        print(json.dumps({"error": str(error)}), file=answers)
        return
    ready = resident("VmRSS")
    forget_peak()
    print(json.dumps(facts), file=answers)
    for line in sys.stdin:
        if line.strip() == "memory":
            peak = resident("VmHWM")
            answer = {"peak_megabytes": None if peak is None else peak - ready}
        else:
            begin = time.perf_counter()
            actions[line.strip()]()
            answer = {"seconds": time.perf_counter() - begin}
        print(json.dumps(answer), file=answers)


def forget_peak() -> None:
    """Makes `resident("VmHWM")` the peak from now on, where there is such a thing."""
    if _STATUS.exists():
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def resident(field: str) -> float | None:
    """Megabytes of memory: `VmRSS` now, `VmHWM` at the peak; None where there is no such file."""
    if not _STATUS.exists():
        return None
    (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) / 1024
