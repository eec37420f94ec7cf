r"""Measures how long a training takes to its first step, and what importing the package costs.

    python -m experiments.benchmark_startup [--config=FILE[:ARGUMENTS] ...] [--repeats=3] \
        [--imports=9] [--json=FILE] [--config.key=value ...]

The first step is the moment when its metrics are in `metrics.jsonl`, counted from the start of the
process. `cold` runs compile, into an empty directory; each is followed by a `warm` one, which loads
what it kept. Data sets are built before. Processor time, of all threads, is given, too: on an idle
machine it changes least from one time to the next.

Importing `perceiver_jax` is compared with importing `jax` and `haiku`, in fresh processes that take
turns.
"""

import argparse
from collections.abc import Sequence
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import rich.console
import rich.table

from experiments import arguments

CONFIGS = tuple(
    f"experiments/configs/{name}.py:mini" for name in ("modelnet40", "audioset", "imagenet")
)
IMPORTS = ("perceiver_jax", "jax, haiku")
_ROOT = pathlib.Path(__file__).parents[1]
# Metrics are written as soon as the step is done.
_FLAGS = tuple(
    f"--config.train.{key}" for key in ("log_every=1", "checkpoint_every=1", "eval_every=0")
)
_POLL_SECONDS = 0.01


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        "python -m experiments.benchmark_startup", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--config", action="append", metavar="FILE[:ARGUMENTS]", help="default: three minis"
    )
    parser.add_argument("--repeats", type=int, default=3, help="cold and warm runs of each config")
    parser.add_argument("--imports", type=int, default=9, help="processes for each import")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write the figures")
    words, overrides = arguments.split_overrides(argv)
    flags = parser.parse_args(words)
    with arguments.user_errors_end_the_program():
        for name in ("repeats", "imports"):
            if getattr(flags, name) < 1:
                raise arguments.UsageError(f"--{name}={getattr(flags, name)}; expected at least 1.")
        result = {
            "imports": measure_imports(flags.imports),
            "first_step": {
                name: measure_first_step(name, overrides, flags.repeats)
                for name in flags.config or CONFIGS
            },
        }
        report(result)
        if flags.json:
            flags.json.write_text(json.dumps(result, indent=2) + "\n")


def measure_imports(repeats: int) -> dict[str, list[float]]:
    """Returns the seconds that importing takes in fresh processes, by what is imported."""
    seconds = {modules: [] for modules in IMPORTS}
    for _ in range(1 + repeats):  # The first reads from the disk.
        for modules in IMPORTS:
            code = (
                f"import time; begin = time.perf_counter(); import {modules}; "
                "print(time.perf_counter() - begin)"
            )
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True
            )
            seconds[modules].append(float(done.stdout))
    return {modules: times[1:] for modules, times in seconds.items()}


def measure_first_step(
    config_name: str, overrides: Sequence[tuple[str, str]], repeats: int
) -> dict[str, list[dict[str, float | None]]]:
    """Trains a config to its first step, with and without compiled programs, in turns.

    Args:
      config_name: what `--config` of `experiments.train` takes.
      overrides: keys to set, and the text of their values.
      repeats: runs of each kind.

    Returns:
      `seconds` and `cpu_seconds` (None where the system can't tell) of the `cold` and `warm` runs.

    Raises:
      UsageError: if a run ends before its first step.
    """
    config = arguments.load_config_with(config_name, overrides)
    from perceiver_jax import data  # Takes a second.

    data.build_data(**config.data).train_batches(seed=0)  # Builds the set if need be.
    result = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as root:
        for turn in range(repeats):
            place = pathlib.Path(root) / str(turn)
            for kind, runs in result.items():
                print(f"{config_name}, {kind} ...", file=sys.stderr)
                keys = [f"--config.{key}={text}" for key, text in overrides]
                flags = [f"--config={config_name}", *keys, *_FLAGS]
                runs.append(_run(flags, place / kind, place / "programs"))
    return result


def report(result: dict[str, Any]) -> None:
    """Prints the figures."""
    table = rich.table.Table("to the first step", "run", "seconds", "processor seconds")
    for name, kinds in result["first_step"].items():
        for kind, runs in kinds.items():
            cells = [_range([run[key] for run in runs]) for key in ("seconds", "cpu_seconds")]
            table.add_row(pathlib.Path(name).name, kind, *cells)
    console = rich.console.Console(soft_wrap=True, highlight=False)
    console.print(table)
    ours, theirs = (result["imports"][modules] for modules in IMPORTS)
    console.print(
        f"import {IMPORTS[0]} takes {statistics.median(ours):.2f} s, import {IMPORTS[1]} "
        f"{statistics.median(theirs):.2f} s: {import_ratio(result):.2f} times; medians of "
        f"{len(ours)} processes each"
    )


def import_ratio(result: dict[str, Any]) -> float:
    """How many times as long as JAX and Haiku importing the package takes."""
    ours, theirs = (statistics.median(result["imports"][modules]) for modules in IMPORTS)
    return ours / theirs


def _run(
    flags: Sequence[str], workdir: pathlib.Path, programs: pathlib.Path
) -> dict[str, float | None]:
    """Trains until the first step is done, and ends the process."""
    places = [f"--workdir={workdir}", f"--compilation_cache={programs}"]
    command = [sys.executable, "-m", "experiments.train", *flags, *places]
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "1"}
    metrics = workdir / "metrics.jsonl"
    with tempfile.TemporaryFile("w+") as log:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=_ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        while not (metrics.exists() and metrics.stat().st_size):
            if process.poll() is not None:
                log.seek(0)
                raise arguments.UsageError(
                    f"A run ended with exit code {process.returncode} before its first step: "
                    f"{' '.join(command)}\n{log.read()}"
                )
            time.sleep(_POLL_SECONDS)
        seconds, cpu_seconds = time.perf_counter() - begin, _cpu_seconds(process.pid)
        process.send_signal(signal.SIGTERM)
        process.wait()
    return {"seconds": seconds, "cpu_seconds": cpu_seconds}


def _cpu_seconds(pid: int) -> float | None:
    path = pathlib.Path(f"/proc/{pid}/stat")
    if not path.exists():
        return None
    fields = path.read_text().rpartition(")")[2].split()  # The name before may have spaces.
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _range(values: Sequence[float | None]) -> str:
    if None in values:
        return "-"
    spread = f" ({min(values):.1f} - {max(values):.1f})" if len(values) > 1 else ""
    return f"{statistics.median(values):.1f}{spread}"


if __name__ == "__main__":
    main(sys.argv[1:])
