"""The training loop: step, record, evaluate, save, and resume a run that stopped."""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import dataclasses
import pathlib
import time
from typing import Any, Protocol, runtime_checkable

import jax
from jax.experimental import multihost_utils
import numpy as np
import rich.console

from perceiver_jax import config as config_lib
from perceiver_jax.training import (
    checkpoints,
    devices,
    divergence,
    evaluation,
    lock,
    preemption,
    reporting,
    writers,
)
from perceiver_jax.training import state as state_lib
from perceiver_jax.training import steps as steps_lib
from perceiver_jax.training import task as task_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long to train, how, and how often to do what.

    All intervals are in steps; one of 0 is at the end only.

    Attributes:
      steps: Length of the training.
      log_every: Write training metrics, averaged since the last time.
      eval_every: Evaluate the test split and draw the curves.
      checkpoint_every: Save.
      max_checkpoints: How many checkpoints to keep, the newest.
      max_skipped: Stop after so many updates in a row that were skipped, see `steps.make_update`.
      ema_decay: See `steps.make_update`.
      accumulate_steps: See `steps.make_update`.
      parallelism: See `devices.build_sharding`.
    """

    steps: int
    log_every: int
    eval_every: int
    checkpoint_every: int
    max_checkpoints: int
    max_skipped: int
    ema_decay: float = 0.0
    accumulate_steps: int = 1
    parallelism: str = "pmap"

    def __post_init__(self):
        """Checks the numbers."""
        every = ("log_every", "eval_every", "checkpoint_every")
        config_lib.check(vars(self), **dict.fromkeys(every, config_lib.COUNT))
        numbers = ("steps", "max_checkpoints", "max_skipped", "accumulate_steps")
        config_lib.check(vars(self), **dict.fromkeys(numbers, config_lib.AT_LEAST_ONE))
        config_lib.check(vars(self), ema_decay=config_lib.BELOW_ONE)

    def is_due(self, every: int, step: int) -> bool:
        """Whether what is done `every` so many steps is to be done after `step` updates."""
        return step == self.steps or (every > 0 and step % every == 0)


@runtime_checkable
class TrainBatches(Protocol):
    """An endless iterator of batches whose place can be saved and restored, as Grain's."""

    def __next__(self) -> Mapping[str, np.ndarray]:
        """Returns the next batch."""

    def get_state(self) -> Any:
        """Returns the place: bytes, or a dictionary of JSON values."""

    def set_state(self, state: Any) -> None:
        """Goes to a place."""


def train(
    *,
    update: steps_lib.Update,
    eval_step: Callable[..., dict[str, jax.Array]],
    task: task_lib.Task,
    create_state: Callable[[], state_lib.TrainState],
    start_params: Callable[[Any], Any] | None = None,
    rng: jax.Array,
    sharding: devices.Sharding,
    train_batches: TrainBatches,
    test_batches: Callable[[], Iterable[Mapping[str, np.ndarray]]],
    train_config: TrainConfig,
    workdir: pathlib.Path,
    config: dict[str, Any],
    console: rich.console.Console,
    signals: preemption.Preemption,
    data: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Trains as planned, resuming from the newest good checkpoint of the workdir if there is one.

    A run that is stopped anywhere and resumed ends with the same numbers, to the bit, as one that
    is not: a checkpoint has all that later steps depend on, and what was written after it is
    written again.

    Writes `config.json`, `data.json`, `metrics.jsonl`, TensorBoard events, `curves.png` and
    checkpoints. A run that is complete already is only evaluated.

    Args:
      update: What `steps.make_update` returned for `sharding.axis_name`.
      eval_step: What `steps.make_eval_step` returned.
      task: What is trained for.
      create_state: Returns the state to begin with; to be compiled.
      start_params: Returns the parameters to begin with instead, given those, as numpy arrays; not
        called if the run resumes.
      rng: The key that all randomness of training comes from.
      sharding: How the devices share the state; each gets an equal part of every batch.
      train_batches: Training batches; with several processes, this one's part of them.
      test_batches: Gives the batches of the test split, from their beginning at each call.
      train_config: How long to train and how often to do what.
      workdir: Where everything is written; made if need be.
      config: What made all of the above, as JSON values; kept in the workdir and checkpoints.
      console: Where progress is shown.
      signals: Whether to end early: after a step, or within an evaluation, which is made up for
        when training resumes.
      data: What tells the data from others, as JSON values; kept in the workdir if given.

    Returns:
      The metrics of the test split at the end.

    Raises:
      ValueError: If a batch cannot be divided over the devices, the workdir's checkpoint is of
        another model or optimizer, or all checkpoints are damaged.
      Preempted: If a signal came, once everything is saved.
      InUseError: If another run has the workdir.
      DivergedError: If too many updates in a row were not finite.
      OSError: If something cannot be written.
    """
    begin = time.perf_counter()
    evaluate = evaluation.make_evaluate(eval_step, task, sharding)
    if jax.process_count() > 1:
        signals.agree(sharding.any_process)

    def test(state: state_lib.TrainState) -> evaluation.Evaluation:
        batches = signals.interrupt(test_batches())
        return evaluate(state_lib.evaluation_params(state), batches)

    shapes = jax.eval_shape(create_state)
    count = f"{sum(x.size for x in jax.tree.leaves(shapes.params)):,} parameters"
    with (
        _only_run(workdir),
        checkpoints.Checkpointer(
            workdir / "checkpoints", train_config.max_checkpoints
        ) as checkpointer,
    ):
        start, recorded, skipped, notes = 0, None, (), ()
        if checkpointer.latest_step() is None:
            with reporting.timed(console, f"initialising {count}"):
                state = sharding.create_state(create_state)
            if start_params is not None:
                params = start_params(sharding.fetch_state(state.params))
                state = state._replace(params=sharding.place_state(params))
                if state.ema_params is not None:  # Buffers of its own: a step gives both away.
                    state = state._replace(ema_params=sharding.place_state(params))
        else:
            with reporting.timed(console, f"reading a checkpoint of {count}"):
                saved = checkpointer.restore(shapes)
                state = sharding.place_state(saved.state)
            train_batches.set_state(saved.iterator_state)
            start, recorded = int(saved.state.step), saved.metadata["recorded"]
            skipped, notes = saved.metadata["skipped"], saved.notes
            key_data = np.array(saved.metadata["rng"], np.uint32)
            rng = jax.random.wrap_key_data(key_data, impl=jax.random.key_impl(rng))
        metadata = {"config": config, "rng": jax.random.key_data(rng).tolist()}
        rng = sharding.place_key(rng)
        diverging = divergence.Divergence(train_config.max_skipped, skipped)
        labels = {name: metric.label for name, metric in task.shown.items()}
        if jax.process_index() == 0:
            writers.write_json(workdir / "config.json", config)
            if data is not None:
                writers.write_json(workdir / "data.json", data)
        with (
            contextlib.closing(
                reporting.Display(console, start, train_config.steps, labels)
            ) as screen,
            contextlib.closing(
                reporting.Recorder(workdir, screen, task, start, recorded)
            ) as record,
        ):
            for note in notes:
                screen.say(note)
            if start >= train_config.steps:
                screen.say(f"{workdir} has been trained for {start} steps already; evaluating it")
                result = test(state)
                if record.evaluated < start:
                    record.test(start, result)
            else:
                if start:
                    screen.say(f"resuming from step {start}")
                if train_config.is_due(train_config.eval_every, start) and record.evaluated < start:
                    record.test(start, test(state))  # A signal prevented it.
                with screen.timed("reading the first batch"):
                    host_batch = next(train_batches)
                size = len(host_batch["example_id"]) * jax.process_count()
                batch = sharding.place_batch(host_batch)
                with screen.timed("compiling the training step"):
                    step_fn = sharding.compile_update(update, state, batch, rng)
                devices.wait_for_processes("compiled")
                record.start(size)
            unread = collections.deque()  # Steps whose metrics may still be on the devices.
            with contextlib.ExitStack() as something_to_save:
                for step in range(start + 1, train_config.steps + 1):
                    if step == start + 1:
                        with screen.timed(f"first step, {size:,} examples through {count}"):
                            state, metrics = step_fn(state, batch, rng)
                            jax.block_until_ready(metrics)
                        something_to_save.enter_context(signals.deferred())
                    else:
                        state, metrics = step_fn(state, batch, rng)
                    unread.append((step, metrics, host_batch["example_id"]))
                    ending = signals.requested()
                    evaluating = train_config.is_due(train_config.eval_every, step)
                    saving = train_config.is_due(train_config.checkpoint_every, step) or ending
                    # While the devices work on this step, the host prepares the next batch and
                    # reads the metrics of the previous step.
                    if evaluating or saving:
                        iterator_state = train_batches.get_state()
                    if step < train_config.steps and not ending:
                        host_batch = next(train_batches)
                        batch = sharding.place_batch(host_batch)
                    while len(unread) > (0 if evaluating or saving else 1):
                        read_step, metrics, indices = unread.popleft()
                        write = train_config.is_due(train_config.log_every, read_step)
                        values = record.train_step(read_step, metrics, write)
                        if diverging.add(read_step, values, indices):
                            checkpointer.wait()
                            last = checkpointer.latest_step()
                            diverging.stop(workdir, last, sharding.fetch_state(state))
                    if evaluating and not ending:
                        with screen.busy("evaluating"), record.paused():
                            try:
                                result = test(state)
                            except preemption.Preempted:
                                ending = True
                            else:
                                record.test(step, result)
                    # The last checkpoint before updates were skipped is worth keeping.
                    if (saving and not diverging.skipped) or ending or step == train_config.steps:
                        with screen.busy("saving"), record.paused():
                            metadata["recorded"] = record.to_json()
                            metadata["skipped"] = diverging.skipped
                            host_state = sharding.fetch_state(state)
                            checkpointer.save(host_state, iterator_state, metadata)
                    checkpointer.check()
                    if ending and record.evaluated < train_config.steps:
                        checkpointer.wait()
                        raise preemption.Preempted(f"Saved step {step} in {workdir}")
                checkpointer.wait()
            record.report(result, time.perf_counter() - begin)
    return result.metrics


@contextlib.contextmanager
def _only_run(workdir: pathlib.Path) -> Iterator[None]:
    """Holds the lock of the workdir in the first process; all raise if it can't be had."""
    problem = None
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            try:
                stack.enter_context(lock.held(workdir))
            except lock.InUseError as error:
                problem = error
        if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(
            np.bool_(problem is not None)
        ):
            problem = problem or lock.InUseError(f"Another run is training in {workdir}.")
        if problem is not None:
            raise problem
        yield
