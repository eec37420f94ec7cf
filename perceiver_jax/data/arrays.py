"""Arrays in memory as a `Data`, in a call."""

import collections
from collections.abc import Iterable, Mapping, Sequence, Set
import logging
import numbers
from typing import Any

import numpy as np
import numpy.typing as npt

from perceiver_jax import config
from perceiver_jax.data import errors, examples, pipeline, sources
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.data.fields import array as array_field
from perceiver_jax.data.fields import label, number

Targets = npt.ArrayLike | Mapping[str, npt.ArrayLike]

_LOGGER = logging.getLogger(__name__)

# What a batch has besides the fields.
_RESERVED = (examples.BAD_RECORDS, "example_id", "mask")
_MAX_CLASSES = 1_000_000  # More are IDs that were taken for classes.
_MAX_LISTED = 5  # Examples that a message names.


def from_arrays(
    inputs: Mapping[str, npt.ArrayLike],
    targets: Targets,
    test_inputs: Mapping[str, npt.ArrayLike],
    test_targets: Targets,
    *,
    batch_size: int | np.integer,
    class_names: Sequence[str] | np.ndarray | Mapping[str, Sequence[str]] | None = None,
    augment: Mapping[str, array_field.Augment] | None = None,
    num_workers: int | np.integer = 0,
    fields: Mapping[str, Mapping[str, Any]] | None = None,
) -> pipeline.Data:
    """Makes a `Data`, as the trainer takes it, of arrays in memory.

    Args:
        inputs: to train on, by the names that `config.model.inputs` has: numbers [E, ...] of any
            type. uint8 stays as it is and is not copied; all others become float32. Beside an
            input there may be `<input>_mask` [E] or one for each element of its grid, flat or not;
            false for what is to be left out.
        targets: labels, which make the field `label`: classes counted from 0, integers [E] or a
            column of them [E, 1]; or several labels an example, zeros and ones [E, L]. Or by the
            names of fields such arrays, or finite floats [E] or [E, V], numbers to be predicted.
        test_inputs: as `inputs`, to evaluate on.
        test_targets: as `targets`.
        batch_size: number of examples of a training batch, over all processes.
        class_names: names of the classes in their order, each another one; without, their numbers.
            Of classes [E] there may be more than occur. By the names of fields if targets are.
        augment: for some inputs a function of one example's array, a copy, and a random generator
            that returns an array of the same shape, and for uint8 of the same type; in training
            only.
        num_workers: number of processes that augment; with 0, threads of this one do.
        fields: of inputs and targets that are no arrays as they are, how examples are read, as in
            `config.data.fields`: {'text': {'kind': 'masked_text', 'max_length': 512}} of a list of
            texts; the same of frames, pairs uint8 [E, 2, H, W, 3], and of flow [E, H, W, 2].

    Raises:
        config.UserError: the arrays do not fit each other, or hold what can't be learned from.
    """
    config.check(locals(), batch_size=config.AT_LEAST_ONE, num_workers=pipeline.WORKERS)
    kinds = {
        name: config.build_from_table(fields_lib.FIELDS, keys, f"fields[{name!r}]")
        for name, keys in _by_name("fields", fields or {}, "a section", "field").items()
    }
    train, numbers = _split(inputs, targets, "", kinds)
    test, test_numbers = _split(test_inputs, test_targets, "test_", kinds)
    for name in sorted(train.keys() | test.keys()):
        if name in kinds:
            continue
        forms = [
            f"{'numbers ' if name in predicted else ''}{split[name].dtype} "
            f"[{', '.join(['E', *map(str, split[name].shape[1:])])}]"
            if name in split
            else "nothing"
            for split, predicted in ((train, numbers), (test, test_numbers))
        ]
        if forms[0] != forms[1]:
            raise config.UserError(
                f"Got {name!r} as {forms[0]} to train on and {forms[1]} to test on; expected the "
                "same. Make them alike."
            )
    given, target_names = {"label": class_names}, ("label",)
    if isinstance(targets, Mapping):
        class_names = {} if class_names is None else class_names
        given = dict(_by_name("class_names", class_names, "a list", "label"))
        target_names = tuple(targets)
    names = {
        name: _class_names(given.pop(name, None), train[name], test[name])
        for name in target_names
        if name not in numbers and name not in kinds
    }
    if given:
        raise config.UserError(
            f"Got class_names for {sorted(given)}; expected some of {sorted(names)}. Leave it out."
        )
    augment = dict(_by_name("augment", augment or {}, "a function", "input"))
    for name, function in augment.items():
        if function is not None and not callable(function):
            raise config.UserError(
                f"Got augment of {name!r} of type {type(function).__name__}; expected a function "
                "of an array and a random generator. Correct it."
            )
    made: dict[str, fields_lib.Field] = {
        name: array_field.Array(name, array.shape[1:], array.dtype, augment.pop(name, None))
        for name, array in train.items()
        if name not in target_names and name not in kinds
    }
    if augment:
        raise config.UserError(
            f"Got augment for {sorted(augment)}; expected some of {sorted(made)}."
        )
    made |= kinds
    for name in target_names:
        if name in kinds:
            continue
        size = train[name].shape[1:]
        if name in numbers:
            made[name] = number.Number(*size)
        else:
            make = array_field.MultiHot if size else label.Label
            made[name] = make(len(names[name]), multi_label=bool(size))
    store = sources.InMemory("arrays", {"train": train, "test": test}, target_names, names)
    # Python's own numbers can be written as JSON, numpy's can't.
    return pipeline.Data(store, "train", "test", int(batch_size), int(num_workers), made)


def _split(
    inputs: Any, targets: Any, prefix: str, kinds: Mapping[str, fields_lib.Field]
) -> tuple[dict[str, np.ndarray], set[str]]:
    """Returns the arrays of a split, targets first, and which of them are numbers to be predicted.

    Args:
        inputs: by name.
        targets: theirs; labels, or by name.
        prefix: of the arguments' names, for messages.
        kinds: fields of what is no array as it is.
    """
    if isinstance(targets, Mapping):
        named = _by_name(f"{prefix}targets", targets, "an array", "target")
        whats = {name: f"{prefix}targets[{name!r}]" for name in named}
    else:
        named, whats = {"label": targets}, {"label": f"{prefix}labels"}
    own = {name: field.feature for name, field in kinds.items() if field.feature}
    if not named and not own:
        raise config.UserError(
            "Got no targets; expected at least one array. Give targets={'name': array}."
        )
    arrays, numbers = {}, set()
    for name, what in whats.items():
        if name in own:
            arrays[name] = _examples(what, named[name], kinds[name])
            continue
        array = array_field.from_values(what, named[name])
        is_float = array.dtype.kind not in "biu" and array_field.is_numbers(array.dtype)
        if is_float and isinstance(targets, Mapping):
            numbers.add(name)
        arrays[name] = _numbers(array, what) if name in numbers else _labels(array, what)
    for name in own.keys() - named.keys():
        if name not in inputs:
            raise config.UserError(
                f"Got fields[{name!r}] and no such input or target; expected one of "
                f"{sorted({*inputs, *named})}. Leave it out, or give its examples."
            )
    for name, values in _by_name(f"{prefix}inputs", inputs, "an array", "input").items():
        if name in own and name not in named:
            arrays[name] = _examples(f"{prefix}inputs[{name!r}]", values, kinds[name])
    (first, *others), count = arrays, len(next(iter(arrays.values())))
    counted = f"{count} of {first!r}" if isinstance(targets, Mapping) else f"{count} labels"
    reserved = sorted({*_RESERVED, *named})
    for name in named.keys() & _RESERVED:
        raise config.UserError(
            f"Got a target {name!r}, which each batch has already; expected another name than "
            f"{', '.join(_RESERVED)}. Rename it."
        )
    for name in others:
        _check_count(name, arrays[name], count, counted)
    for name, values in inputs.items():
        if name in reserved or f"{name}{array_field.MASK}" in named:
            raise config.UserError(
                f"Got an input {name!r}, which each batch has already; expected another name than "
                f"{', '.join(reserved)}. Rename it."
            )
        if name in own:
            continue
        what = f"{prefix}inputs[{name!r}]"
        array = array_field.from_values(what, values)
        array_field.check_numbers(what, array)
        size = _check_count(name, array, count, counted)
        if not array.size:
            raise config.UserError(
                f"Got {what} {list(array.shape)}, whose examples hold nothing; expected at least "
                "one number in each. Leave it out."
            )
        masked = name.removesuffix(array_field.MASK)
        if masked in inputs.keys() - {name}:
            _refuse(
                ((array != 0) & (array != 1)).reshape(size, -1).any(axis=1),
                f"{what} that are not only true and false",
                f"true where {masked!r} is to be read. Convert them, such as by mask > 0.",
            )
            array = array.astype(bool)
        else:
            array = array_field.as_kept(array)
        arrays[name] = array
    for name in inputs.keys() - own.keys():
        _refuse(
            ~array_field.is_finite(arrays[name], arrays.get(f"{name}{array_field.MASK}"), name),
            f"NaN, infinity or more than float32 can hold in {prefix}inputs[{name!r}]",
            f"finite numbers. Leave them out by {name}{array_field.MASK}, or fill them in.",
        )
    if not inputs:
        raise config.UserError(
            "Got no inputs; expected at least one array. Give inputs={'name': array}."
        )
    return arrays, numbers


def _examples(what: str, values: Any, field: fields_lib.Field) -> np.ndarray:
    """Returns examples [E] that a field reads, such as texts; some are read to see whether it can.

    Raises:
        config.UserError: it can't.
    """
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__"):
        raise config.UserError(
            f"Got {what} of type {type(values).__name__}; expected a list, an example each. Make "
            "it one."
        )
    array = values if isinstance(values, np.ndarray) and values.dtype.kind in "uif" else None
    if array is None:
        array = np.empty(len(values), object)
        array[:] = list(values)
    for index in sources.spread(len(array)):
        try:
            with errors.of_bad_data():
                field.read(array[index], 0.5, None)
        except errors.BadDataError as error:
            raise config.UserError(
                f"Got {what} whose example {index} can't be read: {error}. Correct it, or leave it "
                "out."
            ) from error
    return array


def _check_count(name: str, array: np.ndarray, count: int, counted: str) -> int:
    """Returns the number of examples, if it is that of the first target."""
    size = len(array) if array.ndim else 0
    if size != count or not size:
        raise config.UserError(
            f"Got {size} examples of {name!r} and {counted}; expected as many of the one as of the "
            "other, and at least one."
        )
    return size


def _labels(labels: np.ndarray, what: str) -> np.ndarray:
    """Returns classes as int32 [E], or several labels an example as float32 [E, L]."""
    if labels.dtype.kind in "biu" and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind in "biu" and labels.ndim == 1:
        _refuse(
            (labels < 0) | (labels >= _MAX_CLASSES),
            f"{what} that are no classes",
            f"classes from 0 to at most {_MAX_CLASSES - 1:,}. Count them from 0; leave out "
            "examples without a label. Numbers to be predicted are floats, by name: "
            "{'name': array.astype(float)}.",
            labels,
        )
        return labels.astype(np.int32)
    if array_field.is_numbers(labels.dtype) and labels.ndim == 2 and labels.shape[1] > 1:
        _refuse(
            ((labels != 0) & (labels != 1)).any(axis=1),
            f"{what} {list(labels.shape)} that are not only zeros and ones",
            "1 for each class that an example has and 0 for the others, or integers [E]. Correct "
            "them.",
        )
        return labels.astype(np.float32)
    hint = (
        "Convert class numbers with astype(int); numbers to be predicted need a name: {'name': y}."
    )
    if labels.dtype.kind in "OSUT":
        hint = (
            "np.unique(names, return_inverse=True), of training and test together, gives "
            "class_names and their numbers."
        )
    raise config.UserError(
        f"Got {what} {labels.dtype} {list(labels.shape)}; expected integers [E], or zeros and ones "
        f"[E, L] of several classes. {hint}"
    )


def _numbers(numbers: np.ndarray, what: str) -> np.ndarray:
    """Returns numbers to be predicted as float32 [E, V]."""
    if numbers.ndim not in (1, 2) or not numbers.shape[-1]:
        raise config.UserError(
            f"Got {what} {numbers.dtype} {list(numbers.shape)}; expected floats [E] or [E, V] to "
            "be predicted, or as classes integers [E]. Convert them."
        )
    with np.errstate(over="ignore"):  # Is infinite then, and refused.
        numbers = numbers.astype(np.float32)
    numbers = numbers[:, None] if numbers.ndim == 1 else numbers
    _refuse(
        ~np.isfinite(numbers).all(axis=1),
        f"NaN, infinity or more than float32 can hold in {what}",
        "finite numbers. Leave out these examples.",
    )
    return numbers


def _class_names(given: Any, train: np.ndarray, test: np.ndarray) -> tuple[str, ...]:
    """Returns a name for each class that labels have, or may have."""
    multi_label = train.ndim == 2
    num_classes = train.shape[1] if multi_label else 1 + int(max(train.max(), test.max()))
    if not multi_label:
        _warn_of_unseen(train, test if given is not None else np.arange(num_classes))
    if given is None:
        return tuple(map(str, range(num_classes)))
    listed = isinstance(given, Iterable) and not isinstance(given, str | Mapping | Set)
    if not listed or (isinstance(given, np.ndarray) and given.ndim != 1):
        raise config.UserError(
            f"Got class_names={given!r}; expected a list of names, of which the first is that of "
            "class 0. Make it one."
        )
    names = list(given)
    wrong = [name for name in names if not isinstance(name, str | numbers.Integral) or name == ""]
    if wrong:
        raise config.UserError(
            f"Got {wrong[:_MAX_LISTED]} among the class names; expected texts. Convert them."
        )
    names = tuple(map(str, names))
    if len(names) < num_classes or (multi_label and len(names) > num_classes):
        from_0 = multi_label or min(train.min(), test.min()) == 0
        hint = "" if from_0 else " Count classes from 0."
        raise config.UserError(
            f"Got {len(names)} class names for {num_classes} classes; expected one for each.{hint}"
        )
    double = [name for name, count in collections.Counter(names).items() if count > 1]
    if double:
        raise config.UserError(f"Got class names {double} twice; expected each once. Rename them.")
    return names


def _by_name(what: str, given: Any, value: str, owner: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise config.UserError(
            f"Got {what} of type {type(given).__name__}"
            + (f" with keys {list(given)}" if isinstance(given, Mapping) else "")
            + f"; expected {value} by the name of each {owner}. Give {{'name': ...}}."
        )
    return given


def _warn_of_unseen(train: np.ndarray, classes: np.ndarray) -> None:
    """Names those of the classes that no example to train on has."""
    unseen = np.setdiff1d(classes, train)
    if unseen.size:
        more = ", ..." if unseen.size > _MAX_LISTED else ""
        _LOGGER.warning(
            "No training example is of %d of the classes: %s%s. If classes are counted from 1, "
            "subtract 1; np.unique(labels, return_inverse=True) makes classes of any numbers.",
            unseen.size,
            ", ".join(map(str, unseen[:_MAX_LISTED])),
            more,
        )


def _refuse(wrong: np.ndarray, what: str, expected: str, values: Any = None) -> None:
    """Raises an error that names the examples [E] that are wrong, if any are."""
    examples = np.flatnonzero(wrong)
    if not examples.size:
        return
    listed = [
        str(i) if values is None else f"{i}: {values[i].tolist()}" for i in examples[:_MAX_LISTED]
    ]
    more = ", ..." if examples.size > _MAX_LISTED else ""
    raise config.UserError(
        f"Got {what}, in {examples.size} of {len(wrong)} examples ({', '.join(listed)}{more}); "
        f"expected {expected}"
    )
