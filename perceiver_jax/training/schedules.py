"""Learning-rate schedules: what the papers used, each with an optional linear warm-up.

A schedule is chosen by a dictionary, `dict(name='step', boundaries=(0.7, 0.85, 0.95), factor=0.1)`.
Everything but the name goes to exactly one constructor below, so that an option which the chosen
schedule does not have is an error rather than ignored.
"""

from collections.abc import Callable, Mapping, Sequence
import inspect
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Schedule = Callable[[Int[Array, ""] | int], Float[Array, ""]]


def constant(total_steps: int, *, warmup_steps: int = 0) -> Schedule:
    """The same learning rate throughout (Perceiver on ModelNet40)."""
    del total_steps
    return lambda step: _warmup(step, warmup_steps)


def step(
    total_steps: int, *, boundaries: Sequence[float], factor: float, warmup_steps: int = 0
) -> Schedule:
    """Multiplies the learning rate by `factor` at each boundary.

    Perceiver on ImageNet: a tenth at epochs 84, 102 and 114 of 120, boundaries (0.7, 0.85, 0.95).

    Args:
      total_steps: Length of the training.
      boundaries: Fractions of `total_steps`, ascending, in (0, 1).
      factor: What each boundary multiplies the learning rate by.
      warmup_steps: Length of the linear warm-up.
    """
    if list(boundaries) != sorted(set(boundaries)) or not all(0 < b < 1 for b in boundaries):
        raise ValueError(
            f"boundaries are {tuple(boundaries)}; expected ascending fractions of the training, "
            "each in (0, 1), for instance (0.7, 0.85, 0.95)."
        )
    at = jnp.array([round(fraction * total_steps) for fraction in boundaries])

    def schedule(step: Int[Array, ""] | int) -> Float[Array, ""]:
        return _warmup(step, warmup_steps) * factor ** jnp.sum(step >= at)

    return schedule


def cosine(total_steps: int, *, warmup_steps: int = 0) -> Schedule:
    """Half a cosine from the end of the warm-up down to 0 at the last step."""
    return _cosine_after(warmup_steps, total_steps, warmup_steps)


def constant_cosine(
    total_steps: int, *, constant_fraction: float, warmup_steps: int = 0
) -> Schedule:
    """Constant, then half a cosine down to 0 (Perceiver IO on ImageNet: a fraction of 0.5).

    Args:
      total_steps: Length of the training.
      constant_fraction: Fraction of `total_steps` before the decay begins, in [0, 1).
      warmup_steps: Length of the linear warm-up, part of the constant fraction.
    """
    if not 0 <= constant_fraction < 1:
        raise ValueError(
            f"constant_fraction is {constant_fraction}; expected a fraction of the training in "
            "[0, 1). For no decay at all choose the schedule 'constant'."
        )
    start = max(round(constant_fraction * total_steps), warmup_steps)
    return _cosine_after(start, total_steps, warmup_steps)


SCHEDULES = {
    "constant": constant,
    "step": step,
    "cosine": cosine,
    "constant_cosine": constant_cosine,
}


def build_schedule(
    options: Mapping[str, Any], *, learning_rate: float, total_steps: int
) -> Schedule:
    """Returns the learning rate as a function of the step (0 is the first).

    Args:
      options: `name` and that schedule's own options.
      learning_rate: The highest learning rate.
      total_steps: Length of the training.

    Raises:
      ValueError: If the name is unknown, or an option is missing, unknown or out of range.
    """
    options = dict(options)
    name = options.pop("name", None)
    if name not in SCHEDULES:
        raise ValueError(f"Unknown schedule {name!r}; expected a name out of {sorted(SCHEDULES)}.")
    parameters = inspect.signature(SCHEDULES[name]).parameters.values()
    allowed = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    required = {key for key, default in allowed.items() if default is inspect.Parameter.empty}
    if not required <= options.keys() <= allowed.keys():
        raise ValueError(
            f"The schedule {name!r} got the options {sorted(options)}; it takes {sorted(allowed)}, "
            f"of which {sorted(required) or 'none'} must be given. Remove or add the others."
        )
    warmup_steps = options.get("warmup_steps", 0)
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps is {warmup_steps}; expected 0 <= warmup_steps < total_steps = "
            f"{total_steps}. Shorten the warm-up or train for longer."
        )
    relative = SCHEDULES[name](total_steps, **options)
    return lambda step: jnp.float32(learning_rate) * relative(step)


def _warmup(step: Int[Array, ""] | int, warmup_steps: int) -> Float[Array, ""]:
    """Rises to 1 in `warmup_steps` updates, the first of which is not lost to a rate of 0."""
    return jnp.minimum((step + 1.0) / max(warmup_steps, 1), 1.0)


def _cosine_after(start: int, total_steps: int, warmup_steps: int) -> Schedule:
    def schedule(step: Int[Array, ""] | int) -> Float[Array, ""]:
        progress = jnp.clip((step - start) / (total_steps - start), 0.0, 1.0)
        return _warmup(step, warmup_steps) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))

    return schedule
