"""Trains an experiment; the same command resumes a run that stopped.

    python -m experiments.train --config=FILE[:ARGUMENTS] [--workdir=DIR] [--config.key=value ...]

Read this first: config -> data, optimizer, model -> step -> loop. For several processes, one or
more machines, see docs/scaling.md.
"""

import argparse
from collections.abc import Iterable, Iterator
import contextlib
import dataclasses
import functools
import importlib
import logging
import os
import pathlib
import signal
import sys
import time
from typing import TYPE_CHECKING

import ml_collections

from experiments import cli, compilation_cache, saved_config
from perceiver_jax import config as config_lib

if TYPE_CHECKING:
    from perceiver_jax import data as data_lib
    from perceiver_jax.training import preemption
    from perceiver_jax.training import task as task_lib

# What takes seconds to import.
_LIBRARIES = ("perceiver_jax.model", "perceiver_jax.data.pipeline", "perceiver_jax.training.loop")


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        "python -m experiments.train", description=__doc__.partition("\n")[0]
    )
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
    with cli.user_errors_end_the_program():
        flags, config = cli.parse_command_line(parser, argv, _loading)
        from perceiver_jax.training import devices, lock, preemption

        join_processes(flags)
        workdir = flags.workdir or pathlib.Path("runs") / config.experiment
        lock.check(workdir)  # Now, and not when the data are open.
        accept(saved_config.check_unchanged(config, workdir, flags.accept_changes))
        compilation_cache.use(flags.compilation_cache, workdir)
        logging.getLogger("absl").setLevel("CRITICAL")  # What can't be saved is said by us.
        # What killed workers leave in shared memory is removed by Python, which warns of it.
        os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
        signals = preemption.Preemption(coordinates=devices.is_first_of_several())
        try:
            with signals:
                train(config, workdir, signals, accept_changes=flags.accept_changes)
            preemption.kill_workers()
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


def train(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    signals: "preemption.Preemption | None" = None,
    *,
    data: "data_lib.Data | None" = None,
    accept_changes: bool = False,
) -> dict[str, float]:
    """Trains what a config describes.

    Args:
      config: a recipe, such as those in `experiments/configs`.
      workdir: where `config.json`, `metrics.jsonl`, checkpoints and images go.
      signals: whether to end early; None: never.
      data: to train on instead of what `config.data` describes, such as `data.from_arrays` makes;
        that section is then replaced by the shapes of the arrays.
      accept_changes: resume a run of another config or on other data, and say what differs.

    Returns:
      The metrics of the test split at the end.

    Raises:
      ValueError: if the config contradicts itself; then nothing is written.
    """
    # Here, for they take seconds: a mistyped command gets its answer at once.
    import jax
    import rich.console

    from experiments import describe
    import perceiver_jax
    from perceiver_jax import data as data_lib
    from perceiver_jax import tasks
    from perceiver_jax.training import (
        devices,
        loop,
        optimizers,
        preemption,
        state,
        steps,
    )

    console = rich.console.Console(quiet=jax.process_index() > 0)
    given = config.to_dict() | ({} if data is None else {"data": data.describe()})
    config = ml_collections.ConfigDict(saved_config.plain(given))
    if data is not None:
        accept(saved_config.check_unchanged(config, workdir, accept_changes))

    # ---------------------------------------------------------------- sections of the config
    # All of them, before anything is read or written: each refuses what it can't be built from.
    if data is None:
        data = data_lib.build_data(**config.data)
    model = perceiver_jax.build_model(config.model)
    task = tasks.build_task(config.task, data.fields)
    train_config = config_lib.build(loop.TrainConfig, config.train, "config.train")
    sharding = devices.build_sharding(train_config.parallelism)
    optimizer, schedule = config_lib.build(
        optimizers.build_optimizer,
        config.optimizer,
        "config.optimizer",
        total_steps=train_config.steps,
    )
    share = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    test_batches = functools.partial(
        config_lib.build, data.test_batches, config.eval, "config.eval", **share
    )
    check(config, data, task, jax.device_count())

    # ---------------------------------------------------------------- data
    test_batches()  # Refuses a wrong config now, not after hours.
    # Embedded data are built now if need be.
    train_batches = data.train_batches(config.seed, **share)
    data.check_labels()
    fingerprint = data.fingerprint()
    accept(saved_config.check_same_data(fingerprint, workdir, accept_changes))

    # ---------------------------------------------------------------- state
    apply = sharding.with_whole_params(model.apply)
    example = dataclasses.replace(data, batch_size=1).zero_batch()
    init_key, train_key = jax.random.split(jax.random.key(config.seed))

    def create_state() -> state.TrainState:
        return state.create_state(model.init(init_key, example), optimizer, train_config.ema_decay)

    # ---------------------------------------------------------------- loop
    describe.print_summary(console, config, data, task, example, workdir)
    return loop.train(
        update=steps.make_update(
            apply,
            task,
            optimizer,
            schedule,
            ema_decay=train_config.ema_decay,
            accumulate_steps=train_config.accumulate_steps,
            axis_name=sharding.axis_name,
        ),
        eval_step=steps.make_eval_step(apply, task),
        task=task,
        create_state=create_state,
        rng=train_key,
        sharding=sharding,
        train_batches=train_batches,
        test_batches=test_batches,
        train_config=train_config,
        workdir=workdir,
        config=config.to_dict(),
        console=console,
        signals=signals or preemption.Preemption(),
        data=fingerprint,
    )


def accept(changes: Iterable[str]) -> None:
    """Prints what a run is resumed with though it differs."""
    for change in changes:
        print(f"accepted: {change}", file=sys.stderr)


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
            f"Which of how many processes this is can't be found: {error} Expected Slurm (srun), "
            "Kubernetes, a TPU pod or Open MPI. Give --coordinator_address, --num_processes and "
            "--process_id instead."
        ) from error


def check(
    config: ml_collections.ConfigDict,
    data: "data_lib.Data",
    task: "task_lib.Task",
    num_devices: int,
    only_test: bool = False,
) -> None:
    """Checks that the sections of a config fit each other, the data and the devices.

    Args:
      config: of a run.
      data: what it is trained on.
      task: what it is trained for.
      num_devices: that batches are divided over.
      only_test: whether the run has been trained, and is evaluated.

    Raises:
      UserError: if they do not.
    """
    import jax

    if list(config.model.outputs) != [task.target]:
        raise config_lib.UserError(
            f"config.model.outputs are {sorted(config.model.outputs)}; config.task trains "
            f"{task.target!r} alone. Use the same name."
        )
    size = config.model.outputs[task.target].size
    if size != task.size:
        remedy = "Evaluate it on the data of its run" if only_test else "Set it to that number"
        raise config_lib.UserError(
            f"config.model.outputs.{task.target}.size is {size}; {data.name} has "
            f"{task.description}. {remedy}."
        )
    masks = {f"{name}_mask" for name in config.model.inputs}
    missing = set(config.model.inputs) - set(data.inputs)
    unused = set(data.inputs) - set(config.model.inputs) - masks
    if missing or unused:
        raise config_lib.UserError(
            f"config.model.inputs are {sorted(config.model.inputs)}; {data.name} is read as "
            f"{sorted(data.inputs)}. Use the same names; <input>_mask is the mask of an input."
        )
    if config.model.dtype == "float64" and not jax.config.jax_enable_x64:
        raise config_lib.UserError(
            "config.model.dtype is 'float64', which JAX has off; expected 'float32' or 'bfloat16'. "
            "Set one of them, or JAX_ENABLE_X64=1 in the environment."
        )
    for key in ("test_split",) if only_test else ("train_split", "test_split"):
        if not (data.num_test if key == "test_split" else data.num_train):
            raise config_lib.UserError(
                f"config.data.{key} is {getattr(data, key)!r}, which has no examples; expected at "
                "least one. Give a larger part."
            )
    steps = max(config.train.accumulate_steps, 1)
    sizes = [("eval", config.eval.batch_size, num_devices)]
    if not only_test:
        sizes.append(("data", data.batch_size, num_devices * steps))
    for section, size, parts in sizes:
        if size < 1 or size % parts:
            above = max(size, 1) + -max(size, 1) % parts
            each = f" x {steps} accumulate_steps" if parts != num_devices else ""
            raise config_lib.UserError(
                f"config.{section}.batch_size is {size}; expected a multiple of the "
                f"{num_devices} devices{each}. Set it to {above}, for instance."
            )


if __name__ == "__main__":
    main(sys.argv[1:])
