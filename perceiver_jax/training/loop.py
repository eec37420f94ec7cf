"""The training loop: step, record, evaluate, save, and go on from where a run stopped."""

from collections.abc import Callable, Iterable, Mapping
import pathlib
import time
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import rich.console

from perceiver_jax.training import checkpoints, display, evaluation, recorder, writers
from perceiver_jax.training import devices as devices_lib
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
    state: state_lib.TrainState,
    rng: jax.Array,
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
      update: What `steps.make_update` returned for the axis `devices.AXIS`.
      eval_step: What `steps.make_eval_step` returned.
      state: The state to begin with.
      rng: The key that all randomness of training comes from.
      train_batches: Training batches; every local device gets an equal part of each.
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
    devices = jax.local_devices()
    evaluate = evaluation.make_evaluate(eval_step, devices)

    def test(state: state_lib.TrainState) -> evaluation.Evaluation:
        return evaluate(state_lib.evaluation_params(state), test_batches())

    with checkpoints.Checkpointer(workdir / "checkpoints", plan.max_checkpoints) as checkpointer:
        recorded = None
        if checkpointer.latest_step() is not None:
            state, iterator_state, metadata = checkpointer.restore(state)
            train_batches.set_state(iterator_state)
            recorded = metadata["recorded"]
        start = int(state.step)
        writers.write_config(workdir, config)
        state = devices_lib.replicate(state, devices)
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
                batch = devices_lib.shard(next(train_batches), devices)
                step_fn = _compile(update, state, batch, rng, devices, screen)
                record.start(batch["label"].shape[0] * batch["label"].shape[1])
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
                    batch = devices_lib.shard(next(train_batches), devices)
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
                        checkpointer.save(devices_lib.fetch(state), iterator_state, metadata)
            record.report(result, time.perf_counter() - begin)
    return result.metrics


def _compile(
    update: steps_lib.Update,
    state: state_lib.TrainState,
    batch: Mapping[str, jax.Array],
    rng: jax.Array,
    devices: list[jax.Device],
    screen: display.Display,
) -> Callable[..., tuple[state_lib.TrainState, dict[str, jax.Array]]]:
    """Compiles the update for all local devices; the state that it is given is used up."""
    mapped = jax.pmap(
        update,
        axis_name=devices_lib.AXIS,
        in_axes=(0, 0, None),
        out_axes=(0, None),
        donate_argnums=0,
        devices=devices,
    )
    return screen.timed(
        "compiling the training step", lambda: mapped.lower(state, batch, rng).compile()
    )
