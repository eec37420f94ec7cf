"""LAMB and Adam, as the chain of transformations that defines them."""

from collections.abc import Mapping
from typing import Any

import jax
import optax

from perceiver_jax.training import schedules

# Adam's epsilon by optimizer: the values of the authors' code.
EPSILONS = {"lamb": 1e-6, "adam": 1e-8}

# Names of parameters that weight decay spares: biases, and scales and offsets of norms.
UNDECAYED = ("b", "bias", "offset", "scale")


def build_optimizer(
    *,
    name: str,
    learning_rate: float,
    schedule: Mapping[str, Any],
    total_steps: int,
    weight_decay: float = 0.0,
    max_grad_norm: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float | None = None,
) -> tuple[optax.GradientTransformation, schedules.Schedule]:
    """Returns an optimizer and its learning rate as a function of the step.

    With m and v Adam's bias-corrected moments of the clipped gradient, each array w moves by

        u = m / (sqrt(v) + eps) + weight_decay w
        w <- w - learning_rate(step) r u

    where r = |w| / |u| for LAMB (1 where either is 0), and 1 for Adam.

    Weight decay spares biases and the scales and offsets of norms; it includes latents and learned
    position embeddings, as in the authors' code. So does LAMB's ratio r, which is of every array.

    Args:
      name: 'lamb' or 'adam' (with decoupled weight decay, so AdamW).
      learning_rate: The highest learning rate.
      schedule: Name and options of the schedule, see `schedules.build_schedule`.
      total_steps: Length of the training.
      weight_decay: Per unit of learning rate; 0 is none.
      max_grad_norm: Gradients are scaled down to this global norm; 0 does not clip.
      b1: Decay of the first moment.
      b2: Decay of the second moment.
      eps: Added to the root of the second moment. None: 1e-6 for LAMB, 1e-8 for Adam.

    Raises:
      ValueError: If the name is unknown, a number out of range, or the schedule not valid.

    References:
      You et al. 2020, "Large Batch Optimization for Deep Learning", https://arxiv.org/abs/1904.00962
    """
    if name not in EPSILONS:
        raise ValueError(
            f"Unknown optimizer {name!r}; expected one of {sorted(EPSILONS)}. The papers use LAMB."
        )
    _check_not_negative(
        learning_rate=learning_rate, weight_decay=weight_decay, max_grad_norm=max_grad_norm
    )
    learning_rate_fn = schedules.build_schedule(
        schedule, learning_rate=learning_rate, total_steps=total_steps
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(max_grad_norm) if max_grad_norm else optax.identity(),
        optax.scale_by_adam(b1=b1, b2=b2, eps=EPSILONS[name] if eps is None else eps),
        optax.add_decayed_weights(weight_decay, mask=decay_mask),
        optax.scale_by_trust_ratio() if name == "lamb" else optax.identity(),
        optax.scale_by_learning_rate(learning_rate_fn),
    )
    return optimizer, learning_rate_fn


def decay_mask(params: optax.Params) -> optax.Params:
    """Returns which parameters weight decay applies to, a tree of booleans."""

    def decays(path: tuple[Any, ...], _: Any) -> bool:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return name not in UNDECAYED and not name.endswith("_bias")

    return jax.tree_util.tree_map_with_path(decays, params)


def _check_not_negative(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0:  # Also catches NaN.
            raise ValueError(
                f"{name} is {value}; expected a number >= 0. 0 turns it off; "
                "see the configs for values that train well."
            )
