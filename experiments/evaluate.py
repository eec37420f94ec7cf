"""Evaluates a trained experiment and draws where it is right and wrong.

    python -m experiments.evaluate --workdir=DIR

Reads `config.json` and the newest checkpoint of the workdir; writes there what the task renders:
`confusion.png`, `per_class.png` and `per_class.json` of classes, `predictions.png` and
`per_number.json` of numbers.
"""

import argparse
from collections.abc import Iterable
import dataclasses
import logging
import pathlib
import sys
from typing import Any

from experiments import cli, compilation_cache, saved_config, train
from perceiver_jax import config as config_lib


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        "python -m experiments.evaluate", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="of a training run")
    compilation_cache.add_flag(parser)
    parser.add_argument(
        "--accept_changes",
        action="store_true",
        help="evaluate on other data than those of the run; see docs/resuming.md",
    )
    flags = parser.parse_args(argv)
    with cli.user_errors_end_the_program():
        saved_config.read(flags.workdir)  # Before JAX is imported, which takes seconds.
        compilation_cache.use(flags.compilation_cache, flags.workdir)
        evaluate(flags.workdir, accept_changes=flags.accept_changes)


def evaluate(
    workdir: pathlib.Path, data: Any = None, *, accept_changes: bool = False
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
    config = saved_config.read(workdir)
    if data is None and "arrays" in config.data:
        raise config_lib.UserError(
            f"{workdir} is of a run on arrays in memory: {config.data.to_dict()}. Evaluate it from "
            "Python: experiments.evaluate.evaluate(workdir, data)."
        )
    # Here, for they take seconds.
    import jax
    import rich.console

    import perceiver_jax
    from perceiver_jax import data as data_lib
    from perceiver_jax import tasks
    from perceiver_jax.training import (
        checkpoints,
        devices,
        evaluation,
        optimizers,
        reporting,
        state,
        steps,
    )

    logging.getLogger("absl").setLevel("ERROR")  # Orbax warns that it will not write.
    console = rich.console.Console()
    matters = ("classes",)
    if data is None:
        data = data_lib.build_data(**config.data)
        matters = ("classes", "test")
    known = {key: x for key, x in data.fingerprint().items() if key in matters}
    train.accept(saved_config.check_same_data(known, workdir, accept_changes))
    task = tasks.build_task(config.task, data.fields)
    train.check(config, data, task, jax.device_count(), only_test=True)
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
    import rich.table

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


if __name__ == "__main__":
    main(sys.argv[1:])
