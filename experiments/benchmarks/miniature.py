r"""The paper's tables in miniature: every row trained for a while on a small set that comes along.

    python -m experiments.benchmarks.miniature --workdir=DIR [--only=pixels,points] \
        [--seeds=0,1,2] [--no_training]

Each row and seed is a run in a folder of its own, which `experiments.evaluate` takes, too. The same
command goes on where it was stopped, and runs that are finished are not run again, so that several
sittings make a table. All rows of the first seed come before the next seed. A model's learning rate
is the best of three, by the last 15 % of the training split after learning from the rest (seed 0).

Writes DIR/miniature.md after each run: the mean over the seeds with its 95 % t-interval, and the
difference from the row that each is compared with, with that of Welch. These are of training only,
not of the choice of test examples, which are the same for all rows.
"""

import argparse
from collections.abc import Mapping, Sequence
import dataclasses
import functools
import math
import pathlib
import sys
from typing import Any

import numpy as np

from experiments import cli, compilation_cache
from experiments.benchmarks import miniature_rows
import perceiver_jax
from perceiver_jax import config as config_lib

LEARNING_RATES = (5e-4, 1.5e-3, 4.5e-3)
VALIDATION = {"train_split": "train[:85%]", "test_split": "train[85%:]"}
METRICS = {"fusion": "mAP"}  # Of tables; else top1.
CONFIDENCE = 0.95


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = cli.Parser(
        "python -m experiments.benchmarks.miniature", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="where all runs go")
    tables = list(miniature_rows.TITLES)
    parser.add_argument("--only", type=_words, default=tables, help=f"tables: {','.join(tables)}")
    parser.add_argument("--seeds", type=_seeds, default=[0, 1, 2], help="default: 0,1,2")
    parser.add_argument(
        "--no_training", action="store_true", help="write the table of what is there"
    )
    compilation_cache.add_flag(parser)
    with cli.user_errors_end_the_program():
        flags = parser.parse_args(argv)
        for table in flags.only:
            config_lib.check_known("table", table, tables)
        cli.check_place("workdir", flags.workdir)
        from perceiver_jax.training import preemption  # Takes a second.

        compilation_cache.use(flags.compilation_cache, flags.workdir / "run")
        rows = miniature_rows.all_rows()
        with preemption.Preemption() as signals:
            try:
                if not flags.no_training:
                    train(rows, flags.only, flags.seeds, flags.workdir, signals)
            except (preemption.Preempted, KeyboardInterrupt) as error:
                what = str(error) or preemption.NOTHING_NEW
                print(f"\n{what}. The same command goes on.", file=sys.stderr)
                sys.exit(preemption.EXIT_CODE)
        print(write(rows, flags.workdir))


def train(
    rows: Sequence[miniature_rows.Row],
    tables: Sequence[str],
    seeds: Sequence[int],
    workdir: pathlib.Path,
    signals: Any = None,
) -> None:
    """Trains what is not finished: all rows with the first seed, then with the next one.

    Args:
      rows: all there are.
      tables: names of those whose rows are trained.
      seeds: of the runs.
      workdir: of all runs.
      signals: see `perceiver_jax.train`.
    """
    by_folder = {row.folder: row for row in rows}
    for seed in seeds:
        for row in {row.folder: row for row in rows if row.table in tables}.values():
            config = row.make()
            if row.tuned:
                tuned = by_folder[row.tuned]
                config.optimizer.learning_rate = tune(tuned, workdir, signals)
            config.seed = seed
            if finish(config, workdir / row.folder / f"seed_{seed}", signals):
                write(rows, workdir)


def tune(row: miniature_rows.Row, workdir: pathlib.Path, signals: Any = None) -> float:
    """Returns the best of LEARNING_RATES by validation, after training what is not finished."""
    scores = {}
    for rate in LEARNING_RATES:
        config = row.make()
        config.data.update(VALIDATION)
        config.optimizer.learning_rate = rate
        folder = workdir / "validation" / row.folder / f"{rate}"
        finish(config, folder, signals)
        scores[rate] = _result(folder)[_metric(row)]
    return max(scores, key=lambda rate: scores[rate])


def finish(config: Any, workdir: pathlib.Path, signals: Any = None) -> bool:
    """Trains a run to its end; returns False if it was there already.

    Raises:
      UserError: if the workdir has a run of another config.
    """
    from perceiver_jax import workdir as workdir_lib  # Here, for they take seconds.

    plain = type(config)(workdir_lib.plain(config.to_dict()))
    workdir_lib.check_unchanged(plain, workdir)
    if _result(workdir):
        return False
    print(f"{workdir}:", end=" ", flush=True)
    metrics = perceiver_jax.train(config, workdir, quiet=True, signals=signals)
    print(f"top-1 {100 * metrics['top1']:.1f}", flush=True)
    return True


def write(rows: Sequence[miniature_rows.Row], workdir: pathlib.Path) -> str:
    """Writes and returns the table of all that is finished, in Markdown."""
    found = {row.folder: _scores(row, workdir / row.folder) for row in rows}
    shown = ["| model | parameters | MFLOP | learning rate | by seed | mean | difference |"]
    shown.append("|---|---|---|---|---|---|---|")
    table = None
    for row in rows:
        if row.table != table:
            table = row.table
            metric = " (mAP)" if _metric(row) == "mAP" else ""
            shown.append(f"| **{miniature_rows.TITLES[table]}{metric}** |||||||")
        shown.append(_line(row, found, workdir))
    text = "\n".join(shown) + "\n"
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "miniature.md").write_text(text)
    return text


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns the mean, and half the width of its t-interval; None of a single value."""
    if len(values) < 2:
        return float(np.mean(values)), None
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    return float(np.mean(values)), _quantile(len(values) - 1) * float(error)


def difference_interval(
    values: Sequence[float], others: Sequence[float]
) -> tuple[float, float | None]:
    """Returns the difference of two means, and half the width of Welch's interval of it."""
    difference = float(np.mean(values) - np.mean(others))
    if min(len(values), len(others)) < 2:
        return difference, None
    errors = [np.var(x, ddof=1) / len(x) for x in (values, others)]
    if not sum(errors):
        return difference, 0.0
    freedom = sum(errors) ** 2 / sum(
        e**2 / (len(x) - 1) for e, x in zip(errors, (values, others), strict=True)
    )
    return difference, _quantile(freedom) * math.sqrt(sum(errors))


def _quantile(freedom: float) -> float:
    from scipy import special  # Here, for it takes a second.

    return float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))


def _line(row: miniature_rows.Row, found: Mapping[str, list[float]], workdir: pathlib.Path) -> str:
    scores = found[row.folder]
    if not scores:
        return f"| {row.name} | | | | not run | | |"
    rate, parameters, operations = _sizes(workdir / row.folder)
    mean, half = mean_interval(scores)
    cells = [
        row.name,
        f"{parameters:,}",
        f"{operations / 1e6:.1f}",
        f"{rate:g}",
        ", ".join(f"{x:.1f}" for x in scores),
        f"{mean:.1f}" + ("" if half is None else f" ± {half:.1f}"),
        _difference(row, found),
    ]
    return f"| {' | '.join(cells)} |"


def _difference(row, found):
    """What a row has more or less than the one that it is compared with."""
    if not row.against or not found[row.against]:
        return ""
    difference, half = difference_interval(found[row.folder], found[row.against])
    if half is None:
        return f"{difference:+.1f}, of too few seeds"
    verdict = ": within the noise" if abs(difference) <= half else ""
    return f"{difference:+.1f} ± {half:.1f}{verdict}"


def _scores(row: miniature_rows.Row, folder: pathlib.Path) -> list[float]:
    """The results of all finished seeds, in percent."""
    seeds = sorted(int(path.name.removeprefix("seed_")) for path in folder.glob("seed_*"))
    results = [_result(folder / f"seed_{seed}") for seed in seeds]
    return [100 * result[_metric(row)] for result in results if result]


def _metric(row: miniature_rows.Row) -> str:
    return METRICS.get(row.table, "top1")


def _result(workdir: pathlib.Path) -> dict[str, Any]:
    """The metrics of the test split at the end of a run; none if it is not finished."""
    from perceiver_jax import workdir as workdir_lib
    from perceiver_jax.training import writers

    lines = writers.read_metrics(workdir)
    if not lines:
        return {}
    steps = workdir_lib.read(workdir).train.steps
    return next((x for x in lines if x["split"] == "test" and x["step"] == steps), {})


@functools.cache  # The table is written after each run; what is finished stays as it is.
def _sizes(folder: pathlib.Path) -> tuple[float, int, int]:
    """Learning rate, parameters and FLOPs of a row, whose runs differ in their seeds alone."""
    from perceiver_jax import data as data_lib
    from perceiver_jax import summary
    from perceiver_jax import workdir as workdir_lib

    config = workdir_lib.read(min(path for path in folder.glob("seed_*") if _result(path)))
    data = dataclasses.replace(data_lib.build_data(**config.data), batch_size=1)
    described = summary.describe_model(config, data.zero_batch())
    rate = config.optimizer.learning_rate
    return rate, described["parameters"], described["flops"]["executed"]


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _seeds(text: str) -> list[int]:
    if not text or not all(word.isdecimal() for word in text.split(",")):
        raise argparse.ArgumentTypeError(f"got {text!r}; expected whole numbers such as 0,1,2")
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    main(sys.argv[1:])
