"""What a run keeps of its data to be used without them: how inputs are read, names of classes."""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from perceiver_jax import config
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.data import pipeline
from perceiver_jax.data.fields import array


class Description(NamedTuple):
    """How examples are read, known without their data set.

    Attributes:
        fields: inputs and targets, by name, in the order in which they are read.
        class_names: by name of each label.
        may_lack: names of the inputs that an example may lack; these have a mask.
    """

    fields: dict[str, fields_lib.Field]
    class_names: dict[str, tuple[str, ...]]
    may_lack: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values; how arrays are augmented is left out."""
        return {
            "fields": {
                name: {"kind": kind(name, field)} | _settings(field)
                for name, field in self.fields.items()
            },
            "class_names": {name: list(names) for name, names in self.class_names.items()},
            "may_lack": list(self.may_lack),
        }


def describe(data: pipeline.Data) -> Description:
    """Describes data. Needs the data set on disk, for the names of the classes."""
    class_names = {name: data.class_names(name) for name in data.labels}
    return Description(data.fields, class_names, tuple(sorted(data.may_lack)))


def from_json(values: Mapping[str, Any], where: str) -> Description:
    """Returns what `to_json` was called of.

    Args:
        values: JSON values, tuples for lists.
        where: they are from, for messages.

    Raises:
        config.UserError: a kind is unknown, or a setting; or the names of classes are others, or
            more or fewer, than the classes.
    """
    fields = {}
    for name, keys in values["fields"].items():
        keys = keys | {"dtype": np.dtype(keys["dtype"])} if "dtype" in keys else keys
        fields[name] = config.build_from_table(_kinds(), keys, f"{where} fields.{name}")
    for name, names in values["class_names"].items():
        config.check_known(f"label in {where} class_names", name, sorted(fields))
        _check_names(names, getattr(fields[name], "num_classes", 0), f"{where} class_names.{name}")
    for name in values["may_lack"]:
        config.check_known(f"input in {where} may_lack", name, sorted(fields))
    return Description(fields, dict(values["class_names"]), tuple(values["may_lack"]))


def _check_names(names: Any, size: int, where: str) -> None:
    """Refuses what is no name for each of so many classes."""
    is_list = isinstance(names, tuple) and all(isinstance(name, str) for name in names)
    if not is_list or len(names) != size:
        got = f"has {len(names)} names" if is_list else f"is {str(names)[:60]}"
        raise config.UserError(
            f"{where} {got}; expected a list of {size}, one a class. Correct it."
        )


def _kinds() -> dict[str, Any]:
    """Kinds of field by name, those that only arrays in memory have included."""
    return {**fields_lib.FIELDS, "array": array.Array, "multi_hot": array.MultiHot}


def kind(name: str, field: Any) -> str:
    """Returns the kind of a field.

    Raises:
        config.UserError: it has none.
    """
    for kind_, known in _kinds().items():
        if type(field) is known:
            return kind_
    raise config.UserError(
        f"Field {name!r} is a {type(field).__name__}, which is no kind; expected one of "
        f"{sorted(_kinds())}. Add it to perceiver_jax.data.fields.FIELDS."
    )


def _settings(field: Any) -> dict[str, Any]:
    settings = {key.name: getattr(field, key.name) for key in dataclasses.fields(field)}
    settings.pop("augment", None)
    return {key: str(x) if isinstance(x, np.dtype) else x for key, x in settings.items()}
