"""The section `train` of a config."""

import dataclasses

from perceiver_jax import config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
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
      parallelism: See `devices.build_parallelism`.
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
        config.check(vars(self), **dict.fromkeys(every, config.COUNT))
        numbers = ("steps", "max_checkpoints", "max_skipped", "accumulate_steps")
        config.check(vars(self), **dict.fromkeys(numbers, config.AT_LEAST_ONE))
        config.check(vars(self), ema_decay=config.BELOW_ONE)

    def is_due(self, every: int, step: int) -> bool:
        """Whether what is done `every` so many steps is to be done after `step` updates."""
        return step == self.steps or (every > 0 and step % every == 0)
