"""What a task is trained to predict, among the fields of a data set."""

from collections.abc import Mapping
from typing import Any

import jax

from perceiver_jax import config

OF_AN_EXAMPLE = "Set its kind to 'query' or 'mean_pool', which give one row an example."


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


def check_shape(name: str, output: jax.Array, expected: tuple[int, ...], remedy: str) -> None:
    """Checks the shape of what a model gives, which a loss might spread over another silently.

    Args:
      name: Of the output.
      output: It.
      expected: Its shape.
      remedy: What to do, if it is not.

    Raises:
      config.UserError: If it has another shape.
    """
    if output.shape != expected:
        raise config.UserError(
            f"Output {name!r} is {list(output.shape[1:])} an example; expected "
            f"{list(expected[1:])}. {remedy}"
        )
