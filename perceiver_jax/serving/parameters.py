"""Parameters of a request, behind the `?` of its address: what they may be, of which models."""

from collections.abc import Iterable, Mapping
import re
from typing import Any, NamedTuple

from perceiver_jax import config, predictions
from perceiver_jax.serving import answers

Json = dict[str, Any]

_SHOWN = 80  # Characters of what was sent, in messages.


class Parameter(NamedTuple):
    """A parameter.

    Attributes:
        about: what it is, for people.
        allowed: the numbers, or words, that it may be.
        default: what it is if it is not given.
    """

    about: str
    allowed: config.Range | tuple[str, ...]
    default: int | str | None = None


_UP = Parameter("the vertical axis of points", ("y", "z"), "y")
ROUTES: Mapping[str, Mapping[str, Parameter]] = {
    "/predict": {
        "k": Parameter("how many classes", config.AT_LEAST_ONE, 5),
        "num_windows": Parameter("of each example", config.AT_LEAST_ONE, 1),
        "up": _UP,
        "arrays": Parameter("how arrays are answered", answers.ARRAYS, "lists"),
    },
    "/attention": {
        "layer": Parameter("a cross-attend; the last if not given", config.COUNT),
        "up": _UP,
        "picture": Parameter("the number of one, to get it as image/png", config.COUNT),
    },
    "/over_time": {},
}


class Parameters:
    """The parameters of a model's routes."""

    def __init__(self, run: Any, described: Json):
        """Finds out what the model has a use for.

        Args:
            run: the model.
            described: what `about.describe` returned.
        """
        self._run, self._useless = run, _of_no_use(described)
        # One window is what there is: to say so is no mistake, and not worth a word.
        unlisted = {*self._useless, *([] if described["windows"] else ["num_windows"])}
        self._listed = {
            route: {name: x for name, x in known.items() if name not in unlisted}
            for route, known in ROUTES.items()
        }

    def read(self, route: str, query: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """Returns the values of a route's parameters by name.

        Args:
            route: one of `ROUTES`.
            query: names and values as they were sent.

        Raises:
            UserError: one is unknown, there twice, of no use to the model, or can't be that.
        """
        known, given = ROUTES[route], {}
        for name, text in query:
            if name not in known:
                _refuse_unknown(name[:_SHOWN], list(self._listed[route]))
            if name in self._useless:
                raise config.UserError(self._useless[name])
            if name in given:
                raise config.UserError(f"Got {name} twice; expected it once. Leave one out.")
            given[name] = _value(name, text, known[name].allowed)
        if "num_windows" in given:  # Refuses several of what has but one, or no mean.
            predictions.predict_each(self._run, [], num_windows=given["num_windows"])
        return {name: x.default for name, x in known.items()} | given

    def documented(self, route: str) -> list[Json]:
        """Returns what OpenAPI says of the parameters of a route."""
        return [
            {"name": name, "in": "query", "description": x.about, "schema": _schema(x)}
            for name, x in self._listed[route].items()
        ]


def _of_no_use(described: Json) -> dict[str, str]:
    """By name of a parameter, why the model has no use for it."""
    inputs, outputs = ({x["name"]: x["kind"] for x in described[y]} for y in ("inputs", "outputs"))
    reads, gives = f"reads {list(inputs)}", f"gives {list(outputs)}"
    why = {
        "k": ("classes" in outputs.values(), f"{gives}, which are no classes"),
        "up": ("points" in inputs.values(), f"{reads}, which are no points"),
        "arrays": (described["arrays"], f"{gives}, which are no arrays"),
    }
    return {
        name: f"Got {name} for a model that {what}. Leave it out."
        for name, (is_of_use, what) in why.items()
        if not is_of_use
    }


def _refuse_unknown(name: str, listed: list[str]) -> None:
    if not listed:
        raise config.UserError(f"Unknown parameter {name!r}; expected none. Leave it out.")
    config.check_known("parameter", name, listed)


def _value(name: str, text: str, allowed: config.Range | tuple[str, ...]) -> int | str:
    if isinstance(allowed, config.Range):
        value = int(text) if re.fullmatch("-?[0-9]{1,40}", text) else text[:_SHOWN]
        allowed.check(name, value, value)
        return value
    config.check_known(name, text[:_SHOWN], allowed)
    return text


def _schema(parameter: Parameter) -> Json:
    allowed, default = parameter.allowed, parameter.default
    if isinstance(allowed, config.Range):
        found = {"type": "integer", "minimum": allowed.low, "maximum": allowed.high}
    else:
        found = {"type": "string", "enum": list(allowed)}
    return found if default is None else found | {"default": default}
