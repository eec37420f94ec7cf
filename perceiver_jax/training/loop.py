"""The training loop: step, record, evaluate, save, and go on from where a run stopped."""

from collections.abc import Callable, Iterable, Mapping
import functools
import pathlib
import time
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import rich.console

from perceiver_jax.training import checkpoints, devices, display, evaluation, recorder, writers
from perceiver_jax.training import plan as plan_lib
from perceiver_jax.training import state as state_lib
from perceiver_jax.training import steps as steps_lib


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
    eval_step: Callable[..., steps_lib.Predictions],
    create_state: Callable[[], state_lib.TrainState],
    rng: jax.Array,
    parallelism: devices.Parallelism,
    train_batches: TrainBatches,
    test_batches: Callable[[], Iterable[Mapping[str, np.ndarray]]],
    plan: plan_lib.Plan,
    workdir: pathlib.Path,
    config: dict[str, Any],
    console: rich.console.Console,
) -> dict[str, float]:
    """Trains as planned, going on from the newest checkpoint of the workdir if there is one.

    Writes `config.json`, `metrics.jsonl`, TensorBoard events, `curves.png` and checkpoints. A run
    that is complete already is only evaluated.

    Args:
      update: What `steps.make_update` returned for `parallelism.axis_name`.
      eval_step: What `steps.make_eval_step` returned.
      create_state: Returns the state to begin with; to be compiled.
      rng: The key that all randomness of training comes from.
      parallelism: How the devices share the state; each gets an equal part of every batch.
      train_batches: Training batches; with several processes, this one's part of them.
      test_batches: Gives the batches of the test split, from their beginning at each call.
      plan: How long to train and how often to do what.
      workdir: Where everything is written; made if need be.
      config: What made all of the above, as JSON values; kept in the workdir and checkpoints.
      console: Where progress is shown.

    Returns:
      The metrics of the test split at the end.

    Raises:
      ValueError: If a batch cannot be divided over the devices, or the workdir's checkpoint is of
        another model or optimizer.
    """
    begin = time.perf_counter()
    evaluate = evaluation.make_evaluate(eval_step, parallelism)
    rng = parallelism.place_key(rng)

    def test(state: state_lib.TrainState) -> evaluation.Evaluation:
        return evaluate(state_lib.evaluation_params(state), test_batches())

    with checkpoints.Checkpointer(workdir / "checkpoints", plan.max_checkpoints) as checkpointer:
        start, recorded = 0, None
        if checkpointer.latest_step() is None:
            state = parallelism.create_state(create_state)
        else:
            state, iterator_state, metadata = checkpointer.restore(jax.eval_shape(create_state))
            train_batches.set_state(iterator_state)
            start, recorded = int(state.step), metadata["recorded"]
            state = parallelism.place_state(state)
        writers.write_config(workdir, config)
        with (
            display.Display(console, start, plan.steps) as screen,
            recorder.Recorder(workdir, screen, start, recorded) as record,
        ):
            if start >= plan.steps:
                screen.say(f"{workdir} has been trained for {start} steps already; evaluating it")
                result = test(state)
            else:
                if start:
                    screen.say(f"going on from step {start}")
                batch = next(train_batches)
                batch_size = len(batch["label"]) * jax.process_count()
                batch = parallelism.place_batch(batch)
                compile_update = functools.partial(
                    parallelism.compile_update, update, state, batch, rng
                )
                step_fn = screen.timed("compiling the training step", compile_update)
                record.start(batch_size)
            previous = None
            for step in range(start + 1, plan.steps + 1):
                evaluating = plan.is_due(plan.eval_every, step)
                saving = plan.is_due(plan.checkpoint_every, step)
                state, metrics = step_fn(state, batch, rng)
                # While the devices work on this step, the host prepares the next batch and reads
                # the metrics of the previous step.
                if saving:
                    iterator_state = train_batches.get_state()
                if step < plan.steps:
                    batch = parallelism.place_batch(next(train_batches))
                if previous is not None:
                    record.train_step(*previous)
                previous = step, metrics, plan.is_due(plan.log_every, step)
                if evaluating or saving:
                    record.train_step(*previous)
                    previous = None
                if evaluating:
                    with screen.busy("evaluating"), record.paused():
                        result = test(state)
                        record.test(step, result)
                if saving:
                    with screen.busy("saving"), record.paused():
                        metadata = {"config": config, "recorded": record.to_json()}
                        checkpointer.save(parallelism.fetch_state(state), iterator_state, metadata)
            record.report(result, time.perf_counter() - begin)
    return result.metrics
