"""Turns a section of a config into the object whose keyword arguments it holds."""

from collections.abc import Callable, Mapping
import difflib
import inspect
from typing import Any


def build(constructor: Callable, keys: Mapping[str, Any], where: str, **given: Any) -> Any:
    """Calls `constructor(**keys, **given)` after checking the keys.

    Args:
      constructor: a class or function of named arguments.
      keys: the section of the config.
      where: the section's path, for messages.
      **given: arguments that don't come from the config.

    Returns:
      What the constructor returns.

    Raises:
      ValueError: for an unknown or a missing key.
    """
    parameters = {
        name: p
        for name, p in inspect.signature(constructor).parameters.items()
        if name not in given and name != "name"
    }
    for key in keys:
        if key not in parameters:
            raise ValueError(f"Unknown key {where}.{key}; {choices(key, parameters)}")
    missing = [name for name, p in parameters.items() if p.default is p.empty and name not in keys]
    if missing:
        raise ValueError(
            f"Missing key {where}.{missing[0]}; expected {sorted(parameters)}, "
            f"got {sorted(keys)}. Set it."
        )
    return constructor(**keys, **given)


def build_from_table(
    table: Mapping[str, Callable], keys: Mapping[str, Any], where: str, **given: Any
) -> Any:
    """Like `build`, with the constructor that `keys['kind']` names in a table.

    Raises:
      ValueError: for an unknown or a missing kind, or an unknown or a missing key.
    """
    keys = dict(keys)
    kind = keys.pop("kind", None)
    if kind not in table:
        raise ValueError(f"Unknown {where}.kind {kind!r}; {choices(str(kind), table)}")
    return build(table[kind], keys, where, **given)


def choices(got: str, known: Mapping[str, Any]) -> str:
    """Lists the known names and suggests the one nearest to what was given."""
    nearest = difflib.get_close_matches(got, known, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else " Choose one of these."
    return f"expected one of {sorted(known)}.{hint}"
