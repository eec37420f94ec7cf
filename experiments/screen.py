"""What a person sees of a command that goes through many examples: answers, errors, progress."""

import json
import pathlib
import sys
import time
from typing import Any

import rich.console
import rich.progress
import rich.table
import rich.text

_SHOWN = 20  # Rows that are printed of a table that is written.
_AT_ONCE = 25  # Rows of a table that are printed together.


class Screen:
    """Shows answers, errors and progress as they come.

    Answers are a table on a terminal, and JSON Lines elsewhere if they are in no file.

    Attributes:
      num: how many examples there were.
      num_errors: how many of them without an answer.
    """

    def __init__(
        self, outputs: Any, total: int | None, batch_size: int, written: pathlib.Path | None
    ):
        """Begins to count time.

        Args:
          outputs: those of the model.
          total: how many examples there will be, if that is known.
          batch_size: how many answers come at once.
          written: where they go, too.
        """
        self.num = self.num_errors = 0
        self._batch_size = batch_size
        self._outputs, self._written = outputs, written
        self._stdout = rich.console.Console()
        self._is_table = self._stdout.is_terminal
        console = self._stdout if self._is_table else rich.console.Console(stderr=True)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("predicting"),
            rich.progress.MofNCompleteColumn(),
            rich.progress.BarColumn(bar_width=None),
            rich.progress.TextColumn("{task.fields[rate]}"),
            rich.progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=sys.stderr.isatty(),
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, rate="")
        self._rows: list[list[rich.text.Text]] = []
        self._num_shown, self._printed = 0, time.perf_counter()
        self._begin, self._first = time.perf_counter(), 0.0

    def __enter__(self) -> "Screen":
        """Draws the bar."""
        self._bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        """Gives the terminal back."""
        self._print()
        self._bar.stop()

    def show(self, one: Any, record: dict[str, Any]) -> None:
        """Shows what became of an example."""
        now = time.perf_counter()
        self._first = self._first or now
        self.num += 1
        if one.error is not None:
            self.num_errors += 1
            say(f"Error: {one.error}")
        if not self._is_table:
            if self._written is None:
                print(json.dumps(record, ensure_ascii=False), flush=True)
        elif one.error is None:
            if self._written is None or self._num_shown < _SHOWN:
                self._num_shown += 1
                self._rows.append(_row(one, record, self._outputs))
            if len(self._rows) >= _AT_ONCE or now - self._printed > 0.5:
                self._print()
        rate = f"{self.num / (now - self._begin):,.1f} a second"
        self._bar.update(self._task, completed=self.num, rate=rate)

    def summary(self) -> str:
        """Says how many there were, and how quick it was, without the first batch: it compiles."""
        seconds = time.perf_counter() - self._begin
        first = self._first - self._begin
        rest = self.num - self.num_errors - self._batch_size
        speed = ""
        if rest > self._batch_size:
            rate = f"{rest / (seconds - first):,.1f} a second"
            speed = f", the first after {first:.1f} s and then {rate}"
        errors = f" {self.num_errors:,} without an answer." if self.num_errors else ""
        examples = f"{self.num:,} example{'s' * (self.num != 1)}"
        return f"{examples} in {seconds:.1f} s{speed}.{errors}"

    def _print(self) -> None:
        """Prints the rows that wait; all tables have columns of the same width."""
        if not self._rows:
            return
        is_first = self._num_shown == len(self._rows)
        table = rich.table.Table(box=None, expand=True, show_header=is_first, pad_edge=False)
        table.add_column("name", ratio=1, overflow="fold")
        for output in self._outputs:
            table.add_column(output.name, ratio=2, overflow="fold")
        for row in self._rows:
            table.add_row(*row)
        self._rows, self._printed = [], time.perf_counter()
        self._stdout.print(table)
        if self._written is not None and self._num_shown == _SHOWN:
            self._stdout.print(f"... all are in {self._written}", markup=False, highlight=False)


def _row(one: Any, record: dict[str, Any], outputs: Any) -> list[rich.text.Text]:
    """Returns the cells of an example in a table for people."""
    cells = [one.name]
    for name, kind, _ in outputs:
        x = one.answer[name]
        if kind == "classes":
            cells.append("  ".join(f"{label} {probability:.4f}" for label, probability in x))
        elif kind == "numbers":
            cells.append("  ".join(f"{number:.5g}" for number in x.ravel().tolist()))
        elif kind == "text":
            cells.append(x)
        else:
            cells.append(record[name] or f"{x.dtype} {list(x.shape)}")
    return [rich.text.Text(printable(cell)) for cell in cells]


def say(text: str) -> None:
    """Prints a line on stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """A text on one line, without what could do something to a terminal."""
    from perceiver_jax.data.builders import report

    return report.printable(text)
