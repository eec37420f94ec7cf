"""What the commands that measure share: flags, tables, files of figures."""

import argparse
from collections.abc import Sequence
import json
import pathlib
import statistics
from typing import Any

import numpy as np
import rich.console
import rich.table

from experiments import cli
from perceiver_jax import config as config_lib

ROOT = pathlib.Path(__file__).parents[2]


def make_parser(name: str, doc: str, repeats: int) -> cli.Parser:
    """Returns the parser of a command, which knows `--repeats` and `--json`."""
    parser = cli.Parser(
        f"python -m experiments.benchmarks.{name}", description=doc.partition("\n")[0]
    )
    parser.add_argument(
        "--repeats", type=positive, default=repeats, help=f"of all that is timed; default {repeats}"
    )
    parser.add_argument("--json", type=_file, metavar="FILE", help="also write the figures")
    return parser


def positive(text: str) -> int:
    """The type of a flag that is a number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text}; expected a whole number, at least 1")
    return int(text)


def _file(text: str) -> pathlib.Path:
    """The type of a flag that is a file to be written."""
    path = pathlib.Path(text)
    try:
        cli.check_place("json", path, is_folder=False)
    except config_lib.UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return path


def write(result: Any, path: pathlib.Path | None) -> None:
    """Writes figures as JSON if there is a path."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Prints rows under their columns, all but the first to the right."""
    table = rich.table.Table(columns[0], title=title, title_justify="left")
    for column in columns[1:]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    rich.console.Console(soft_wrap=True).print(table)


def number(value: float | None) -> str:
    """Formats a figure; None is one that the system can't tell."""
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def spread(values: Sequence[float | None]) -> str:
    """Formats the lower and upper quartile of figures."""
    return "-" if None in values else " - ".join(map(number, np.percentile(values, [25, 75])))


def median(values: Sequence[float | None]) -> str:
    """Formats the median of figures."""
    return number(None if None in values else statistics.median(values))
