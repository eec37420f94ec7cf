"""Records how training goes: on screen, in the workdir's files and curves."""

from collections.abc import Iterator
import contextlib
import math
import pathlib
import time
from typing import Any

import jax

from perceiver_jax.training import display, evaluation, plots, writers
from perceiver_jax.training import task as task_lib

# What a step returns that is not averaged over steps.
NOT_AVERAGED = ("learning_rate", "skipped")


class Recorder:
    """Shows every step of training, and writes averages of their metrics when told to.

    Of several processes the first writes.

    Args:
      workdir: Where `metrics.jsonl`, TensorBoard events and `curves.png` go.
      screen: Where progress is shown.
      task: Whose main metric says which evaluation is the best.
      step: The step that training resumes from.
      saved: What `to_json` gave at that step; None to begin.

    Attributes:
      evaluated: The step of the last evaluation; 0 if there was none.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        screen: display.Display,
        task: task_lib.Task,
        step: int,
        saved: dict[str, Any] | None,
    ):
        """Opens the files."""
        none = {"sums": {}, "count": 0, "skipped": 0, "best": None, "evaluated": 0, "lines": 0}
        saved = saved or none
        self._sums, self._count, self._skipped = saved["sums"], saved["count"], saved["skipped"]
        self._best, self.evaluated = saved["best"], saved["evaluated"]
        self._workdir, self._screen, self._task = workdir, screen, task
        writes = jax.process_index() == 0
        self._writer = writers.MetricsWriter(workdir, step, saved["lines"]) if writes else None
        if writes and self._writer.num_missing:
            screen.say(
                f"{self._writer.num_missing} lines are missing in {writers.METRICS_FILE}; "
                "someone has changed it"
            )
        self._examples, self._seconds = 0, 0.0

    def close(self) -> None:
        """Closes the files."""
        if self._writer is not None:
            self._writer.close()

    def start(self, batch_size: int) -> None:
        """Starts the clock that speed is measured by, of so many examples a step."""
        self._batch_size = batch_size
        self._last = time.perf_counter()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stops the clock for what is not training."""
        begin = time.perf_counter()
        yield
        self._last += time.perf_counter() - begin

    def train_step(self, step: int, metrics: dict[str, jax.Array], write: bool) -> dict[str, float]:
        """Takes the metrics of a step, and waits until they are there.

        Those of skipped updates are counted, and not averaged.

        Args:
          step: Which.
          metrics: What the update returned.
          write: Whether to write the averages since the last time, and begin new ones.

        Returns:
          The metrics of this step.
        """
        values = {name: float(x) for name, x in jax.device_get(metrics).items()}
        averaged = [name for name in values if name not in NOT_AVERAGED]
        now = time.perf_counter()
        self._seconds += now - self._last
        self._last = now
        self._examples += self._batch_size
        if values["skipped"]:
            self._skipped += 1
        else:
            self._count += 1
            for name in averaged:
                # A run that an earlier version saved may lack a sum.
                self._sums[name] = self._sums.get(name, 0.0) + values[name]
        line = {
            name: self._sums[name] / self._count if self._count else math.nan for name in averaged
        }
        line["skipped"] = self._skipped
        line["learning_rate"] = values["learning_rate"]
        line["examples_per_second"] = self._examples / self._seconds
        self._screen.step(step, line)
        if write:
            if self._writer is not None:
                self._writer.write(step, "train", line)
            self._screen.train_line(step, line)
            if self._skipped:
                self._screen.say(f"skipped {self._skipped} updates that were not finite")
            self._sums, self._count, self._skipped = {}, 0, 0
            self._examples, self._seconds = 0, 0.0
        return values

    def test(self, step: int, result: evaluation.Evaluation) -> None:
        """Takes an evaluation after `step` updates, and draws the curves anew."""
        line = result.metrics | result.counts
        self._screen.test_line(step, line)
        self.evaluated = step
        value = result.metrics[self._task.main_metric]
        best = math.nan if self._best is None else self._best["value"]
        if math.isnan(best) or (value < best if self._task.lower_is_better else value > best):
            self._best = {"step": step, "metric": self._task.main_metric, "value": value}
        if self._writer is not None:
            self._writer.write(step, "test", line)
            with writers.replacing(self._workdir / "curves.png") as path:
                plots.draw_curves(writers.read_metrics(self._workdir), self._task.shown, path)

    def to_json(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps, so that no step is missing from the next average.

        What is written so far is on disk when it returns.
        """
        if self._writer is not None:
            self._writer.flush()
        return {
            "sums": dict(self._sums),
            "count": self._count,
            "skipped": self._skipped,
            "best": self._best,
            "evaluated": self.evaluated,
            "lines": self._writer.num_lines if self._writer is not None else 0,
        }

    def report(self, result: evaluation.Evaluation, seconds: float) -> None:
        """Shows the end of training."""
        lines = writers.read_metrics(self._workdir)
        train = next((x for x in reversed(lines) if x["split"] == "train"), {})
        test = result.metrics | result.counts
        self._screen.result(train, test, self._best, seconds, self._workdir)
