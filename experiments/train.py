"""Trains an experiment; the same command resumes a run that stopped.

    python -m experiments.train --config=FILE[:ARGUMENTS] [--workdir=DIR] [--config.key=value ...]

What it runs is `perceiver_jax.train`. For several processes, one or more machines, see
docs/scaling.md.
"""

import argparse
from collections.abc import Iterator
import contextlib
import importlib
import os
import pathlib
import signal
import sys
import time

from experiments import cli, compilation_cache
import perceiver_jax
from perceiver_jax import config as config_lib

# What takes seconds to import.
_LIBRARIES = ("perceiver_jax.runs", "perceiver_jax.data.pipeline")


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = cli.Parser("python -m experiments.train", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--workdir", type=pathlib.Path, help="where results go; default: runs/EXPERIMENT"
    )
    parser.add_argument(
        "--accept_changes",
        action="store_true",
        help="resume with another config than the workdir's; see docs/resuming.md",
    )
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="one of several processes, as Slurm, Kubernetes or a TPU pod says",
    )
    parser.add_argument(
        "--coordinator_address", help="elsewhere: host and port of the first process, on all"
    )
    parser.add_argument("--num_processes", type=int, help="elsewhere: how many processes")
    parser.add_argument("--process_id", type=int, help="elsewhere: which this is, from 0")
    compilation_cache.add_flag(parser)
    cli.add_baseline_flag(parser)
    with cli.user_errors_end_the_program():
        flags, config = cli.parse_command_line(parser, argv, _loading)
        from perceiver_jax.training import devices, preemption

        join_processes(flags)
        workdir = flags.workdir or pathlib.Path("runs") / config.experiment
        cli.check_place("workdir", workdir)
        compilation_cache.use(flags.compilation_cache, workdir)
        # What killed workers leave in shared memory is removed by Python, which warns of it.
        os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
        baseline = cli.fit_baseline(config) if flags.baseline else None
        signals = preemption.Preemption(coordinates=devices.is_first_of_several())
        try:
            with signals:
                metrics = perceiver_jax.train(
                    config, workdir, signals=signals, accept_changes=flags.accept_changes
                )
            preemption.kill_workers()
            cli.compare(baseline, metrics)
            devices.wait_for_processes("trained")
        except (preemption.Preempted, KeyboardInterrupt) as error:
            what = str(error) or f"{preemption.NOTHING_NEW} in {workdir}"
            print(f"{what}. The same command resumes.", file=sys.stderr)
            if not str(error):
                signals.end()
            preemption.kill_workers()
            sys.exit(preemption.EXIT_CODE)


@contextlib.contextmanager
def _loading() -> Iterator[None]:
    """Says that libraries are being loaded; a signal meanwhile ends the program at once."""

    def end(number: int, frame: object) -> None:
        name = signal.Signals(number).name
        print(f"\n{name}: ended before anything began. The same command resumes.", file=sys.stderr)
        os._exit(75)  # preemption.EXIT_CODE, which is among what is being loaded.

    old = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    begin, taken = time.perf_counter(), "not finished"
    print("loading libraries ...", end=" ", flush=True)
    try:
        yield  # A mistake in the config is answered before.
        for name in _LIBRARIES:
            importlib.import_module(name)
        taken = f"{time.perf_counter() - begin:.1f} s"
    finally:
        print(taken, flush=True)
        for number, handler in old.items():
            signal.signal(number, handler)


def join_processes(flags: argparse.Namespace) -> None:
    """Makes this one of several processes if the command line says so.

    Raises:
      UserError: if the flags contradict each other, or nothing says which process this is.
    """
    names = ("coordinator_address", "num_processes", "process_id")
    given = {name: getattr(flags, name) for name in names}
    missing = [f"--{name}" for name in names if given[name] is None]
    if not flags.distributed and len(missing) == len(names):
        return
    if flags.baseline:
        raise config_lib.UserError(
            "--baseline is for one process; the others would wait. Evaluate with it afterwards: "
            "python -m experiments.evaluate --workdir=DIR --baseline"
        )
    if flags.distributed != bool(missing) or 0 < len(missing) < len(names):
        wrong = f"{' and '.join(missing)} missing" if missing else "got both"
        raise config_lib.UserError(
            f"One of several processes needs either --distributed or all of "
            f"{', '.join(f'--{name}' for name in names)}; {wrong}. Under Slurm, Kubernetes or on "
            "a TPU pod use --distributed."
        )
    from perceiver_jax.training import devices  # Takes a second.

    try:
        devices.join_processes(**given)
    except ValueError as error:
        raise config_lib.UserError(
            f"Which of how many processes this is can't be found: {config_lib.said(error)}. "
            "Expected Slurm (srun), Kubernetes, a TPU pod or Open MPI. Give "
            "--coordinator_address, --num_processes and --process_id instead."
        ) from error


if __name__ == "__main__":
    main(sys.argv[1:])
