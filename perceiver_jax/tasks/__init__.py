"""What models are trained for, one file a task: loss, metrics, and how predictions look.

A task knows neither models nor data sets nor the trainer: it takes dictionaries of arrays. What it
has to have is said in `perceiver_jax.training.task.Task`.
"""

from collections.abc import Mapping
from typing import Any

from perceiver_jax import config as config_lib
from perceiver_jax.tasks import classification, regression

TASKS = {
    "classification": classification.Classification,
    "regression": regression.Regression,
}


def build_task(config: Mapping[str, Any], fields: Mapping[str, Any]) -> Any:
    """Builds a task from a config's `task` section.

    Args:
      config: `kind`, of `TASKS`; `target`, the name of the field to predict and of the output that
        predicts it; and the task's other arguments.
      fields: of the data set, by name.

    Raises:
      config.UserError: for an unknown key, kind or value, or a target that the data set has not.
    """
    if not hasattr(config, "items"):
        raise config_lib.UserError(
            f"config.task is {config!r}; expected a section with a kind of {sorted(TASKS)}."
        )
    target = config.get("target")
    known = sorted(name for name, field in fields.items() if field.is_target)
    if target not in known:
        raise config_lib.UserError(
            f"config.task.target is {target!r}; expected one of the data set's targets {known}. "
            "Set it to the field to predict."
        )
    return config_lib.build_from_table(TASKS, config, "config.task", field=fields[target])
