r"""Measures how long a training takes to its first step, and what importing the package costs.

    python -m experiments.benchmarks.startup --config=experiments/configs/modelnet40.py:mini

The first step is the moment when its metrics are in `metrics.jsonl`, counted from the start of the
process. `cold` runs compile, into an empty directory; each is followed by a `warm` one, which loads
what it kept. Data sets are built before. Processor time, of all threads, is given, too: on an idle
machine it changes least from one time to the next.

Importing `perceiver_jax` is compared with importing `jax` and `haiku`, in fresh processes that take
turns.
"""

from collections.abc import Sequence
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from experiments import cli
from experiments.benchmarks import command
from perceiver_jax import config as config_lib

IMPORTS = ("perceiver_jax", "jax, haiku")
_NOW = "import time; begin = time.perf_counter(); import {}; print(time.perf_counter() - begin)"
# Metrics are written as soon as the step is done.
_FLAGS = [f"--config.train.{x}" for x in ("log_every=1", "checkpoint_every=1", "eval_every=0")]


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = command.make_parser("startup", __doc__, repeats=3)
    with cli.user_errors_end_the_program():
        flags, config = cli.parse_command_line(parser, argv)
        from perceiver_jax import data  # Takes a second.

        data.build_data(**config.data).train_batches(seed=0)  # Builds the set if need be.
        given = [f"--config.{key}={text}" for key, text in cli.split_overrides(argv)[1].items()]
        runs = measure_first_step([f"--config={flags.config}", *given], flags.repeats)
        imports = measure_imports(flags.repeats)
        command.write({"first_step": runs, "imports": imports}, flags.json)
    command.print_table(
        ("to the first step", "seconds", "quartiles", "processor seconds"),
        [
            (kind, command.median(elapsed), command.spread(elapsed), command.median(processor))
            for kind, times in runs.items()
            for elapsed, processor in [zip(*times, strict=True)]
        ],
        title=flags.config,
    )
    ours, theirs = (statistics.median(imports[modules]) for modules in IMPORTS)
    print(
        f"import {IMPORTS[0]} takes {ours:.2f} s, import {IMPORTS[1]} {theirs:.2f} s: "
        f"{ours / theirs:.2f} times"
    )


def measure_imports(repeats: int) -> dict[str, list[float]]:
    """Returns the seconds that importing takes in fresh processes, by what is imported."""
    seconds = {modules: [] for modules in IMPORTS}
    for _ in range(1 + repeats):  # The first reads from the disk.
        for modules, times in seconds.items():
            code = [sys.executable, "-c", _NOW.format(modules)]
            times.append(float(subprocess.check_output(code, cwd=command.ROOT)))
    return {modules: times[1:] for modules, times in seconds.items()}


def measure_first_step(flags: Sequence[str], repeats: int) -> dict[str, list[tuple]]:
    """Trains by `flags` to the first step, `cold` and then `warm`, in turns.

    Returns:
      Seconds of each run, elapsed and of the processor (None where the system can't tell).

    Raises:
      UserError: if a run ends before its first step.
    """
    result = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as root:
        for turn in range(repeats):
            programs = f"--compilation_cache={root}/{turn}/programs"
            for kind, runs in result.items():
                runs.append(_run([*flags, *_FLAGS, programs], pathlib.Path(root, str(turn), kind)))
    return result


def _run(flags: Sequence[str], workdir: pathlib.Path) -> tuple[float, float | None]:
    """Trains until the first step is done, and ends the process."""
    line = [sys.executable, "-m", "experiments.train", *flags, f"--workdir={workdir}"]
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "1"}
    metrics, processor = workdir / "metrics.jsonl", None
    with tempfile.TemporaryFile("w+") as log:
        begin = time.perf_counter()
        process = subprocess.Popen(
            line, cwd=command.ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        while not (metrics.exists() and metrics.stat().st_size):
            if process.poll() is not None:
                log.seek(0)
                raise config_lib.UserError(
                    f"A run ended with exit code {process.returncode} before its first step: "
                    f"{' '.join(line)}\n{log.read()}"
                )
            time.sleep(0.01)
        elapsed = time.perf_counter() - begin
        status = pathlib.Path(f"/proc/{process.pid}/stat")
        if status.exists():
            fields = status.read_text().rpartition(")")[2].split()  # The name may have spaces.
            processor = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        process.send_signal(signal.SIGTERM)
        process.wait()
    return elapsed, processor


if __name__ == "__main__":
    main(sys.argv[1:])
