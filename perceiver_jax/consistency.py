"""Whether the sections of a config fit each other, the data and the devices."""

import math

import jax
import ml_collections

from perceiver_jax import config as config_lib
from perceiver_jax import data as data_lib
from perceiver_jax import inputs, outputs
from perceiver_jax.training import task as task_lib


def check(
    config: ml_collections.ConfigDict,
    data: data_lib.Data,
    task: task_lib.Task,
    num_devices: int,
    only_test: bool = False,
) -> None:
    """Checks that the sections of a config fit each other, the data and the devices.

    Args:
      config: of a run.
      data: what it is trained on.
      task: what it is trained for.
      num_devices: that batches are divided over.
      only_test: whether the run has been trained, and is evaluated.

    Raises:
      UserError: if they do not.
    """
    if set(config.model.outputs) != set(task.outputs):
        raise config_lib.UserError(
            f"config.model.outputs are {sorted(config.model.outputs)}; config.task trains "
            f"{sorted(task.outputs)}. Use the same names."
        )
    for name, wanted in task.outputs.items():
        _check_output(config, data, task, name, wanted, only_test)
    target = config.task.get("target")
    hidden = config.model.get("fusion", {}).get("masked_in_evaluation", ())
    if (
        config.task.kind in ("classification", "regression")
        and target in config.model.inputs
        and target not in hidden
    ):
        raise config_lib.UserError(
            f"config.model.inputs has {target!r}, which config.task has to predict; expected other "
            "inputs. Take it out, or name it in config.model.fusion.masked_in_evaluation."
        )
    masks = {f"{name}_mask" for name in config.model.inputs}
    missing = set(config.model.inputs) - set(data.fields)  # A target may be read, too.
    unused = set(data.inputs) - set(config.model.inputs) - masks
    if missing or unused:
        raise config_lib.UserError(
            f"config.model.inputs are {sorted(config.model.inputs)}; {data.name} is read as "
            f"{sorted(data.inputs)}. Use the same names; <input>_mask is the mask of an input."
        )
    for name, keys in config.model.inputs.items():
        known = getattr(data.fields[name], "vocab_size", 0)
        default = getattr(inputs.INPUTS.get(keys.kind), "vocab_size", known)
        got = keys.get("vocab_size", default)
        if got < known:  # Other ids would be read as the last one, without an error.
            raise config_lib.UserError(
                f"config.model.inputs.{name}.vocab_size is {got}; {data.name} has ids up to "
                f"{known - 1}. Set it to {known}."
            )
        known = getattr(data.fields[name], "num_classes", 0)
        if keys.get("num_classes", known) < known:  # Others would be read as no class.
            raise config_lib.UserError(
                f"config.model.inputs.{name}.num_classes is {keys.num_classes}; {data.name} has "
                f"{known} classes. Set it to that number."
            )
    if "kind" in config.model.encoder and config.optimizer.depth_decay != 1:
        raise config_lib.UserError(
            f"config.optimizer.depth_decay is {config.optimizer.depth_decay}; expected 1.0 for "
            f"config.model.encoder.kind = {config.model.encoder.kind!r}, whose layers are not "
            "counted. Change it."
        )
    if config.model.dtype == "float64" and not jax.config.jax_enable_x64:
        raise config_lib.UserError(
            "config.model.dtype is 'float64', which JAX has off; expected 'float32' or 'bfloat16'. "
            "Set one of them, or JAX_ENABLE_X64=1 in the environment."
        )
    for key in ("test_split",) if only_test else ("train_split", "test_split"):
        if not (data.num_test if key == "test_split" else data.num_train):
            raise config_lib.UserError(
                f"config.data.{key} is {getattr(data, key)!r}, which has no examples; expected at "
                "least one. Give a larger part."
            )
    steps = max(config.train.accumulate_steps, 1)
    sizes = [("eval", config.eval.batch_size, num_devices)]
    if not only_test:
        sizes.append(("data", data.batch_size, num_devices * steps))
    for section, size, parts in sizes:
        if size < 1 or size % parts:
            above = max(size, 1) + -max(size, 1) % parts
            each = f" x {steps} accumulate_steps" if parts != num_devices else ""
            raise config_lib.UserError(
                f"config.{section}.batch_size is {size}; expected a multiple of the "
                f"{num_devices} devices{each}. Set it to {above}, for instance."
            )


def _check_output(
    config: ml_collections.ConfigDict,
    data: data_lib.Data,
    task: task_lib.Task,
    name: str,
    wanted: int,
    only_test: bool,
) -> None:
    """Checks that an output has as many numbers as its target, and is asked for places it has."""
    keys = config.model.outputs[name]
    # Some kinds have a default.
    size = keys.get("size", getattr(outputs.OUTPUTS.get(keys.get("kind")), "size", None))
    grid = tuple(keys.get("index_dims", ()))
    if size * math.prod(grid) != wanted:
        remedy = "Evaluate it on the data of its run" if only_test else "Set it to that number"
        places = f" at each of {' x '.join(map(str, grid))} places" if grid else ""
        has = f"{wanted:,} numbers an example of {name!r}" if grid else task.description
        raise config_lib.UserError(
            f"config.model.outputs.{name}.size is {size}{places}; {data.name} has {has}. "
            f"{'Make them fit' if grid else remedy}."
        )
    indices = data.fields.get(f"{name}_indices")
    if indices is not None and indices.num_places != math.prod(grid):
        raise config_lib.UserError(
            f"config.data.fields.{name}_indices.num_places is {indices.num_places}; "
            f"config.model.outputs.{name} has {math.prod(grid)} places. Set it to that number."
        )
