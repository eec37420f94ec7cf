"""A model of a few parameters, and data that it can learn, for all tests of training."""

import io
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console

from perceiver_jax import tasks
from perceiver_jax.data.fields import label
from perceiver_jax.training import (
    devices,
    loop,
    optimizers,
    preemption,
    state,
    steps,
    task,
)

FEATURES, HIDDEN, CLASSES = 5, 12, 7  # 12, so that 'fsdp' has something to divide.


def _toy_apply(params, rng, batch, is_training=False):
    """A hidden layer; drops inputs at random in training, so that randomness matters."""
    x = batch["points"]
    if is_training:
        x = x * jax.vmap(lambda key: jax.random.bernoulli(key, 0.9, (FEATURES,)))(rng)
    x = jnp.tanh(x @ params["hidden"]["w"] + params["hidden"]["b"][None])
    return {"label": x @ params["logits"]["w"] + params["logits"]["b"][None]}


def _toy_apply_training(params, rng, batch, axis_name):
    return _toy_apply(params, rng, batch, is_training=True), {}


def _make_task(loss):
    keys = {"kind": "classification", "target": "label", "loss": loss}
    return tasks.build_task(keys, {"label": label.Label(CLASSES, multi_label=loss == "sigmoid")})


def _toy_params():
    draw = np.random.RandomState(0).normal
    return {
        "hidden": {
            "w": jnp.asarray(draw(size=(FEATURES, HIDDEN)), jnp.float32),
            "b": jnp.zeros(HIDDEN),
        },
        "logits": {
            "w": jnp.asarray(draw(size=(HIDDEN, CLASSES)) / 3, jnp.float32),
            "b": jnp.zeros(CLASSES),
        },
    }


def _toy_batch(size, seed=0):
    points = np.random.RandomState(seed).normal(size=(size, FEATURES)).astype(np.float32)
    return {
        "points": points,
        "label": np.argmax(points, axis=1).astype(np.int32),
        "example_id": np.arange(size, dtype=np.int32),
        "mask": np.ones(size, bool),
    }


class _ToyBatches:
    """An endless iterator that can be saved; may stop at a batch as if the process were killed.

    The batches in `bad` have an input that is not a number.
    """

    def __init__(self, killed_at=None, bad=()):
        self._next, self._killed_at, self._bad = 0, killed_at, bad

    def __next__(self):
        if self._next == self._killed_at:
            raise KeyboardInterrupt
        self._next += 1
        batch = _toy_batch(8, seed=self._next)
        if self._next in self._bad:
            batch["points"][3] = np.nan
        return batch

    def get_state(self):
        return str(self._next).encode()

    def set_state(self, state):
        self._next = int(state)


class Toy(NamedTuple):
    """The parts of a training run."""

    task: task.Task
    optimizer: object
    state: state.TrainState
    ema_decay: float

    def eval_step(self):
        return steps.make_eval_step(_toy_apply, self.task)

    def update(self, sharding=None, accumulate_steps=1):
        apply, axis_name = _toy_apply_training, None
        if sharding is not None:
            apply, axis_name = sharding.with_whole_params(apply), sharding.axis_name
        return steps.make_update(
            apply,
            self.task,
            self.optimizer,
            ema_decay=self.ema_decay,
            accumulate_steps=accumulate_steps,
            axis_name=axis_name,
        )


@pytest.fixture(scope="session")
def toy_batch():
    return _toy_batch


@pytest.fixture(scope="session")
def make_toy():
    def make(steps=13, ema_decay=0.9, loss="softmax", **options):
        options = {"name": "lamb", "learning_rate": 0.05, "weight_decay": 0.1} | options
        optimizer = optimizers.build_optimizer(
            schedule={"name": "cosine"}, total_steps=steps, max_grad_norm=1.0, **options
        )
        initial = state.create_state(_toy_params(), optimizer, ema_decay)
        return Toy(_make_task(loss), optimizer, initial, ema_decay)

    return make


@pytest.fixture(scope="session")
def train_toy(make_toy):
    """Runs the loop on the toy in a workdir; returns the test metrics and what was printed."""

    def train(
        workdir,
        steps=13,
        killed_at=None,
        ema_decay=0.9,
        sharding="pmap",
        signals=None,
        bad=(),
        **intervals,
    ):
        toy = make_toy(steps, ema_decay)
        sharding = devices.build_sharding(sharding)
        screen = io.StringIO()
        intervals = {"log_every": 2, "eval_every": 5, "checkpoint_every": 3} | intervals
        metrics = loop.train(
            update=toy.update(sharding),
            eval_step=toy.eval_step(),
            task=toy.task,
            create_state=lambda: toy.state,
            rng=jax.random.key(1),
            sharding=sharding,
            train_batches=_ToyBatches(killed_at, bad),
            test_batches=lambda: iter([_toy_batch(16, seed=10**6)]),
            train_config=loop.TrainConfig(
                steps=steps, max_checkpoints=2, max_skipped=3, **intervals
            ),
            workdir=workdir,
            config={"seed": 1},
            console=rich.console.Console(file=screen, width=100),
            signals=signals or preemption.Preemption(),
        )
        return metrics, screen.getvalue()

    return train
