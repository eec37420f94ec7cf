"""What a run shows: a live bar on a terminal, plain lines elsewhere, a table at the end."""

from collections.abc import Iterator, Mapping
import contextlib
import pathlib
import time
from typing import Any

import rich.console
import rich.progress
import rich.table
import rich.text


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
