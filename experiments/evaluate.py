"""Evaluates a trained experiment and draws where it is right and wrong.

    python -m experiments.evaluate --workdir=DIR

Reads `config.json` and the newest checkpoint of the workdir; writes `confusion.png`,
`per_class.png` and `per_class.json` there.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import json
import logging
import pathlib
import sys
from typing import Any

import numpy as np

from experiments import cli, compilation_cache, saved_config, train

NUM_LEAST = 5  # Classes that are named.


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
        raise cli.UsageError(
            f"{workdir} is of a run on arrays in memory: {config.data.to_dict()}. Evaluate it from "
            "Python: experiments.evaluate.evaluate(workdir, data)."
        )
    # Here, for they take seconds.
    import jax
    import rich.console

    import perceiver_jax
    from perceiver_jax import data as data_lib
    from perceiver_jax.training import (
        checkpoints,
        devices,
        display,
        evaluation,
        losses,
        optimizers,
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
    train.check(config, data, jax.device_count(), only_test=True)
    data.check_labels()
    model = perceiver_jax.build_model(config.model)
    loss = losses.build_loss(config.train.loss, config.train.label_smoothing)
    optimizer, _ = optimizers.build_optimizer(**config.optimizer, total_steps=config.train.steps)

    def initial_state() -> state.TrainState:
        example = dataclasses.replace(data, batch_size=1).zero_batch()
        params = model.init(jax.random.key(0), example)
        return state.create_state(params, optimizer, config.train.ema_decay)

    checkpoint = checkpoints.load(workdir / "checkpoints", jax.eval_shape(initial_state))
    for note in checkpoint.notes:
        display.say(console, note)
    params = state.evaluation_params(checkpoint.state)
    display.say(console, f"evaluating step {int(checkpoint.state.step)} of {workdir}")
    parallelism = devices.build_parallelism(config.train.parallelism)
    apply = parallelism.with_whole_params(model.apply)
    run = evaluation.make_evaluate(steps.make_eval_step(apply, loss), parallelism)
    with console.status("evaluating"):
        result = run(parallelism.place_state(params), data.test_batches(**config.eval))
    write_results(workdir, result, data)
    print_results(console, result)
    if not data.labels["label"].multi_label:
        print_classes(console, result, data.class_names("label"))
    return result.metrics


def write_results(workdir: pathlib.Path, result: Any, data: Any) -> None:
    """Writes the confusion matrix and the per-class figures of an evaluation.

    Args:
      workdir: where to.
      result: an `evaluation.Evaluation`.
      data: the `Data` that it is of.
    """
    from perceiver_jax.training import metrics, plots

    # With several labels an example, one row for each of them.
    label_field, class_names = data.labels["label"], data.class_names("label")
    examples, labels = np.nonzero(metrics.multi_hot(result.labels, label_field.num_classes))
    confusion = metrics.confusion_matrix(result.probabilities[examples], labels)
    plots.draw_confusion(confusion, class_names, workdir / "confusion.png")
    if label_field.multi_label:
        name, label = "average_precision", "average precision"
        values = metrics.average_precision_per_class(result.probabilities, result.labels)
    else:
        name, label = "accuracy", "accuracy"
        values = metrics.accuracy_per_class(result.probabilities, result.labels)
    plots.draw_per_class(values, class_names, label, workdir / "per_class.png")
    rows = {
        class_name: {name: None if np.isnan(value) else float(value), "examples": int(count)}
        for class_name, value, count in zip(class_names, values, confusion.sum(axis=1), strict=True)
    }
    (workdir / "per_class.json").write_text(json.dumps(rows, indent=2) + "\n")


def print_results(console: Any, result: Any) -> None:
    """Prints the metrics of an evaluation as a table."""
    import rich.table

    from perceiver_jax.training import display

    labels = {name: text for name, text in display.LABELS.items() if name in result.metrics}
    table = rich.table.Table(*labels.values(), *result.counts)
    table.add_row(
        *(f"{result.metrics[name]:.4f}" for name in labels),
        *(f"{count:,}" for count in result.counts.values()),
    )
    console.print(table)


def print_classes(console: Any, result: Any, class_names: Sequence[str]) -> None:
    """Prints the mean class accuracy, and the classes that are recognised least.

    Args:
      console: where to.
      result: an `evaluation.Evaluation` of examples with one label.
      class_names: names of the classes.
    """
    import rich.table
    import rich.text

    from perceiver_jax.training import metrics

    mean = metrics.mean_class_accuracy(result.probabilities, result.labels)
    console.print(f"mean of the classes' accuracies: {mean:.4f}", highlight=False)
    confusion = metrics.confusion_matrix(result.probabilities, result.labels)
    accuracy = metrics.accuracy_per_class(result.probabilities, result.labels)
    table = rich.table.Table("recognised least", "accuracy", "examples", "most often taken for")
    for label in np.argsort(accuracy, kind="stable")[:NUM_LEAST]:  # NaN, no examples, comes last.
        if not accuracy[label] < 1:
            continue
        wrong = np.where(np.arange(len(class_names)) == label, 0, confusion[label])
        other = f"{class_names[wrong.argmax()]} ({wrong.max()})"
        count = f"{confusion[label].sum():,}"
        name = rich.text.Text(class_names[label])
        table.add_row(name, f"{accuracy[label]:.4f}", count, rich.text.Text(other))
    if table.rows:
        console.print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
