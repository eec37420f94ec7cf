"""What a task is trained to predict, among the fields of a data set."""

from collections.abc import Mapping
from typing import Any

from perceiver_jax import config


def find(fields: Mapping[str, Any], target: str) -> Any:
    """Returns the field of a target.

    Args:
      fields: Of the data set, by name.
      target: Name of the field to predict.

    Raises:
      config.UserError: If the data set has no such target.
    """
    known = sorted(name for name, field in fields.items() if field.is_target)
    if target not in known:
        raise config.UserError(
            f"target is {target!r}; expected one of the data set's targets {known}. "
            "Set it to the field to predict."
        )
    return fields[target]
