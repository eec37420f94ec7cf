"""The one place that checks what a config, or a caller, gives: keys, kinds and ranges.

Every part of the package may import this; it imports nothing that takes time.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import difflib
import fnmatch
import inspect
import math
import numbers
import re
import typing
from typing import Any, NamedTuple

MAX_INT = 2**31 - 1  # Steps and seeds are 32-bit integers.
_FLOAT32 = (1.2e-38, 3.4e38)  # Beyond them float32, which all is computed in, has 0 and infinity.
_NUMBERS = (int, float, int | float)  # Annotations of arguments that are one number.


class UserError(ValueError):
    """What the user has to change, said in one message that is all they need to see.

    Commands print it and end; any other error is a bug of ours and keeps its traceback. Errors that
    are of another kind too (a file that is not there) are subclasses of this and of that kind.
    """


class MissingFileError(FileNotFoundError, UserError):
    """A file that the user has to make, or to name."""


class MissingPackageError(ModuleNotFoundError, UserError):
    """A package that the user has to install."""


class Range(NamedTuple):
    """Finite numbers from `low` to `high`, as far as they are included themselves."""

    low: float = -math.inf
    high: float = math.inf
    low_included: bool = True
    high_included: bool = True
    whole: bool = False

    def check(self, key: str, x: Any, shown: Any) -> None:
        """Raises a UserError if `x`, which is `shown` or a part of it, is not one of them."""
        kind = numbers.Integral if self.whole else numbers.Real
        above = below = problem = ""
        if not isinstance(x, kind) or isinstance(x, bool):
            problem = "a whole number, " if self.whole else "a number, "
        elif not math.isfinite(x):
            problem = "a finite number, "
        elif x and not self.whole and not _FLOAT32[0] <= abs(x) <= _FLOAT32[1]:
            problem = f"a number that float32 can hold ({_FLOAT32[0]} to {_FLOAT32[1]}), "
        else:
            above = x >= self.low if self.low_included else x > self.low
            below = x <= self.high if self.high_included else x < self.high
        if above and below:
            return
        low = f"{'at least' if self.low_included else 'more than'} {self.low}"
        if self.low == -math.inf:
            low = "any number"
        high = f" and {'at most' if self.high_included else 'less than'} {self.high}"
        if self.high == math.inf or (self.high == MAX_INT and below is not False):
            high = ""  # Of no interest.
        raise UserError(f"{key} is {shown!r}; expected {problem}{low}{high}. Change it.")


NUMBER = Range()
POSITIVE = Range(0, low_included=False)
NOT_NEGATIVE = Range(0)
FRACTION = Range(0, 1)
BELOW_ONE = Range(0, 1, high_included=False)
COUNT = Range(0, MAX_INT, whole=True)
AT_LEAST_ONE = Range(1, MAX_INT, whole=True)


def check(values: Mapping[str, Any], **ranges: Range) -> None:
    """Checks numbers by name, where they come in: `check(vars(self), num_latents=AT_LEAST_ONE)`.

    Args:
      values: what was given: numbers, sequences of at least one, or mappings of them.
      **ranges: where those of them that are named here have to be.

    Raises:
      UserError: if one is not; it begins with the name, which `build` completes to a path.
    """
    for name, allowed in ranges.items():
        value = values[name]
        if hasattr(value, "items"):
            for key, x in value.items():
                allowed.check(f"{name}.{key}", x, x)
        elif isinstance(value, list | tuple):
            if not value:
                raise UserError(f"{name} is empty; expected at least one value. Add it.")
            for x in value:
                allowed.check(name, x, value)
        else:
            allowed.check(name, value, value)


def check_pairs(values: Mapping[str, Any], **ranges: Range) -> None:
    """Like `check`, of pairs of the least and the greatest."""
    check(values, **ranges)
    for name in ranges:
        pair = values[name]
        if not isinstance(pair, list | tuple) or len(pair) != 2 or pair[0] > pair[1]:
            raise UserError(f"{name} is {pair}; expected two numbers, the lesser one first.")


def check_known(what: str, got: Any, known: Iterable[str]) -> None:
    """Raises a UserError that lists what is known and suggests the nearest, if `got` is not."""
    known = list(known)
    if got not in known:
        hint = did_you_mean(got, known)
        raise UserError(f"Unknown {what} {got!r}; expected one of {known}.{hint}")


def unknown(what: str, got: str, names: Iterable[str], shown: Iterable[str]) -> str:
    """Says what is unknown, what was probably meant, and all that is known."""
    hint = did_you_mean(got, names)
    return f"Unknown {what} {got!r}.{hint} Known: {', '.join(shown) or 'none'}."


def did_you_mean(got: Any, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The question whether the nearest known name, or one it begins, was meant; '' if none is."""
    known, got = list(known), str(got)
    nearest = difflib.get_close_matches(got, known, 1, cutoff)
    nearest += [name for name in known if got and name.startswith(got)]
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def said(error: object) -> str:
    """Returns what an error says, on one line and without the full stop, for ours follows it."""
    return " ".join(str(error).split()).rstrip(".")


def matching(key: str, patterns: Sequence[str], paths: Iterable[str]) -> frozenset[str]:
    """Returns the paths that patterns match; '*' stands for anything, slashes as well.

    Args:
      key: the patterns' place in the config, for messages.
      patterns: such as 'encoder/*'.
      paths: of parameters.

    Raises:
      UserError: if a pattern matches none of them.
    """
    paths, found = sorted(paths), set()
    for pattern in patterns:
        matched = fnmatch.filter(paths, str(pattern))
        if not matched:
            folders = [f"{path[: m.start()]}/*" for path in paths for m in re.finditer("/", path)]
            known = [*dict.fromkeys(folders), *paths]
            hint = did_you_mean(pattern, [x for x in known if x not in patterns], 0.0)
            raise UserError(
                f"{key} has the pattern {pattern!r}, which matches no parameter; expected such as "
                f"{known[0]!r}.{hint}"
            )
        found.update(matched)
    return frozenset(found)


def build(constructor: Callable, keys: Any, where: str, **given: Any) -> Any:
    """Calls `constructor(**keys, **given)` after checking the keys.

    Args:
      constructor: a class or function of named arguments.
      keys: the section of the config, a mapping.
      where: the section's path, for messages.
      **given: arguments that don't come from the config.

    Returns:
      What the constructor returns.

    Raises:
      UserError: for an unknown or a missing key, or one that the constructor refuses: what it says
        gets the path if it begins with the key.
    """
    parameters = _parameters(constructor, given)
    if not hasattr(keys, "items"):
        raise UserError(f"{where} is {keys!r}; expected a section of {sorted(parameters)}.")
    for key in keys:
        if key not in parameters:
            known = sorted(parameters)
            hint = did_you_mean(key, known) or " Choose one of these."
            raise UserError(f"Unknown key {where}.{key}; expected one of {known}.{hint}")
    missing = [name for name, p in parameters.items() if p.default is p.empty and name not in keys]
    if missing:
        raise UserError(
            f"Missing key {where}.{missing[0]}; expected {sorted(parameters)}, "
            f"got {sorted(keys)}. Set it."
        )
    for key, value in keys.items():
        expected = _expected_instead(value, parameters[key].annotation)
        if expected:
            raise UserError(f"{where}.{key} is {value!r}; expected {expected}. Change it.")
    try:
        return constructor(**keys, **given)
    except UserError as error:
        what, key, rest = re.fullmatch(
            r"(?s)((?:Unknown |Missing )?(?:key )?)(\w*)(.*)", str(error)
        ).groups()
        if key in keys or key in given:
            raise UserError(f"{what}{where}.{key}{rest}") from error
        raise


def build_from_table(table: Mapping[str, Callable], keys: Any, where: str, **given: Any) -> Any:
    """Like `build`, with the constructor that `keys['kind']` names in a table.

    Raises:
      UserError: for an unknown or a missing kind; or as `build`.
    """
    if not hasattr(keys, "items"):
        raise UserError(f"{where} is {keys!r}; expected a section with a kind of {sorted(table)}.")
    keys = dict(keys)
    kind = keys.pop("kind", None)
    check_known(f"{where}.kind", kind, sorted(table))
    taken = {name: _parameters(constructor, given) for name, constructor in table.items()}
    for key in keys:
        others = [name for name in table if key in taken[name]]
        if others and kind not in others:
            raise UserError(
                f"Unknown key {where}.{key}: {where}.kind is {kind!r}, which takes "
                f"{sorted(taken[kind])}; {key!r} is for {', '.join(map(repr, others))}. Set "
                "another kind, or give this kind its own section in a config file."
            )
    return build(table[kind], keys, where, **given)


def _parameters(constructor: Callable, given: Iterable[str]) -> dict[str, inspect.Parameter]:
    """Returns what a constructor takes from a config."""
    return {
        name: p
        for name, p in inspect.signature(constructor).parameters.items()
        if name not in given and not (name == "name" and p.default is None)  # Haiku's.
    }


def _expected_instead(value: Any, annotation: Any) -> str:
    """Says what an argument takes if `value` is of another form; what else is, it checks itself."""
    form = typing.get_origin(annotation)
    several = isinstance(value, list | tuple) or hasattr(value, "items")
    if annotation is bool and not isinstance(value, bool):
        return "True or False"
    if annotation is str and not isinstance(value, str):
        return "a text in quotes"
    if annotation in _NUMBERS and several:
        return "a single number"
    if form is Sequence and not isinstance(value, list | tuple):
        return "a list"
    if form is Mapping and not hasattr(value, "items"):
        return "a section"
    kinds = typing.get_args(annotation)
    forms = [typing.get_origin(each) for each in kinds]
    if forms[:1] == [Mapping] and kinds[1:] == (type(None),) and not several and value is not None:
        return "a section, or None"
    if Sequence in forms and Mapping not in forms and hasattr(value, "items"):
        return "a number or a list"
    return ""
