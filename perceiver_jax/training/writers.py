"""What a run leaves in its workdir: `config.json`, `metrics.jsonl` and TensorBoard events."""

import json
import math
import os
import pathlib
from typing import Any

METRICS_FILE = "metrics.jsonl"


class MetricsWriter:
    """Appends metrics to `metrics.jsonl`, an object a line, and to TensorBoard's events.

    Lines of later steps than the one that training goes on from are cut off first: they are going
    to be written again.

    Args:
      workdir: Where to write.
      step: The step that training starts or goes on from.
    """

    def __init__(self, workdir: pathlib.Path, step: int = 0):
        """Opens the files."""
        import tensorboardX  # Here, for it takes a while.

        path = workdir / METRICS_FILE
        kept = [line for line in read_metrics(workdir) if line["step"] <= step]
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")
        self._events = tensorboardX.SummaryWriter(
            str(workdir / "tensorboard"), purge_step=step + 1 if step else None
        )

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Writes the metrics of a split after `step` updates; NaN and infinity become null."""
        finite = {name: x if math.isfinite(x) else None for name, x in metrics.items()}
        self._file.write(json.dumps({"step": step, "split": split, **finite}) + "\n")
        self._file.flush()
        for name, x in metrics.items():
            self._events.add_scalar(f"{split}/{name}", x, step)

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        self._events.close()


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of `metrics.jsonl`, without the half a line that a kill may leave."""
    path = workdir / METRICS_FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def write_config(workdir: pathlib.Path, config: dict[str, Any]) -> None:
    """Writes `config.json`."""
    write_atomically(workdir / "config.json", json.dumps(config, indent=2) + "\n")


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Replaces a file whole, so that no reader and no kill ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
