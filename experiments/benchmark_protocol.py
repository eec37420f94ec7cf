"""How the benchmark and the processes that it times talk: a JSON object a line.

Each subject (our model, a peer) lives in a process of its own, so that memory is its own, and runs
a step when it is told to, so that the subjects take turns. Nothing but the standard library is
imported here: peers live in environments without JAX.
"""

from collections.abc import Callable, Mapping
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

_ROOT = pathlib.Path(__file__).parents[1]
_STATUS = pathlib.Path("/proc/self/status")
_MEGABYTE = 2**20


class SubjectError(RuntimeError):
    """A subject that can't be measured; the message says why."""


class Subject:
    """The parent's handle of a process that answers with `serve`.

    Args:
      python: the interpreter.
      module: the module to run, which calls `serve`.
      settings: what is measured; JSON values.
      environment: variables to add.
    """

    def __init__(
        self,
        python: str,
        module: str,
        settings: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ):
        """Starts the process; it begins to prepare at once."""
        self._process = subprocess.Popen(
            [python, "-m", module, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env=os.environ | dict(environment or {}),
        )

    def receive(self) -> dict[str, Any]:
        """Waits for the next answer.

        Raises:
          SubjectError: if the subject gave a reason why it can't go on, or ended without one.
        """
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {}
        if not line or "error" in answer:
            self.close()
            code = self._process.returncode
            raise SubjectError(
                answer.get("error", f"ended with exit code {code}, see its output above")
            )
        return answer

    def ask(self, request: str) -> dict[str, Any]:
        """Sends a request and waits for its answer."""
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        return self.receive()

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def serve(
    prepare: Callable[[dict[str, Any]], tuple[dict, Mapping[str, Callable[[], Any]]]],
) -> None:
    """Answers the parent until it closes the pipe.

    The first answer says what was prepared; then each line names an action. An action's answer is
    `seconds`, the time that it took, and `cpu_seconds`, of all threads; `memory` answers the peak
    in megabytes above what was resident when the subject was ready (null where the system can't
    tell).

    Args:
      prepare: given the settings, returns facts (JSON values) and actions, which block until done.
        A `SubjectError` that it raises is passed on.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # What libraries print must not mix with the answers.

    def answer(value: Mapping[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")

    try:
        facts, actions = prepare(json.loads(sys.argv[1]))
    except SubjectError as error:
        answer({"error": str(error)})
        return
    ready = resident("VmRSS")
    _reset_peak()
    answer(facts)
    for line in sys.stdin:
        if line.strip() == "memory":
            peak = resident("VmHWM")
            answer({"megabytes": None if peak is None else peak - ready})
            continue
        begin, cpu_begin = time.perf_counter(), time.process_time()
        actions[line.strip()]()
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
        answer({"seconds": seconds, "cpu_seconds": cpu_seconds})


def resident(field: str) -> float | None:
    """Megabytes of memory: `VmRSS` now, `VmHWM` at the peak; None where there is no such file."""
    if not _STATUS.exists():
        return None
    (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024 / _MEGABYTE


def _reset_peak() -> None:
    if _STATUS.exists():
        pathlib.Path("/proc/self/clear_refs").write_text("5")
