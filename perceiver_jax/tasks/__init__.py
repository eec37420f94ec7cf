"""What models are trained for, one file a task: loss, metrics, and how predictions look.

A task knows neither models nor data sets nor the trainer: it takes dictionaries of arrays. What it
has to have is said in `perceiver_jax.training.task.Task`.
"""

from collections.abc import Mapping
from typing import Any

from perceiver_jax import config as config_lib
from perceiver_jax.tasks import autoencoding, classification, flow, masked_text, regression

TASKS = {
    "autoencoding": autoencoding.Autoencoding,
    "classification": classification.Classification,
    "flow": flow.Flow,
    "masked_text": masked_text.MaskedText,
    "regression": regression.Regression,
}


def build_task(config: Mapping[str, Any], fields: Mapping[str, Any]) -> Any:
    """Builds a task from a config's `task` section.

    Args:
      config: `kind`, of `TASKS`, and the task's arguments.
      fields: of the data set, by name.

    Raises:
      config.UserError: for an unknown key, kind or value, or a target that the data set has not.
    """
    return config_lib.build_from_table(TASKS, config, "config.task", fields=fields)
