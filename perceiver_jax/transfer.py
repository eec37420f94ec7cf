"""Where parameters start: at random, or from those of another run, a file or a released model."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import pathlib
import re
from typing import Any

import jax
import ml_collections
import numpy as np
import rich.console

import perceiver_jax
from perceiver_jax import checks, config_file, modules
from perceiver_jax import config as config_lib
from perceiver_jax import workdir as workdir_lib
from perceiver_jax.training import reporting, writers

_MAX_LISTED = 6  # Paths, or keys, that a line names.
_POSITIONS = re.compile(r"(?:decoder/)?(\w+)_position_encoding/position_embedding")
# The last layer of an output; `cross_attend` has an `output` of its own.
_HEAD = re.compile(r"decoder(/(?!cross_attend)\w+)?/((logits|output)/[wb]|bias)")


@dataclasses.dataclass(frozen=True)
class Init:
    """Where parameters start.

    Attributes:
      source: a workdir, a file or folder of weights, or the name of a released model; '': all at
        random.
      exclude: patterns of the paths of parameters that start at random all the same.
    """

    source: str = ""
    exclude: Sequence[str] = ()

    def __post_init__(self):
        """Checks that they fit each other."""
        if self.exclude and not self.source:
            raise config_lib.UserError(
                f"exclude is {tuple(self.exclude)} without a source; expected a source that they "
                "are left out of. Name it, or drop them."
            )


@dataclasses.dataclass(frozen=True)
class Transfer:
    """What a model takes over from another one.

    Attributes:
      taken: parameters by path, numpy arrays.
      count: how many parameters the model has.
      record: JSON values: by path, `taken` as they are, `interpolated`, `anew` and why; `not_found`
        in the source, and so anew; `not_used` of it; `model`, keys of config.model that differ.
    """

    taken: dict[str, np.ndarray]
    count: int
    record: dict[str, Any]

    def onto(self, params: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Returns parameters with those that are taken over in their places."""
        return {
            module: {name: self.taken.get(f"{module}/{name}", x) for name, x in leaves.items()}
            for module, leaves in params.items()
        }

    def lines(self) -> list[str]:
        """Says it to a person."""
        record, count = self.record, f"{len(self.taken)} of {self.count}"
        lines = [f"starting from {record['source']}: {count} arrays are taken over"]
        lines += [f"  interpolated: {p}, {how}" for p, how in record["interpolated"].items()]
        reasons = {}
        for path, reason in record["anew"].items():
            reasons.setdefault(f"at random, {reason}", []).append(path)
        reasons["at random, not found there"] = record["not_found"]
        reasons["not used of it"] = record["not_used"]
        reasons["the model differs (there -> here)"] = record["model"]
        return lines + [f"  {what}: {_listed(x)}" for what, x in reasons.items() if x]


def make_start(
    config: ml_collections.ConfigDict,
    shapes: Mapping[str, Mapping[str, Any]],
    example: Mapping[str, np.ndarray],
    workdir: pathlib.Path,
    console: rich.console.Console,
) -> Callable[[Mapping[str, Mapping[str, Any]]], dict[str, dict[str, Any]]] | None:
    """Returns what puts the source's parameters into those of a new run; None without a source.

    It prints, and keeps in `init.json` of the workdir, what became of each. A run that resumes does
    not call it, and needs no source.

    Args:
      config: the whole config.
      shapes: of the parameters.
      example: a batch, of any values.
      workdir: of the run.
      console: where to print.

    Raises:
      UserError: if there is no such source, or it does not fit; unless the run resumes.
    """
    init = config_lib.build(Init, config.init, "config.init")
    if not init.source:
        return None

    @functools.cache
    def found() -> Transfer:
        return transfer(load(init.source), shapes, config, example)

    def start(params: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        for line in found().lines():
            reporting.say(console, line)
        if jax.process_index() == 0:
            writers.write_json(workdir / "init.json", found().record)
        return found().onto(params)

    if not workdir_lib.has_checkpoints(workdir):
        found()  # Refuses now, and not when the data are built.
    return start


def load(source: str) -> Any:
    """Returns the `Run` that `config.init.source` names.

    Raises:
      UserError: if there is no such, or it can't be read.
    """
    try:
        return perceiver_jax.load_pretrained(source)
    except config_lib.UserError as error:
        raise config_lib.UserError(f"config.init.source: {error}") from error


def transfer(
    source: Any,
    params: Mapping[str, Mapping[str, Any]],
    config: ml_collections.ConfigDict,
    example: Mapping[str, np.ndarray],
) -> Transfer:
    """Gives a new model the parameters of another one, by path and shape.

    The last layer of an output starts at random where its size differs, all of an output where its
    kind differs. Learned positions of pictures of another size are interpolated; of shorter texts
    the first are taken. Anything else of another shape is refused unless it is excluded.

    Args:
      source: the `Run` to take them from.
      params: of the new model; arrays or shapes.
      config: the whole config of the new model.
      example: a batch of it, of any values.

    Raises:
      UserError: if parameters don't fit.
    """
    old, new = _flat(source.params), checks.shapes(params)
    excluded = config_lib.matching("config.init.exclude", config.init.exclude, new)
    pictures = [name for name, keys in source.config.model.inputs.items() if keys.kind == "image"]
    sizes = {name: np.shape(source.fields[name].zeros()) for name in pictures}
    there = (source.config.model, sizes)
    here = (config.model, {name: np.shape(x)[1:] for name, x in example.items()})
    taken, interpolated, anew, not_found, wrong = {}, {}, {}, [], {}
    for path, shape in new.items():
        kinds = [_output_kind(path, model) for model, _ in (there, here)]
        if path in excluded:
            anew[path] = "excluded"
        elif path not in old:
            not_found.append(path)
        elif kinds[0] != kinds[1]:
            anew[path] = f"the output is of another kind there ({kinds[0]}, here {kinds[1]})"
        elif positions := _fit_positions(path, old[path], shape, there, here):
            taken[path], interpolated[path] = positions
        elif old[path].shape == shape:
            taken[path] = old[path]
        elif _HEAD.fullmatch(path):
            anew[path] = f"the output has another size there ({old[path].shape[-1]})"
        else:
            wrong[path] = f"{list(old[path].shape)} there, {list(shape)} here"
    if wrong:
        listed = [f"{path}: {why}" for path, why in wrong.items()]
        raise config_lib.UserError(
            f"{len(wrong)} parameters of config.init.source {config.init.source!r} have another "
            f"shape: {_listed(listed)}. Take config.model of the source, or let them start at "
            f"random: config.init.exclude = ({next(iter(wrong))!r},), a pattern such as "
            "'encoder/*' for many."
        )
    if not taken:
        raise config_lib.UserError(
            f"config.init.source {config.init.source!r} has no parameter that is taken over: it "
            f"has {_listed(list(old))}; this model has {_listed(list(new))}. Take config.model of "
            "the source, and exclude less."
        )
    _check_frozen(config, new, {**anew, **dict.fromkeys(not_found, "not found there")})
    record = {
        "source": config.init.source + (f" (step {source.step})" if source.step else ""),
        "taken": sorted(taken.keys() - interpolated.keys()),
        "interpolated": interpolated,
        "anew": anew,
        "not_found": not_found,
        "not_used": sorted(old.keys() - taken.keys() - anew.keys()),
        "model": _differences(source.config.model, config.model),
    }
    return Transfer(taken, len(new), record)


def interpolate(positions: np.ndarray, grid: Sequence[int], new_grid: Sequence[int]) -> np.ndarray:
    """Resizes the vectors `[M, F]` of a picture's positions to another grid, bicubically.

    Cubic convolution with a = -0.5, corners not aligned; smoothed first where the new grid is
    coarser: what Pillow does to a picture.
    """
    x = positions.reshape(*grid, -1)
    resized = jax.image.resize(x, (*new_grid, x.shape[-1]), "bicubic", antialias=True)
    return np.asarray(resized).reshape(-1, x.shape[-1])


def _fit_positions(path, x, shape, there, here):
    """Learned positions for another number of inputs, and how; None if it is the same or no such.

    Args:
      path: of the parameter.
      x: in the source.
      shape: in the new model.
      there: config.model of the source, and the shapes of an example's pictures.
      here: of the new model.
    """
    found = _POSITIONS.fullmatch(path)
    if found is None or x.shape[1:] != shape[1:]:
        return None
    kinds = {_section(found[1], model).get("kind") for model, _ in (there, here)}
    if kinds == {"text"} and shape[0] < x.shape[0]:
        return x[: shape[0]], f"the first {shape[0]} of {x.shape[0]} positions"
    grids = [_grid(found[1], *model) for model in (there, here)]
    if grids[0] == grids[1] or [len(grid) for grid in grids] != [2, 2]:
        return None
    before, after = (" x ".join(map(str, grid)) for grid in grids)
    return interpolate(x, *grids), f"{before} positions -> {after}, bicubic"


def _check_frozen(config, paths, anew):
    """Refuses to freeze what starts at random, unless it was asked for."""
    frozen = config_lib.matching("config.optimizer.frozen", config.optimizer.frozen, paths)
    random = {path: why for path, why in anew.items() if path in frozen and why != "excluded"}
    if random:
        path, why = next(iter(random.items()))
        raise config_lib.UserError(
            f"config.optimizer.frozen holds {_listed(list(random))}, which would start at random "
            f"({path}: {why}) and never be trained; expected what is taken over. Freeze less, or "
            "say that it is wanted: name them in config.init.exclude."
        )


def _section(name, model):
    """The section of the input or output whose positions have a name."""
    only = next(iter(model.outputs.values())) if name == "decoder" else {}
    return model.inputs.get(name) or model.outputs.get(name) or only


def _grid(name, model, sizes):
    """Rows and columns that learned positions are of; other numbers if they are of no picture."""
    section = _section(name, model)
    if name in model.inputs and section.kind == "image":
        return modules.input_grid(model, name, sizes[name])
    return tuple(section.get("index_dims", ()))


def _output_kind(path, model):
    """The kind of output that a parameter belongs to; None if it belongs to none."""
    outputs = {name: keys.kind for name, keys in model.outputs.items()}
    if not path.startswith("decoder"):
        return None
    if len(outputs) == 1 and not model.get("decoder"):
        return next(iter(outputs.values()))
    name = path.split("/")[1].removesuffix("_position_encoding")
    return outputs.get(name, " and ".join(sorted(outputs.values())))  # What all of them share.


def _differences(there, here):
    """Keys of the model that differ, outputs aside: shapes don't tell all of them."""
    changes = workdir_lib.changes(*map(config_file.flatten, (there, here)))
    ignored = ("outputs.", *(key.removeprefix("model.") for key in workdir_lib.CHANGEABLE))
    return [f"{key}: {x}" for key, x in sorted(changes.items()) if not key.startswith(ignored)]


def _flat(params):
    return {
        f"{module}/{name}": np.asarray(params[module][name])
        for module in params
        for name in params[module]
    }


def _listed(items):
    more = f" and {len(items) - _MAX_LISTED} more" if len(items) > _MAX_LISTED else ""
    return ", ".join(items[:_MAX_LISTED]) + more
