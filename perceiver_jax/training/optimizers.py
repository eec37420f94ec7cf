"""LAMB and Adam, as the chain of transformations that defines them, and their learning rates.

A schedule is chosen by a dictionary, `dict(name='step', boundaries=(0.7, 0.85, 0.95), factor=0.1)`.
Everything but the name goes to exactly one function of `SCHEDULES`, so that an option which the
chosen schedule does not have is an error rather than ignored.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from perceiver_jax import config

# Adam's epsilon by optimizer: the values of the authors' code.
EPSILONS = {"lamb": 1e-6, "adam": 1e-8}

# Names of parameters that weight decay spares: biases, scales and offsets of norms, and the moving
# averages of batch norms, which have no gradient either, so that an optimizer leaves them alone.
UNDECAYED = ("b", "bias", "mean", "offset", "scale", "variance")


class Optimizer(NamedTuple):
    """An optax.GradientTransformation of the parameters that are trained, and what belongs to it.

    Attributes:
      init: Of optax; takes the trained parameters alone.
      update: Of optax; takes the gradients of, and returns the updates of, these alone.
      learning_rate: The highest of all parameters, by the step.
      frozen: Patterns of the paths of the parameters that are not trained.
    """

    init: Callable[[optax.Params], optax.OptState]
    update: Callable[..., tuple[optax.Updates, optax.OptState]]
    learning_rate: optax.Schedule
    frozen: tuple[str, ...] = ()

    def frozen_paths(self, params: optax.Params) -> frozenset[str]:
        """Returns the paths of the parameters that are not trained.

        Raises:
          UserError: If a pattern matches no parameter, or all are frozen.
        """
        paths = [f"{module}/{name}" for module, leaves in params.items() for name in leaves]
        kept = config.matching("config.optimizer.frozen", self.frozen, paths)
        if len(kept) == len(paths):
            raise config.UserError(
                f"config.optimizer.frozen is {self.frozen}, which matches all parameters; expected "
                "some to be trained. Freeze less."
            )
        return kept

    def split(self, params: optax.Params) -> tuple[optax.Params, optax.Params]:
        """Divides parameters into those that are trained and those that are frozen."""
        kept = self.frozen_paths(params)
        return hk.data_structures.partition(
            lambda module, name, _: f"{module}/{name}" not in kept, params
        )


def merge(trained: optax.Params, frozen: optax.Params) -> optax.Params:
    """Undoes `Optimizer.split`."""
    return hk.data_structures.merge(trained, frozen)


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
    frozen: Sequence[str] = (),
    depth_decay: float = 1.0,
    distance: Callable[[str], int] | None = None,
) -> Optimizer:
    """Returns an optimizer with its learning rate as a function of the step.

    With m and v Adam's bias-corrected moments of the clipped gradient, each array w moves by

        u = m / (sqrt(v) + eps) + weight_decay w
        w <- w - learning_rate(step) f r u

    where r = |w| / |u| for LAMB (1 where either is 0), and 1 for Adam; and f = depth_decay to the
    power of the number of layers between w and the outputs.

    Weight decay spares biases and all parameters of norms; it includes latents and learned
    position embeddings, as in the authors' code. So does LAMB's ratio r, which is of every array.

    Args:
      name: 'lamb' or 'adam' (with decoupled weight decay, so AdamW).
      learning_rate: The highest learning rate.
      schedule: Name and options of the schedule, see `build_schedule`.
      total_steps: Length of the training.
      weight_decay: Per unit of learning rate; 0 is none.
      max_grad_norm: Gradients are scaled down to this global norm; 0 does not clip.
      b1: Decay of the first moment.
      b2: Decay of the second moment.
      eps: Added to the root of the second moment. None: 1e-6 for LAMB, 1e-8 for Adam.
      frozen: Patterns of the paths of parameters that don't change: no update, no weight decay, no
        state of the optimizer, no part in the norm of the gradient, and no backward pass where all
        that is before them is frozen, too. '*' stands for anything, slashes as well.
      depth_decay: f of a layer over that of the next one; 1 trains all alike.
      distance: Gives the number of layers between a parameter, by its path, and the outputs;
        needed where depth_decay is not 1.

    Raises:
      UserError: If the name is unknown, a number out of range, or the schedule not valid.

    References:
      You et al. 2020, "Large Batch Optimization for Deep Learning", https://arxiv.org/abs/1904.00962
    """
    config.check_known("name", name, sorted(EPSILONS))
    eps = EPSILONS[name] if eps is None else eps
    config.check(
        locals(),
        learning_rate=config.NOT_NEGATIVE,
        weight_decay=config.NOT_NEGATIVE,
        max_grad_norm=config.NOT_NEGATIVE,
        b1=config.BELOW_ONE,
        b2=config.BELOW_ONE,
        eps=config.POSITIVE,
        depth_decay=config.Range(0, 1, low_included=False),
    )
    learning_rate_fn = build_schedule(
        schedule, learning_rate=learning_rate, total_steps=total_steps
    )
    # A checkpoint's arrays are named by their place in this chain (`opt_state/1/mu/...`): five
    # links in this order, `identity` for one that is off, or no saved run could be resumed.
    # `optax.lamb` and `optax.adamw` have another number of links.
    chain = optax.chain(
        optax.clip_by_global_norm(max_grad_norm) if max_grad_norm else optax.identity(),
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        optax.add_decayed_weights(weight_decay, mask=decay_mask),
        optax.scale_by_trust_ratio() if name == "lamb" else optax.identity(),
        _scale_by_learning_rate(learning_rate_fn, depth_decay, distance),
    )
    return Optimizer(chain.init, chain.update, learning_rate_fn, tuple(frozen))


def _scale_by_learning_rate(
    learning_rate: optax.Schedule, depth_decay: float, distance: Callable[[str], int] | None
) -> optax.GradientTransformation:
    """Optax's, then times the factor of each array; it keeps the same state."""
    scale = optax.scale_by_learning_rate(learning_rate)
    if depth_decay == 1.0:
        return scale

    def update(updates, state, params=None):
        updates, state = scale.update(updates, state, params)

        def scaled(path, x):
            return x * depth_decay ** distance(
                jax.tree_util.keystr(path, simple=True, separator="/")
            )

        return jax.tree_util.tree_map_with_path(scaled, updates), state

    return optax.GradientTransformation(scale.init, update)


def decay_mask(params: optax.Params) -> optax.Params:
    """Returns which parameters weight decay applies to, a tree of booleans."""

    def decays(path: tuple[Any, ...], _: Any) -> bool:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return name not in UNDECAYED and not name.endswith("_bias")

    return jax.tree_util.tree_map_with_path(decays, params)


def build_schedule(
    options: Mapping[str, Any], *, learning_rate: float, total_steps: int
) -> optax.Schedule:
    """Returns the learning rate as a function of the step (0 is the first).

    Args:
      options: `name`; `warmup_steps` (default: 0), the length of a linear rise; and that schedule's
        own options.
      learning_rate: The highest learning rate.
      total_steps: Length of the training.

    Raises:
      UserError: If the name is unknown, or an option is missing, unknown or out of range.
    """
    options = dict(options)
    name = options.pop("name", None)
    config.check_known("schedule.name", name, sorted(SCHEDULES))
    warmup_steps = options.get("warmup_steps", 0)
    config.COUNT.check("schedule.warmup_steps", warmup_steps, warmup_steps)
    if warmup_steps >= total_steps:
        raise config.UserError(
            f"schedule.warmup_steps is {warmup_steps}; expected less than the {total_steps} steps "
            "of the training. Shorten the warm-up or train for longer."
        )
    relative = config.build(SCHEDULES[name], options, "schedule", total_steps=total_steps)

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        # `step + 1`, so that the first update is not lost to a rate of 0. Written out, as the steps
        # and the cosine below: optax's round otherwise, and saved runs are resumed to the bit.
        warmup = jnp.minimum((step + 1.0) / max(warmup_steps, 1), 1.0)
        return jnp.float32(learning_rate) * (warmup * relative(step))

    return schedule


def _constant(total_steps: int, warmup_steps: int = 0) -> optax.Schedule:
    """The same learning rate throughout (Perceiver on ModelNet40)."""
    del total_steps, warmup_steps
    return optax.constant_schedule(1.0)


def _step(
    total_steps: int, boundaries: Sequence[float], factor: float, warmup_steps: int = 0
) -> optax.Schedule:
    """Times `factor` at each boundary, fractions of the training.

    Perceiver on ImageNet: a tenth at epochs 84, 102 and 114 of 120, boundaries (0.7, 0.85, 0.95).
    """
    del warmup_steps
    config.check(locals(), factor=config.FRACTION)
    if list(boundaries) != sorted(set(boundaries)) or not all(0 < b < 1 for b in boundaries):
        raise config.UserError(
            f"boundaries are {tuple(boundaries)}; expected ascending fractions of the training, "
            "each in (0, 1), for instance (0.7, 0.85, 0.95)."
        )
    at = jnp.array([round(fraction * total_steps) for fraction in boundaries])
    return lambda step: factor ** jnp.sum(step >= at)


def _cosine(total_steps: int, warmup_steps: int = 0) -> optax.Schedule:
    """Half a cosine from the end of the warm-up down to 0 at the last step."""

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        progress = jnp.clip((step - warmup_steps) / (total_steps - warmup_steps), 0.0, 1.0)
        return 0.5 * (1.0 + jnp.cos(jnp.pi * progress))

    return schedule


def _constant_cosine(
    total_steps: int, constant_fraction: float, warmup_steps: int = 0
) -> optax.Schedule:
    """Constant, then half a cosine down to 0 (Perceiver IO on ImageNet: a fraction of 0.5)."""
    config.check(locals(), constant_fraction=config.BELOW_ONE)
    return _cosine(total_steps, max(round(constant_fraction * total_steps), warmup_steps))


SCHEDULES = {
    "constant": _constant,
    "step": _step,
    "cosine": _cosine,
    "constant_cosine": _constant_cosine,
}
