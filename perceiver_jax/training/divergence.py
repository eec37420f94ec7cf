"""Stops a run whose updates are not finite any more, and reports what happened."""

from collections.abc import Mapping, Sequence
import math
import pathlib
from typing import Any

import jax
import numpy as np

from perceiver_jax import config
from perceiver_jax.training import checkpoints, state, writers

REPORT_FILE = "divergence.json"


class DivergedError(ArithmeticError, config.UserError):
    """Too many updates in a row were skipped."""


class Divergence:
    """The updates that were skipped since the last one that was not.

    Args:
      max_skipped: How many in a row are too many.
      skipped: What the attribute `skipped` was at the step that training resumes from.
    """

    def __init__(self, max_skipped: int, skipped: Sequence[dict[str, Any]] = ()):
        """Begins with those of before."""
        self._max_skipped, self.skipped = max_skipped, list(skipped)

    def add(self, step: int, metrics: Mapping[str, float], indices: np.ndarray) -> bool:
        """Takes the metrics of a step and its examples' indices; returns whether to stop."""
        if not metrics["skipped"]:
            self.skipped = []
            return False
        self.skipped.append(
            {
                "step": step,
                "loss": _json(metrics["loss"]),
                "grad_norm": _json(metrics["grad_norm"]),
                "learning_rate": metrics["learning_rate"],
                "batch_indices": np.asarray(indices).tolist(),
            }
        )
        return len(self.skipped) >= self._max_skipped

    def stop(
        self, workdir: pathlib.Path, last_checkpoint: int | None, state: state.TrainState
    ) -> None:
        """Writes the report and ends training.

        Args:
          workdir: Where `divergence.json` goes.
          last_checkpoint: The step of the newest checkpoint; None if there is none.
          state: The state, which skipped updates have not changed, as numpy arrays.

        Raises:
          DivergedError: Always.
        """
        first = self.skipped[0]["step"]
        saved = (
            "nothing is saved yet"
            if last_checkpoint is None
            else (f"the checkpoint of step {last_checkpoint} is the last one")
        )
        how = (
            "The same command repeats these steps with the same batches, which helps only if the "
            "hardware was at fault. Otherwise look at the examples of batch_indices, and lower "
            "optimizer.learning_rate or optimizer.max_grad_norm, or lengthen the warm-up: with "
            "another --workdir from the beginning, or with --accept_changes from the checkpoint."
        )
        norms = {
            name: float(np.linalg.norm(np.asarray(x, np.float64)))
            for name, x in checkpoints.named(state.params).items()
        }
        report = {
            "last_good_step": first - 1,
            "last_checkpoint": last_checkpoint,
            "how_to_resume": how,
            "skipped": self.skipped,
            "parameter_norms": norms,
        }
        path = workdir / REPORT_FILE
        if jax.process_index() == 0:
            writers.write_json(path, report)
        raise DivergedError(
            f"The loss or a gradient was not finite in {len(self.skipped)} steps in a row, from "
            f"step {first} on (config.train.max_skipped is {self._max_skipped}); {saved}. "
            f"{path} has the batches and norms. {how}"
        )


def _json(x: float) -> float | str:
    """JSON has no NaN and no infinity."""
    return x if math.isfinite(x) else str(x)
