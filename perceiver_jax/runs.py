"""Runs from a config: training, evaluation, use. The one module that sees the whole package.

Read this first: config -> data, optimizer, model -> step -> loop.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
import sys
from typing import Any

import jax
import ml_collections
import numpy as np
import rich.console
import rich.table

import perceiver_jax
from perceiver_jax import config as config_lib
from perceiver_jax import config_file, consistency, layers, predictions, summary, tasks, transfer
from perceiver_jax import data as data_lib
from perceiver_jax import model as model_lib
from perceiver_jax import workdir as workdir_lib
from perceiver_jax.data import description
from perceiver_jax.data import fields as fields_lib
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

Path = str | os.PathLike[str]
_LOGGER = logging.getLogger(__name__)


def train(
    config: ml_collections.ConfigDict | Mapping[str, Any],
    workdir: Path,
    data: data_lib.Data | None = None,
    *,
    quiet: bool = False,
    accept_changes: bool = False,
    signals: preemption.Preemption | None = None,
) -> dict[str, float]:
    """Trains what a config describes; resumes what a workdir has of it.

    Args:
      config: what `perceiver_jax.load_config` or `recipes.recipe` returned, say.
      workdir: where `config.json`, `metrics.jsonl`, checkpoints and images go.
      data: to train on instead of what `config.data` describes, such as `data.from_arrays` makes;
        that section is then replaced by the shapes of the arrays.
      quiet: whether to print no progress and no results.
      accept_changes: resume a run of another config or on other data, and say what differs.
      signals: whether to end early; None: never.

    Returns:
      The metrics of the test split at the end.

    Raises:
      UserError: if the config contradicts itself (then nothing is written), does not fit the
        workdir, or as `loop.train`.
    """
    workdir = pathlib.Path(workdir)
    lock.check(workdir)  # Now, and not when the data are open.
    console = rich.console.Console(quiet=quiet or jax.process_index() > 0)
    given = ml_collections.ConfigDict(config).to_dict()
    given |= {} if data is None else {"data": data.describe()}
    config = ml_collections.ConfigDict(workdir_lib.plain(given))
    config_file.check_sections(config)
    _accept(workdir_lib.check_unchanged(config, workdir, accept_changes))

    # ---------------------------------------------------------------- sections of the config
    # All of them, before anything is read or written: each refuses what it can't be built from.
    if data is None:
        data = data_lib.build_data(**config.data)
    model = perceiver_jax.build_model(config.model)
    task = tasks.build_task(config.task, data.fields)
    train_config = config_lib.build(loop.TrainConfig, config.train, "config.train")
    sharding = devices.build_sharding(train_config.parallelism)
    optimizer = config_lib.build(
        optimizers.build_optimizer,
        config.optimizer,
        "config.optimizer",
        total_steps=train_config.steps,
        distance=layers.distance_to_outputs(
            config.model.encoder.get("layers", ()), config.model.encoder.get("num_self_attends", 0)
        ),
    )
    share = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    test_batches = functools.partial(
        config_lib.build, data.test_batches, config.eval, "config.eval", **share
    )
    consistency.check(config, data, task, jax.device_count())
    example = dataclasses.replace(data, batch_size=1).zero_batch()
    init_key, train_key = jax.random.split(jax.random.key(config.seed))
    shapes = jax.eval_shape(model.init, init_key, example)
    frozen = optimizer.frozen_paths(shapes)
    start_params = transfer.make_start(config, shapes, example, workdir, console)

    # ---------------------------------------------------------------- data
    test_batches()  # Refuses a wrong config now, not after hours.
    # Embedded data are built now if need be.
    train_batches = data.train_batches(config.seed, **share)
    data.check_labels()
    fingerprint = data.fingerprint()
    _accept(workdir_lib.check_same_data(fingerprint, workdir, accept_changes))
    described = description.describe(data).to_json()

    # ---------------------------------------------------------------- state
    apply = sharding.with_whole_params(model.apply)
    apply_training = functools.partial(model.apply_training, frozen=frozen)

    def create_state() -> state.TrainState:
        return state.create_state(model.init(init_key, example), optimizer, train_config.ema_decay)

    # ---------------------------------------------------------------- loop
    summary.print_summary(console, config, data, task, example, workdir)
    with contextlib.ExitStack() as at_the_end:
        if signals is None:  # Else the process ends, and kills its workers: closing would wait.
            at_the_end.enter_context(contextlib.closing(train_batches))
        at_the_end.enter_context(_quiet_absl("CRITICAL"))  # What can't be saved is said by us.
        return loop.train(
            update=steps.make_update(
                sharding.with_whole_params(apply_training),
                task,
                optimizer,
                ema_decay=train_config.ema_decay,
                accumulate_steps=train_config.accumulate_steps,
                axis_name=sharding.axis_name,
            ),
            eval_step=steps.make_eval_step(apply, task),
            task=task,
            create_state=create_state,
            start_params=start_params,
            rng=train_key,
            sharding=sharding,
            train_batches=train_batches,
            test_batches=test_batches,
            train_config=train_config,
            workdir=workdir,
            config=config.to_dict(),
            console=console,
            signals=signals or preemption.Preemption(),
            data=fingerprint | described,
        )


def evaluate(
    workdir: Path,
    data: data_lib.Data | None = None,
    *,
    quiet: bool = False,
    accept_changes: bool = False,
) -> dict[str, float]:
    """Evaluates the newest checkpoint of a workdir on the test split, and draws what it predicts.

    Args:
      workdir: of a training run.
      data: what it was trained on, if that was not what a config describes. The examples may be
        others; the classes may not.
      quiet: whether to print no progress and no results.
      accept_changes: evaluate on a data set that has changed since, and say what differs.

    Returns:
      The metrics.

    Raises:
      UserError: if the data are not those that the run was trained on, or don't fit it.
    """
    workdir = pathlib.Path(workdir)
    config = workdir_lib.read(workdir)
    if data is None:
        workdir_lib.check_on_disk(workdir, config)
    console = rich.console.Console(quiet=quiet)
    matters = ("classes",)
    if data is None:
        data = data_lib.build_data(**config.data)
        matters = ("classes", "test")
    known = {key: x for key, x in data.fingerprint().items() if key in matters}
    _accept(workdir_lib.check_same_data(known, workdir, accept_changes))
    task = tasks.build_task(config.task, data.fields)
    consistency.check(config, data, task, jax.device_count(), only_test=True)
    data.check_labels()
    model = perceiver_jax.build_model(config.model)
    example = dataclasses.replace(data, batch_size=1).zero_batch()
    trained = _read_params(workdir, model, example)
    for note in trained.notes:
        reporting.say(console, note)
    reporting.say(console, f"evaluating step {trained.step} of {workdir}")
    sharding = devices.build_sharding(config.train.parallelism)
    apply = sharding.with_whole_params(model.apply)
    run = evaluation.make_evaluate(steps.make_eval_step(apply, task), task, sharding)
    # Elsewhere than on a terminal there is nothing to move.
    with console.status("evaluating") if console.is_terminal else contextlib.nullcontext():
        result = run(sharding.place_state(trained.params), data.test_batches(**config.eval))
    _print_results(console, result, task)
    names = {name: data.class_names(name) for name in data.labels}

    def examples(count: int) -> tuple[dict[str, Any], dict[str, Any]]:
        with contextlib.closing(data.test_batches(**config.eval)) as batches:
            batch = next(batches)
        batch = {name: x[batch["mask"]][:count] for name, x in batch.items()}
        outputs = jax.jit(model.apply)(jax.device_put(trained.params), None, batch)
        return batch, jax.device_get(task.predict(outputs))

    _write_results(workdir, console, task.render(result.rows, names, examples))
    return result.metrics


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A trained model, and what belongs to it; `run(batch)` returns its outputs.

    Attributes:
      workdir: where it is from.
      step: after so many updates.
      config: it was trained with.
      model: pure functions.
      params: the moving average where there is one, else the parameters.
      task: what it was trained for.
      fields: how inputs and targets are read, by name.
      class_names: by name of each label; numbers if the run is of a version that kept none.
      may_lack: names of the inputs that an example may lack.
    """

    workdir: pathlib.Path
    step: int
    config: ml_collections.ConfigDict
    model: model_lib.Model
    params: model_lib.Params
    task: task_lib.Task
    fields: Mapping[str, fields_lib.Field]
    class_names: Mapping[str, tuple[str, ...]]
    may_lack: tuple[str, ...]

    def __repr__(self) -> str:
        """Says which run it is."""
        return f"Run({str(self.workdir)!r}, step={self.step})"

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Returns the outputs [B, ...] in evaluation; compiled for each shape of batch.

        Args:
          batch: by the names of `config.model.inputs`, as `prepare` returns it; `<input>_mask` is
            false for what is to be left out, `<output>_indices` names elements of an output that
            are to be decoded alone. Other entries are ignored.
        """
        return self._apply(self.params, None, self._inputs(batch))

    def with_latents(self, batch: Mapping[str, Any]) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the final latents [B, N, D], and the outputs, which come from them."""
        return self._apply_with_latents(self.params, self._inputs(batch))

    def predict(
        self,
        *examples: Any,
        k: int = 5,
        num_windows: int = 1,
        batch_size: int = 8,
        up: str = "y",
    ) -> list[dict[str, Any]]:
        """Returns what each example is predicted to be, by name of the output.

        - Of classes: the names and probabilities of the likeliest, [(name, probability), ...].
        - Of numbers: the numbers [L], in their own units.
        - Of a text: the string, with its gaps (`[MASK]`, one a byte) filled.
        - Of two frames, which may have any size: the flow [H, W, 2] from the first to the second
          in pixels to the right and down, computed in tiles, see `tiles.blend`.
        - Of what is reconstructed: pixels uint8, samples in [-1, 1].

        Args:
          *examples: as of `prepare`.
          k: how many classes.
          num_windows: of each example, over which probabilities and numbers are averaged.
          batch_size: examples that are computed at once; of frames, it is a tile.
          up: the vertical axis of points, 'y' or 'z'.

        Raises:
          UserError: as `prepare`.
        """
        return predictions.predict(
            self, examples, k=k, num_windows=num_windows, batch_size=batch_size, up=up
        )

    def predict_each(
        self, examples: Iterable[Any], **options: Any
    ) -> Iterator[predictions.Predicted]:
        """Yields what each of any number of examples is predicted to be, or why it can't be.

        `predictions.predict_each` says more; its options are those of `predict`, and `latents`.
        """
        return predictions.predict_each(self, examples, **options)

    def prepare(
        self, *examples: Any, num_windows: int = 1, up: str = "y", first: int = 0
    ) -> dict[str, np.ndarray]:
        """Returns a batch of examples as they are read in evaluation; see `data.prepare`.

        Args:
          *examples: each a file (path or bytes), or by name of the input files or arrays.
          num_windows: of each example, evenly spaced; 1: the middle. They follow each other.
          up: the vertical axis of points, 'y' or 'z'.
          first: number of the first example, by which messages call it.

        Raises:
          UserError: if an example can't be read, or lacks an input that none lacked in training.
        """
        return self.reader(num_windows, up).prepare(examples, first)

    def reader(self, num_windows: int = 1, up: str = "y") -> data_lib.Reader:
        """Returns what reads examples one by one, as `prepare` does."""
        options = {"num_windows": num_windows, "may_lack": self.may_lack, "up": up}
        return data_lib.make_reader(self.fields, hidden=self.hidden, **options)

    @property
    def hidden(self) -> list[str]:
        """Names of the targets that the model reads in training; in evaluation they are zeros."""
        hidden = self.config.model.get("fusion", {}).get("masked_in_evaluation", ())
        return [name for name in hidden if self.fields[name].is_target]

    def _inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Of a batch, what the model reads."""
        names = {name for x in self.config.model.inputs for name in (x, f"{x}_mask")}
        names |= {f"{name}_indices" for name in self.config.model.outputs}
        return {name: x for name, x in batch.items() if name in names}

    @functools.cached_property
    def _apply(self) -> Callable[..., dict[str, jax.Array]]:
        return jax.jit(self.model.apply)

    @functools.cached_property
    def _apply_with_latents(self) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
        def apply(params, batch):
            latents = self.model.latents(params, batch)
            return latents, self.model.decode(params, latents, batch)

        return jax.jit(apply)


def load_run(workdir: Path, step: int | None = None) -> Run:
    """Loads a run; of its workdir, nothing else is needed.

    Args:
      workdir: of a training run.
      step: of the checkpoint; None: the newest.

    Raises:
      UserError: if something of the workdir is missing or damaged.
    """
    workdir = pathlib.Path(workdir)
    config = workdir_lib.read(workdir)
    fields, class_names, may_lack = workdir_lib.read_description(workdir, config)
    known = {
        name: field
        for name, field in fields.items()
        if not field.is_target or name in config.model.inputs
    }
    missing = sorted(set(config.model.inputs) - set(known))
    if missing:
        raise config_lib.UserError(
            f"{workdir} does not say how {missing} of config.model.inputs are read; expected "
            f"{sorted(config.model.inputs)} in data.json, got {sorted(known)}. Take both files "
            "from the same run."
        )
    model = perceiver_jax.build_model(config.model)
    trained = _read_params(workdir, model, fields_lib.zero_batch(known), step)
    for note in trained.notes:
        _LOGGER.warning("%s; that of step %d is loaded", note, trained.step)
    return Run(
        workdir,
        trained.step,
        config,
        model,
        jax.device_put(trained.params),
        tasks.build_task(config.task, fields),
        fields,
        class_names,
        may_lack,
    )


def _read_params(
    workdir: pathlib.Path,
    model: model_lib.Model,
    example: Mapping[str, np.ndarray],
    step: int | None = None,
) -> checkpoints.TrainedParams:
    shapes = jax.eval_shape(model.init, jax.random.key(0), example)
    with _quiet_absl("ERROR"):  # Orbax warns that it will not write.
        return checkpoints.load_params(workdir / "checkpoints", shapes, step)


def _print_results(console: Any, result: Any, task: Any) -> None:
    """Prints the metrics of an evaluation as a table."""
    table = rich.table.Table(*(metric.label for metric in task.shown.values()), *result.counts)
    table.add_row(
        *(f"{result.metrics[name]:.4f}" for name in task.shown),
        *(f"{count:,}" for count in result.counts.values()),
    )
    console.print(table)


def _write_results(
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


def _accept(changes: Iterable[str]) -> None:
    """Prints what a run is resumed with though it differs."""
    for change in changes:
        print(f"accepted: {change}", file=sys.stderr)


@contextlib.contextmanager
def _quiet_absl(level: str) -> Iterator[None]:
    """Silences what Orbax logs below a level."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
