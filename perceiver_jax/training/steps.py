"""The training and evaluation steps: pure functions, to be run by `jax.jit` or `jax.pmap`."""

from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key
import numpy as np
import optax

from perceiver_jax import config
from perceiver_jax.training import optimizers
from perceiver_jax.training import task as task_lib
from perceiver_jax.training.state import TrainState

Batch = Mapping[str, Array | np.ndarray]
Apply = Callable[..., task_lib.Arrays]  # (params, rng, batch, is_training) -> outputs [B, ...]
# (params, rng, batch, axis_name) -> outputs [B, ...], new values of some parameters
ApplyTraining = Callable[..., tuple[task_lib.Arrays, optax.Params]]
Update = Callable[[TrainState, Batch, Array], tuple[TrainState, dict[str, Array]]]


def make_update(
    apply: ApplyTraining,
    task: task_lib.Task,
    optimizer: optimizers.Optimizer,
    *,
    ema_decay: float = 0.0,
    accumulate_steps: int = 1,
    axis_name: str | None = None,
) -> Update:
    """Returns `update(state, batch, rng) -> (state, metrics)`.

    The loss is the mean over the global batch, without the examples that `batch['mask']`, if there
    is one, is False for.
    The metrics are scalars: `loss`, what else the task reports, `grad_norm` (of all trained
    parameters, before clipping), `learning_rate` and `skipped`.

    Parameters in `optimizer.frozen`, and their moving averages, stay as they are to the bit.

    Some parameters are not learned, but moving averages of what a model sees (of batch norms):
    `apply` returns their new values, which take the place of the old ones.

    Where the loss, a gradient or such an average is not finite, the update is skipped: nothing but
    the step changes, and `skipped` is 1 instead of 0. The optimizer counts the updates that it
    made, so that after s skipped ones its learning rate is that of s steps earlier.

    An example's random key depends on `rng`, the step and its place in the global batch alone, so
    that results do not depend on the number of devices.

    Args:
      apply: `apply(params, rng, batch, axis_name) -> (outputs, averages)` in training, with one
        random key an example. `averages` are of the whole batch, over all devices, and a part of
        the tree of parameters: `{module path: {name: array}}`, or `{}`.
      task: What the outputs are trained for.
      optimizer: What `optimizers.build_optimizer` returned.
      ema_decay: Highest decay of the moving average of parameters, in [0, 1); 0 keeps none.
      accumulate_steps: How many parts of the batch to take one after another, adding up their
        gradients: the same update with the activations of one part in memory at a time. Batch
        norms alone see each part for itself; their averages are the mean of those of all parts.
      axis_name: The mapped axis that the batch is divided over; None if it is not.
    """

    def total(x: Array) -> Array:
        # XLA's CPU compiler would copy what it sums over one device.
        alone = axis_name is None or jax.lax.axis_size(axis_name) == 1
        return x if alone else jax.lax.psum(x, axis_name)

    def update(
        state: TrainState, batch: Batch, rng: Key[Array, ""]
    ) -> tuple[TrainState, dict[str, Array]]:
        size = len(next(iter(batch.values())))
        weight = jnp.asarray(batch.get("mask", jnp.ones(size)), jnp.float32)
        weight = weight / total(jnp.sum(weight))
        # Resuming to the bit depends on both: the key of a step, and that of an example in it.
        keys = _example_keys(jax.random.fold_in(rng, state.step), size, axis_name)
        # The frozen ones are constants of the loss: what only their gradients need is not computed.
        trained, frozen = optimizer.split(state.params)

        def loss_fn(trained: optax.Params, part: Any) -> tuple[Array, Any]:
            batch, keys, weight = part
            params = optimizers.merge(trained, frozen)
            outputs, averages = apply(params, keys, batch, axis_name)
            losses, reported = task.loss(outputs, batch)
            chex.assert_equal_shape((losses, weight, *reported.values()))
            means = {name: jnp.sum(weight * x) for name, x in reported.items()}
            return jnp.sum(weight * losses), (means, averages)

        value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)
        (value, (reported, averages)), grads = _sum_over_parts(
            lambda part: value_and_grad(trained, part),
            (dict(batch), keys, weight),
            accumulate_steps,
        )
        grads = jax.tree.map(total, grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        averages = jax.tree.map(lambda x: x / accumulate_steps, averages)
        trained = _put(averages, optax.apply_updates(trained, updates))
        metrics = {
            "loss": total(value),
            **{name: total(x) for name, x in reported.items()},
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": optimizer.learning_rate(state.step),
        }
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
        for average in jax.tree.leaves(averages):  # One that is infinite leaves the loss finite.
            finite &= jnp.isfinite(average).all()
        metrics["skipped"] = 1.0 - finite
        ema_params = state.ema_params
        if ema_params is not None:
            average, same = optimizer.split(ema_params)
            average = _moving_average(average, trained, state.step, ema_decay)
            ema_params = optimizers.merge(average, same)
        params = optimizers.merge(trained, frozen)
        updated = TrainState(state.step, params, opt_state, ema_params)
        state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
        return state._replace(step=state.step + 1), metrics

    return update


def make_eval_step(
    apply: Apply, task: task_lib.Task
) -> Callable[[optax.Params, Batch], dict[str, Array]]:
    """Returns `eval_step(params, batch) -> rows`, what the task keeps of each example."""

    def eval_step(params: optax.Params, batch: Batch) -> dict[str, Array]:
        return task.rows(apply(params, None, batch, is_training=False), batch)

    return eval_step


def _example_keys(rng: Key[Array, ""], size: int, axis_name: str | None) -> Key[Array, " B"]:
    """One key an example of this device's part of the batch, by place in the global batch."""
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * size
    return jax.vmap(jax.random.fold_in, (None, 0))(rng, first + jnp.arange(size))


def _sum_over_parts(function: Callable[[Any], Any], batch: Any, num_parts: int) -> Any:
    """Sums `function(part)` over parts of a tree of arrays [B, ...], taken one after another.

    A part has every `num_parts`-th row, so that a batch that is divided over devices remains so.

    Raises:
      ValueError: If the rows cannot be divided equally.
    """
    if num_parts == 1:
        return function(batch)
    size = len(jax.tree.leaves(batch)[0])
    if size % num_parts:
        raise config.UserError(
            f"{size} examples cannot be accumulated in {num_parts} steps; expected a multiple of "
            f"{num_parts}. Set batch_size to a multiple of devices x accumulate_steps."
        )

    def split(x: Array) -> Array:
        return jnp.swapaxes(x.reshape(size // num_parts, num_parts, *x.shape[1:]), 0, 1)

    def add(sums: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, function(part)), None

    parts = jax.tree.map(split, batch)
    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, zeros, parts)[0]


def _put(new: optax.Params, params: optax.Params) -> optax.Params:
    """The parameters with those of `new` in the place of theirs; others of `new` are left out."""
    return {
        module: {k: new.get(module, {}).get(k, x).astype(x.dtype) for k, x in leaves.items()}
        for module, leaves in params.items()
    }


def _moving_average(
    average: optax.Params, params: optax.Params, step: Array, highest_decay: float
) -> optax.Params:
    """Moves the average; early on it decays faster, so as to forget the initial values."""
    decay = jnp.minimum(highest_decay, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(params, average, 1.0 - decay)
