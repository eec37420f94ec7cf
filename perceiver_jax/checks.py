"""What users hand to a model, checked: one message where it does not fit, before any array work."""

from collections.abc import Mapping
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perceiver_jax import config

Shapes = dict[str, tuple[Any, ...]]  # A size may be symbolic.

_LEARNED = "position_encoding/position_embedding"
_REMEDY = "Give what was given to init, or take the config that the parameters were made with."


def read_inputs(
    batch: Mapping[str, Any], axes: Mapping[str, str]
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Takes a model's inputs and their masks out of a batch.

    Args:
      batch: arrays by name, and masks as `<name>_mask`; what else it holds is ignored.
      axes: of each input, such as 'B H W C'; a name with a star stands for one axis or more, '...'
        for any number.

    Returns:
      The inputs, and the masks of those that have one.

    Raises:
      ValueError: for an input that is missing, or that has other axes, no elements, another batch
        size than the first, or no real numbers; or for a mask that is not boolean, or not of as
        many examples.
    """
    if not isinstance(batch, Mapping):
        raise config.UserError(
            f"The batch is of type {type(batch).__name__}; expected a mapping of "
            f"{sorted(axes)} to arrays."
        )
    inputs, masks = {}, {}
    for name, expected in axes.items():
        if name not in batch:
            raise config.UserError(
                f"The batch has no {name!r}; it has {sorted(batch)}. Give an array for each of "
                "model.inputs."
            )
        inputs[name] = _array(batch[name], f"Input {name!r}")
        _check_input(name, inputs[name], expected, next(iter(inputs)), next(iter(inputs.values())))
        if f"{name}_mask" in batch:
            masks[name] = mask = _array(batch[f"{name}_mask"], f"{name}_mask")
            if mask.dtype != bool:
                raise config.UserError(
                    f"{name}_mask is {mask.dtype}; expected bool, True where an input is real. "
                    "Convert it, such as by mask > 0."
                )
            if mask.ndim == 0 or mask.shape[0] != inputs[name].shape[0]:
                raise config.UserError(
                    f"{name}_mask has shape {mask.shape}; expected {inputs[name].shape[0]} "
                    f"examples, as {name!r} has. Correct the mask."
                )
    return inputs, masks


def shapes(params: Any) -> Shapes:
    """The shape of each parameter by its path.

    Raises:
      ValueError: for what is no tree of parameters.
    """
    if not isinstance(params, Mapping) or not all(isinstance(p, Mapping) for p in params.values()):
        raise config.UserError(
            f"The parameters are of type {type(params).__name__}; expected what init returned: a "
            "mapping of modules, each a mapping of arrays."
        )
    return {
        f"{module}/{name}": np.shape(leaf)
        for module, leaves in params.items()
        for name, leaf in leaves.items()
    }


def mismatch(got: Shapes, expected: Shapes, inputs: Shapes) -> str | None:
    """Says why parameters don't fit what init would make for a batch; None if they do.

    Args:
      got: shapes of the parameters.
      expected: shapes of those that init would make for this batch.
      inputs: shapes of the batch's inputs.

    Returns:
      A message. An input is named if it alone can be the cause.
    """
    missing = sorted(expected.keys() - got.keys())
    if missing:
        return f"The parameters are of another model: they lack {missing[0]!r}. {_REMEDY}"
    wrong = [path for path in expected if got[path] != expected[path]]
    if not wrong:
        return None
    for name, shape in inputs.items():
        what = f"Input {name!r} of shape {shape} gives"
        learned = [path for path in wrong if path.endswith(f"{name}_{_LEARNED}")]
        if learned and got[learned[0]][1:] == expected[learned[0]][1:]:
            return (
                f"{what} {expected[learned[0]][0]} positions; the learned ones of the parameters "
                f"are {got[learned[0]][0]}. Give arrays of the size that init was given, or take "
                "position encodings of kind 'fourier'."
            )
        made, now = _channels(got, name), _channels(expected, name)
        if made != now:
            return (
                f"{what} {now} channels with its positions; the parameters were made for {made}. "
                f"{_REMEDY}"
            )
    path = wrong[0]
    return (
        f"The parameters are of another model: {path!r} has shape {got[path]}; expected "
        f"{expected[path]}. {_REMEDY}"
    )


def check_used(got: Shapes, used: set[str]) -> None:
    """Raises a ValueError if there are parameters that a model has no use for."""
    unused = sorted(got.keys() - used)
    if unused:
        raise config.UserError(
            f"The parameters are of another model: they hold {unused[0]!r}, which this model does "
            f"not use. {_REMEDY}"
        )


def _channels(shapes_, name):
    """Channels of an input's tokens, of which its embedding in a fusion is no part."""
    of_inputs = re.compile("encoder/.*/input_norm/scale")  # Decoders have norms of latents.
    norms = (s for path, s in shapes_.items() if of_inputs.fullmatch(path))
    widths = {width for (width,) in norms}
    if len(widths) != 1:  # Cross-attends read several things, each of its own channels.
        return None
    return widths.pop() - sum(shapes_.get(f"inputs/{name}_embedding", (0,)))


def _array(value, what):
    try:
        if hasattr(value, "__array__") and not isinstance(value, jax.Array):
            value = np.asarray(value)
            if value.dtype.kind in "iu" and value.dtype != (small := _canonical(value.dtype)):
                # JAX would cut off the upper half of numbers such as nanoseconds.
                whole = np.array_equal(value, value.astype(small))
                value = value.astype(small if whole else np.float32)
        value = jnp.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        given = getattr(value, "dtype", type(value).__name__)
        raise config.UserError(
            f"{what} is no array of numbers, but of {given}: {error} Give one of numbers of "
            "equal length in each axis."
        ) from error
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    if not any(jnp.issubdtype(value.dtype, kind) for kind in kinds):
        raise config.UserError(
            f"{what} is {value.dtype}; expected real numbers: floats, integers or booleans. "
            "Convert it; the parts of complex numbers can be two channels."
        )
    return value


def _canonical(dtype):
    return jax.dtypes.canonicalize_dtype(dtype)


def _check_input(name, array, axes, first_name, first):
    names = axes.split()
    form = f"[{', '.join(names)}]"
    fewest = len([n for n in names if n != "..."])
    several = "..." in names or "*" in axes
    if array.ndim < fewest or (array.ndim > fewest and not several):
        remedy = "Bring it to these axes."
        if array.ndim == fewest - 1:
            remedy = "Add the axis that is missing: a batch of one example is array[None]."
        raise config.UserError(
            f"Input {name!r} has shape {array.shape}, {array.ndim} axes; expected {fewest}"
            f"{' or more' if several else ''}, {form}, B counting the examples. {remedy}"
        )
    if any(isinstance(size, int) and size == 0 for size in array.shape):
        raise config.UserError(
            f"Input {name!r} has shape {array.shape}, no elements; expected {form} of at least 1 "
            "each. Leave empty batches out."
        )
    if array.shape[0] != first.shape[0]:
        raise config.UserError(
            f"Input {name!r} has {array.shape[0]} examples, {first_name!r} has {first.shape[0]}; "
            "expected as many of each. Where an example lacks an input, give zeros there and "
            f"False in {name}_mask."
        )
