"""What a run computes, as programs for every platform and any batch size (StableHLO)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax import export
import jax.numpy as jnp
import numpy as np

from perceiver_jax.data import fields as fields_lib

PLATFORMS = ("cpu", "cuda", "tpu")
BATCH = "batch"  # The symbol of the batch size.

Params = dict[str, Any]  # Arrays by the names of the file of weights, such as 'encoder/latents'.
Batch = dict[str, Any]


class Program(NamedTuple):
    """A function of flat parameters and a batch, with what JAX makes of it.

    Attributes:
      function: `function(params, batch)`, pure.
      outputs: shapes, whose first is the symbol of the batch size, and dtypes, as the function
        returns them.
      serialized: what `jax.export.deserialize` reads.
    """

    function: Callable[[Params, Batch], Any]
    outputs: Any
    serialized: bytes


def inputs(run: Any) -> dict[str, np.ndarray]:
    """Returns zeros of an example of each array that a batch needs, by name.

    What `Run.prepare` returns and the model reads; without targets that evaluation hides.
    """
    needed = {}
    for name, field in run.fields.items():
        if not field.is_target or (name in run.config.model.inputs and name not in _hidden(run)):
            needed |= fields_lib.named(name, field.zeros())
    needed |= {f"{name}_mask": np.zeros((), bool) for name in run.may_lack}
    names = {name for x in run.config.model.inputs for name in (x, f"{x}_mask")}
    return {name: np.asarray(x) for name, x in needed.items() if name in names}


def flatten(params: Mapping[str, Mapping[str, Any]]) -> Params:
    """Returns parameters by module path and name, as `write.write_own` calls them."""
    return {
        f"{module}/{name}": x for module, leaves in params.items() for name, x in leaves.items()
    }


def predict(run: Any) -> Callable[[Params, Batch], Batch]:
    """Returns a function that gives what `Run.predict` makes its answers of."""

    def function(params, batch):
        return run.task.predict(run.model.apply(_nested(params), None, complete(run, batch)))

    return function


def latents(run: Any) -> Callable[[Params, Batch], jax.Array]:
    """Returns a function that gives the final latents [B, N, D]."""

    def function(params, batch):
        return run.model.latents(_nested(params), complete(run, batch))

    return function


def predict_and_latents(run: Any) -> Callable[[Params, Batch], tuple[Batch, jax.Array]]:
    """Returns a function that gives both, and computes the latents once."""

    def function(params, batch):
        params, batch = _nested(params), complete(run, batch)
        found = run.model.latents(params, batch)
        return run.task.predict(run.model.decode(params, found, batch)), found

    return function


def attention(run: Any, indices: Sequence[int]) -> Callable[[Params, Batch], Batch]:
    """Returns a function that gives where layers look, the mean of their heads [B, N, *X].

    Args:
      run: of a model with one input.
      indices: of cross-attends among `encoder.layers`; they come out as 'layer_2', say.
    """

    def function(params, batch):
        maps = run.model.attention_maps(_nested(params), complete(run, batch), list(indices))
        found = {}
        for index, (each,) in zip(indices, (list(x.values()) for x in maps), strict=True):
            found[f"layer_{index}"] = each["weights"].mean(axis=1)
        return found

    return function


def complete(run: Any, batch: Batch) -> Batch:
    """Returns a batch with zeros for the targets that evaluation hides, as `Run.prepare` has it."""
    size = next(iter(batch.values())).shape[0]
    added = {}
    for name in _hidden(run):
        for key, zeros in fields_lib.named(name, run.fields[name].zeros()).items():
            added[key] = jnp.zeros((size, *np.shape(zeros)), np.asarray(zeros).dtype)
    return batch | added


def make(run: Any, function: Callable[[Params, Batch], Any]) -> Program:
    """Makes the program of a function for all platforms; nothing is compiled."""
    (size,) = export.symbolic_shape(BATCH)
    batch = {
        name: jax.ShapeDtypeStruct((size, *x.shape), x.dtype) for name, x in inputs(run).items()
    }
    params = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in flatten(run.params).items()
    }
    exported = export.export(jax.jit(function), platforms=PLATFORMS)(params, batch)
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return Program(function, outputs, bytes(exported.serialize()))


def _nested(params):
    nested = {}
    for path, x in params.items():
        module, _, name = path.rpartition("/")
        nested.setdefault(module, {})[name] = x
    return nested


def _hidden(run):
    """Targets that the model reads in training and not in evaluation."""
    hidden = run.config.model.get("fusion", {}).get("masked_in_evaluation", ())
    return [name for name in hidden if run.fields[name].is_target]
