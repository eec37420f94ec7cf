"""How training goes: on screen, in the workdir's files and curves.

`Display` draws a live bar on a terminal, plain lines elsewhere, a table at the end; `Recorder`
knows what to show and to write, and keeps what later averages depend on.
"""

from collections.abc import Iterator, Mapping
import contextlib
import math
import pathlib
import time
from typing import Any

import jax
import rich.console
import rich.progress
import rich.table
import rich.text

from perceiver_jax.training import evaluation, plots, writers
from perceiver_jax.training import task as task_lib

# What a step returns that is not averaged over steps.
NOT_AVERAGED = ("learning_rate", "skipped")


class Display:
    """Shows the progress of training.

    Args:
      console: Where to; a live bar if it is a terminal, lines if it is a file or a pipe.
      start: The step that training resumes from.
      steps: The step that it ends at.
      labels: Of the metrics that are shown, by name.
    """

    def __init__(
        self, console: rich.console.Console, start: int, steps: int, labels: Mapping[str, str]
    ):
        """Begins to draw the bar."""
        self._console, self._start, self._steps = console, start, steps
        self._labels = labels
        self._begin = time.perf_counter()
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.MofNCompleteColumn(),
            rich.progress.BarColumn(bar_width=None),
            rich.progress.TextColumn("{task.fields[metrics]}", markup=False),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("left"),
            console=console,
            expand=True,
            transient=True,
            refresh_per_second=4,
            speed_estimate_period=600.0,  # Seconds; a step of a large model may take a minute.
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=steps, completed=start, metrics="")
        if start < steps:
            self._bar.start()

    def close(self) -> None:
        """Gives the terminal back."""
        self._bar.stop()

    def say(self, text: str) -> None:
        """Prints a line; above the bar if there is one."""
        say(self._console, text)

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Says that something takes a while, and how long it took after."""
        with _timed(self._console, what), self.busy(what):
            yield
        self._begin = time.perf_counter()

    @contextlib.contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Shows on the bar that something else than training goes on."""
        self._bar.update(self._task, description=what, metrics="")
        try:
            yield
        finally:
            self._bar.update(self._task, description="")

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """Moves the bar to a step."""
        shown = f"{self._shown(metrics)}  {_speed(metrics)}"
        self._bar.update(self._task, completed=step, metrics=shown)

    def train_line(self, step: int, metrics: dict[str, float]) -> None:
        """Prints the training metrics after `step` updates; on a terminal the bar has them."""
        if not self._console.is_terminal:
            elapsed = time.perf_counter() - self._begin
            left = _seconds(elapsed / (step - self._start) * (self._steps - step))
            self._line("train", step, f"{self._shown(metrics)}  {_speed(metrics)}  {left} left")

    def test_line(self, step: int, metrics: dict[str, float]) -> None:
        """Prints the test metrics after `step` updates, and of how many `examples` they are."""
        self._line("test", step, f"{self._shown(metrics)}  {metrics['examples']:,} examples")

    def result(
        self,
        train: dict[str, Any],
        test: dict[str, Any],
        best: dict[str, Any],
        seconds: float,
        workdir: pathlib.Path,
    ) -> None:
        """Prints the final table.

        Args:
          train: The last training metrics.
          test: Metrics of the test split, and how many `examples` and `windows` were evaluated.
          best: `step`, `metric` and `value` of the best evaluation.
          seconds: Time taken.
          workdir: Where everything was written.
        """
        self._bar.stop()
        labels = {name: x for name, x in self._labels.items() if name in test}
        table = rich.table.Table("split")
        for label in labels.values():
            table.add_column(label, justify="right")
        table.add_row("train", *(_number(train[x]) if x in train else "" for x in labels))
        table.add_row("test", *(_number(test[x]) for x in labels), style="bold")
        self._console.print(table)
        self.say(f"tested on {test['examples']:,} examples, {test['windows']:,} windows in all")
        self.say(
            f"best {self._labels[best['metric']]} {_number(best['value'])} at step {best['step']}; "
            f"took {_seconds(seconds)}; results are in {workdir}"
        )

    def _shown(self, metrics: Mapping[str, float]) -> str:
        return "  ".join(
            f"{label} {_number(metrics[name])}"
            for name, label in self._labels.items()
            if name in metrics
        )

    def _line(self, split: str, step: int, text: str) -> None:
        self.say(f"{split:5} {step:{len(str(self._steps))}}/{self._steps}  {text}")


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
        screen: Display,
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


def say(console: rich.console.Console, text: str) -> None:
    """Prints a line as it is: what looks like markup or a pattern may be the name of a file."""
    console.print(rich.text.Text(text), highlight=False, soft_wrap=True)


@contextlib.contextmanager
def timed(console: rich.console.Console, what: str) -> Iterator[None]:
    """Says what is going on, with a clock on a terminal, and how long it took after."""
    bar = rich.progress.Progress(
        rich.progress.SpinnerColumn(),
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    bar.add_task(what, total=None)
    with _timed(console, what), bar:
        yield


@contextlib.contextmanager
def _timed(console: rich.console.Console, what: str) -> Iterator[None]:
    if not console.is_terminal:
        console.print(f"{what} ...", end=" ", highlight=False, markup=False, soft_wrap=True)
        console.file.flush()
    begin, taken = time.perf_counter(), "not finished"
    try:
        yield
        taken = _seconds(time.perf_counter() - begin)
    finally:
        say(console, f"{what} ... {taken}" if console.is_terminal else taken)


def _speed(metrics: dict[str, float]) -> str:
    speed = metrics["examples_per_second"]
    return f"{speed:,.0f} examples/s" if speed >= 10 else f"{speed:.2g} examples/s"


def _number(x: float | None) -> str:
    return "nan" if x is None else f"{x:.4f}"


def _seconds(seconds: float) -> str:
    """Returns '0.4 s', '12 s', '3 min 20 s' or '2 h 5 min'."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
