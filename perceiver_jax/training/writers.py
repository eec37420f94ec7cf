"""What a run leaves in its workdir: config, fingerprint of the data, metrics, events."""

from collections.abc import Iterator
import contextlib
import json
import math
import os
import pathlib
import time
from typing import Any

from perceiver_jax import config

METRICS_FILE = "metrics.jsonl"


class MetricsWriter:
    """Appends metrics to `metrics.jsonl`, an object a line, and to TensorBoard's events.

    What was written after the checkpoint that training resumes from is cut off first: it will be
    written again. TensorBoard hides such events itself.

    Args:
      workdir: Where to write.
      step: The step that training starts or resumes from.
      num_lines: How many lines `metrics.jsonl` had at that step.

    Attributes:
      num_lines: How many lines there are.
      num_missing: How many of those that there were at that step are not there any more.

    Raises:
      OSError: If something cannot be written; so do the methods.
    """

    def __init__(self, workdir: pathlib.Path, step: int = 0, num_lines: int = 0):
        """Opens the files."""
        from tensorboardX import event_file_writer  # Here, for it takes a while.
        from tensorboardX.proto import event_pb2

        self._path = workdir / METRICS_FILE
        kept = read_metrics(workdir)[:num_lines]
        self.num_lines, self.num_missing = len(kept), num_lines - len(kept)
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = self._path.open("a", encoding="utf-8")
        # tensorboardX's SummaryWriter would write in a thread, up to two minutes later: a killed
        # run would lose lines, one on a full disk would wait for the thread forever.
        events = workdir / "tensorboard" / "events"
        events.parent.mkdir(parents=True, exist_ok=True)
        suffix = f".{os.getpid()}.{time.monotonic_ns()}"
        self._events = event_file_writer.EventsWriter(str(events), suffix)
        self._event = event_pb2.Event
        if step:  # Hides what other files have of later steps.
            start = {"status": event_pb2.SessionLog.START}
            self._write_event(step=step + 1, session_log=start)

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Writes the metrics of a split after `step` updates; NaN and infinity become null."""
        self._check_in_place()
        finite = {name: x if math.isfinite(x) else None for name, x in metrics.items()}
        self._file.write(json.dumps({"step": step, "split": split, **finite}) + "\n")
        self._file.flush()
        self.num_lines += 1
        values = [{"tag": f"{split}/{name}", "simple_value": x} for name, x in metrics.items()]
        self._write_event(step=step, summary={"value": values})

    def flush(self) -> None:
        """Returns when everything is on disk, to outlast the machine."""
        self._check_in_place()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        self._events.close()

    def _write_event(self, **what: Any) -> None:
        self._events.write_event(self._event(wall_time=time.time(), **what))
        self._events.flush()

    def _check_in_place(self) -> None:
        """A deleted file takes what is written without an error, and is gone with the process."""
        opened = os.fstat(self._file.fileno())
        if not self._path.exists() or not os.path.samestat(opened, self._path.stat()):
            raise config.MissingFileError(
                f"{self._path} was deleted or replaced while training wrote to it; expected that "
                "nothing else changes the workdir. Bring the directory back; the same command "
                "resumes from the last checkpoint there."
            )


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of `metrics.jsonl`, without the half a line that a kill may leave."""
    path = workdir / METRICS_FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a file of JSON, whole."""
    write_atomically(path, json.dumps(value, indent=2) + "\n")


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Replaces a file whole, so that no reader, kill or crash ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a path to write a file to, which then takes the place of `path`."""
    temporary = path.with_name(f".tmp_{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
