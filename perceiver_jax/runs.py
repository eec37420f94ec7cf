"""Runs from a config: training, evaluation. The one module that sees the whole package.

Read this first: config -> data, optimizer, model -> step -> loop.
"""

from collections.abc import Iterable
import dataclasses
import functools
import logging
import pathlib
import sys
from typing import Any

import jax
import ml_collections
import rich.console
import rich.table

import perceiver_jax
from perceiver_jax import config as config_lib
from perceiver_jax import data as data_lib
from perceiver_jax import summary, tasks
from perceiver_jax import workdir as workdir_lib
from perceiver_jax.training import (
    checkpoints,
    devices,
    evaluation,
    lock,
    loop,
    optimizers,
    preemption,
    reporting,
    state,
    steps,
)
from perceiver_jax.training import task as task_lib


def train(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    data: data_lib.Data | None = None,
    *,
    signals: preemption.Preemption | None = None,
    accept_changes: bool = False,
) -> dict[str, float]:
    """Trains what a config describes.

    Args:
      config: a recipe, such as those in `experiments/configs`.
      workdir: where `config.json`, `metrics.jsonl`, checkpoints and images go.
      data: to train on instead of what `config.data` describes, such as `data.from_arrays` makes;
        that section is then replaced by the shapes of the arrays.
      signals: whether to end early; None: never.
      accept_changes: resume a run of another config or on other data, and say what differs.

    Returns:
      The metrics of the test split at the end.

    Raises:
      ValueError: if the config contradicts itself; then nothing is written.
    """
    lock.check(workdir)  # Now, and not when the data are open.
    console = rich.console.Console(quiet=jax.process_index() > 0)
    given = config.to_dict() | ({} if data is None else {"data": data.describe()})
    config = ml_collections.ConfigDict(workdir_lib.plain(given))
    accept(workdir_lib.check_unchanged(config, workdir, accept_changes))

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
    accept(workdir_lib.check_same_data(fingerprint, workdir, accept_changes))

    # ---------------------------------------------------------------- state
    apply = sharding.with_whole_params(model.apply)
    example = dataclasses.replace(data, batch_size=1).zero_batch()
    init_key, train_key = jax.random.split(jax.random.key(config.seed))

    def create_state() -> state.TrainState:
        return state.create_state(model.init(init_key, example), optimizer, train_config.ema_decay)

    # ---------------------------------------------------------------- loop
    summary.print_summary(console, config, data, task, example, workdir)
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


def evaluate(
    workdir: pathlib.Path, data: data_lib.Data | None = None, *, accept_changes: bool = False
) -> dict[str, float]:
    """Evaluates the newest checkpoint of a workdir on the test split.

    Args:
      workdir: of a training run.
      data: what it was trained on, if that was not what a config describes. The examples may be
        others; the classes may not.
      accept_changes: evaluate on a data set that has changed since, and say what differs.

    Returns:
      The metrics.

    Raises:
      ValueError: if the data are not those that the run was trained on, or don't fit it.
    """
    config = workdir_lib.read(workdir)
    if data is None and "arrays" in config.data:
        raise config_lib.UserError(
            f"{workdir} is of a run on arrays in memory: {config.data.to_dict()}. Evaluate it from "
            "Python: perceiver_jax.evaluate(workdir, data)."
        )
    logging.getLogger("absl").setLevel("ERROR")  # Orbax warns that it will not write.
    console = rich.console.Console()
    matters = ("classes",)
    if data is None:
        data = data_lib.build_data(**config.data)
        matters = ("classes", "test")
    known = {key: x for key, x in data.fingerprint().items() if key in matters}
    accept(workdir_lib.check_same_data(known, workdir, accept_changes))
    task = tasks.build_task(config.task, data.fields)
    check(config, data, task, jax.device_count(), only_test=True)
    data.check_labels()
    model = perceiver_jax.build_model(config.model)
    optimizer, _ = config_lib.build(
        optimizers.build_optimizer,
        config.optimizer,
        "config.optimizer",
        total_steps=config.train.steps,
    )

    def initial_state() -> state.TrainState:
        example = dataclasses.replace(data, batch_size=1).zero_batch()
        params = model.init(jax.random.key(0), example)
        return state.create_state(params, optimizer, config.train.ema_decay)

    checkpoint = checkpoints.load(workdir / "checkpoints", jax.eval_shape(initial_state))
    for note in checkpoint.notes:
        reporting.say(console, note)
    params = state.evaluation_params(checkpoint.state)
    reporting.say(console, f"evaluating step {int(checkpoint.state.step)} of {workdir}")
    sharding = devices.build_sharding(config.train.parallelism)
    apply = sharding.with_whole_params(model.apply)
    run = evaluation.make_evaluate(steps.make_eval_step(apply, task), task, sharding)
    with console.status("evaluating"):
        result = run(sharding.place_state(params), data.test_batches(**config.eval))
    print_results(console, result, task)
    write_results(workdir, console, task.render(result.rows, data.class_names(task.target)))
    return result.metrics


def print_results(console: Any, result: Any, task: Any) -> None:
    """Prints the metrics of an evaluation as a table."""
    table = rich.table.Table(*(metric.label for metric in task.shown.values()), *result.counts)
    table.add_row(
        *(f"{result.metrics[name]:.4f}" for name in task.shown),
        *(f"{count:,}" for count in result.counts.values()),
    )
    console.print(table)


def write_results(
    workdir: pathlib.Path, console: Any, artifacts: Iterable[tuple[str, Any]]
) -> None:
    """Writes and prints what a task renders of an evaluation."""
    for name, content in artifacts:
        if not name:
            console.print(content, highlight=False)
        elif isinstance(content, str):
            (workdir / name).write_text(content)
        else:
            content.savefig(workdir / name, bbox_inches="tight")


def check(
    config: ml_collections.ConfigDict,
    data: data_lib.Data,
    task: task_lib.Task,
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


def accept(changes: Iterable[str]) -> None:
    """Prints what a run is resumed with though it differs."""
    for change in changes:
        print(f"accepted: {change}", file=sys.stderr)
