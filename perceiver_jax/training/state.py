"""The training state: everything that a step changes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from perceiver_jax.training import optimizers


class TrainState(NamedTuple):
    """What one update takes and returns, and what a checkpoint holds.

    Attributes:
      step: Number of updates made so far, int32 scalar.
      params: Parameters, `{module path: {name: array}}`.
      opt_state: State of the optimizer; frozen parameters have none.
      ema_params: Exponential moving average of the parameters; None where it is off.
    """

    step: jax.typing.ArrayLike
    params: optax.Params
    opt_state: optax.OptState
    ema_params: optax.Params | None


def create_state(
    params: optax.Params, optimizer: optimizers.Optimizer, ema_decay: float = 0.0
) -> TrainState:
    """Returns the state before the first update.

    Args:
      params: Initial parameters.
      optimizer: What `optimizers.build_optimizer` returned.
      ema_decay: The decay that `steps.make_update` is given; 0 keeps no average.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(optimizer.split(params)[0]),
        ema_params=jax.tree.map(jnp.copy, params) if ema_decay else None,
    )


def evaluation_params(state: TrainState) -> optax.Params:
    """Returns the parameters to evaluate with: the moving average where there is one."""
    return state.params if state.ema_params is None else state.ema_params
