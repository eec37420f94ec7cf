"""A model as an ONNX file, by jax2onnx, and what that file computes.

The converter gets the plain form of a model, in float32, for it can't take what streams over its
inputs: the same numbers, more memory. Many output queries are decoded chunk by chunk, in a loop.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import importlib.util
import logging
import sys
from typing import Any
import warnings

import jax
import ml_collections
import numpy as np

import perceiver_jax
from perceiver_jax import config as config_lib
from perceiver_jax.exporting import programs

OPSET = 21  # Has all operators that are used, GELU the last; readers since 2024 know it.
MAX_DIFFERENCE = 1e-4  # From what the run gives, of floats of about 1.
LATENTS = "latents"  # The last output, unless the model has one of that name.

_SMALL = 2**20  # Bytes of an example that is computed twice at once, for its memory.
_RANK = 4  # Of images with their batch and channels.

Arrays = dict[str, np.ndarray]


class NotConvertedError(Exception):
    """The converter can't take a model, or what it made computes something else; says why."""


def output_names(run: Any, predicted: Mapping[str, Any]) -> dict[str, str]:
    """Returns how the file calls the model's outputs: ONNX tells inputs and outputs by names alone.

    Args:
      run: that is converted.
      predicted: what the task predicts, by name.
    """
    taken = set(programs.inputs(run))
    names = {name: f"{name}_predicted" if name in taken else name for name in predicted}
    return names | ({} if LATENTS in names or LATENTS in taken else {LATENTS: LATENTS})


def check_packages() -> None:
    """Refuses where a package is lacking.

    Raises:
      MissingPackageError: if one is.
    """
    for name in ("jax2onnx", "onnx", "onnxruntime"):
        # None in `sys.modules` is one that can't be imported.
        if sys.modules.get(name, name) is None or importlib.util.find_spec(name) is None:
            raise config_lib.MissingPackageError(
                f"An ONNX file needs the package {name}, which is not installed. Install it: "
                "pip install perceiver-haiku[onnx]"
            )


def convert(run: Any) -> bytes:
    """Returns the file: inputs as of `programs.inputs`, outputs as of `output_names`.

    Raises:
      NotConvertedError: the converter can't take the model.
    """
    both = programs.predict_and_latents(plain_run(run))
    params = programs.flatten(run.params)
    batch = {name: x[None] for name, x in programs.inputs(run).items()}
    names = output_names(run, jax.eval_shape(both, params, batch)[0])

    def function(params, batch):
        predicted, latents = both(params, batch)
        return {LATENTS: latents} | predicted

    return convert_function(run, function, names)


def convert_function(
    run: Any, function: Callable[[Any, Any], Mapping[str, Any]], names: Mapping[str, str]
) -> bytes:
    """Returns the file of a function of a run's parameters and a batch.

    What the converter can't take it gets once more without inner functions and with loops unrolled:
    jax2onnx 0.13 knows those of JAX 0.10 and not those of JAX 0.12.

    Args:
      run: whose parameters the file holds.
      function: `function(params, batch)`, in the plain form.
      names: of its outputs, and what the file calls them.

    Raises:
      NotConvertedError: the converter can't take it.
    """
    given = programs.inputs(run)
    params = programs.flatten(jax.device_get(run.params))

    def of_arrays(*arrays):
        found = function(params, dict(zip(given, arrays, strict=True)))
        return tuple(found[name] for name in names)

    def make():
        import jax2onnx  # Here, for it takes seconds and says much.
        import onnx

        model = jax2onnx.to_onnx(
            of_arrays,
            [jax.ShapeDtypeStruct((programs.BATCH, *x.shape), x.dtype) for x in given.values()],
            model_name=run.config.get("experiment", "") or "perceiver",
            opset=OPSET,
            return_mode="proto",
            input_names=list(given),
            output_names=list(names.values()),
        )
        _pool_images(model.graph, onnx)
        return model.SerializeToString()

    with _quiet():
        try:
            return make()
        except Exception as error:  # Whatever the converter stumbles over.
            problem = error
        try:
            with jax.disable_jit():
                return make()
        except Exception:
            raise NotConvertedError(_one_line(problem)) from problem


def plain_run(run: Any) -> Any:
    """Returns a run whose model computes the same in float32, without streams and unrolled."""
    section = run.config.model.to_dict()
    section["encoder"] |= {"streaming": False, "scan": False, "remat": False}
    section["dtype"] = "float32"
    config = ml_collections.ConfigDict(run.config.to_dict() | {"model": section})
    return dataclasses.replace(run, config=config, model=perceiver_jax.build_model(section))


def check(
    file: bytes, names: Mapping[str, str], batch: Arrays, expected: Mapping[str, Any]
) -> None:
    """Checks what a file computes of an example; of a small one, which it gets twice.

    Args:
      file: of `convert`.
      names: of `output_names`.
      batch: of one example.
      expected: what the run predicts of it.

    Raises:
      NotConvertedError: it can't be computed, or is something else.
    """
    if sum(x.nbytes for x in batch.values()) < _SMALL:
        batch = {name: np.concatenate([x, x]) for name, x in batch.items()}
    found = run_file(file)(batch)
    for name, x in expected.items():
        for row in found[names[name]]:
            if row.shape != x.shape[1:] or row.dtype != x.dtype:
                raise NotConvertedError(
                    f"{name!r} is {row.dtype} {list(row.shape)} in onnxruntime and {x.dtype} "
                    f"{list(x.shape[1:])} here"
                )
            difference = _difference(row, np.asarray(x[0]))
            if not difference <= MAX_DIFFERENCE:
                raise NotConvertedError(
                    f"{name!r} in onnxruntime differs by {difference:.1e} from what is computed "
                    f"here, more than {MAX_DIFFERENCE:.0e}"
                )


def run_file(file: bytes) -> Callable[[Arrays], Arrays]:
    """Returns a function of a batch that computes what a file has, by name, in onnxruntime.

    Raises:
      NotConvertedError: onnxruntime can't load it; the function raises it as well.
    """
    import onnxruntime  # Here: the extra `onnx` is not for all.

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # What fails is said by what is raised.
    try:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise NotConvertedError(_one_line(error)) from error
    names = [output.name for output in session.get_outputs()]

    def call(batch):
        try:
            return dict(zip(names, session.run(names, dict(batch)), strict=True))
        except Exception as error:
            raise NotConvertedError(_one_line(error)) from error

    return call


def _difference(found, expected):
    """The largest difference of floats, to the largest of them above 1; of integers, how many."""
    if expected.dtype.kind in "fc":
        scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
        return float(np.abs(found - expected).max(initial=0.0)) / scale
    # Where a number is on the edge of two integers, neither is wrong.
    wrong = np.abs(found.astype(np.int64) - expected) > (expected.dtype == np.uint8)
    return float(wrong.mean()) if wrong.mean() > 0.01 else 0.0


def _pool_images(graph: Any, onnx: Any) -> None:
    """Takes maxima over rows and columns of images as ONNX has it.

    jax2onnx (0.13) makes of all axes of [B, H, W, C] spatial ones, of which runtimes allow three.
    """
    nodes = []
    for node in graph.node:
        attributes = {x.name: list(x.ints) for x in node.attribute if x.ints}
        kernel = attributes.get("kernel_shape", [])
        is_image = len(kernel) == _RANK and kernel[0] == kernel[-1] == 1
        if node.op_type != "MaxPool" or not is_image:
            nodes.append(node)
            continue
        pads = attributes.get("pads", [0] * 2 * _RANK)
        keys = {
            "kernel_shape": kernel[1:3],
            "strides": attributes.get("strides", [1] * _RANK)[1:3],
            "pads": [*pads[1:3], *pads[_RANK + 1 : _RANK + 3]],
        }
        before, after = node.input[0], node.output[0]
        axes = f"{after}_axes"
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 1]), axes))
        made = [f"{after}_{step}" for step in ("image", "first", "pooled", "last")]
        nodes += [
            onnx.helper.make_node("Squeeze", [before, axes], [made[0]]),
            onnx.helper.make_node("Transpose", [made[0]], [made[1]], perm=[0, 3, 1, 2]),
            onnx.helper.make_node("MaxPool", [made[1]], [made[2]], **keys),
            onnx.helper.make_node("Transpose", [made[2]], [made[3]], perm=[0, 2, 3, 1]),
            onnx.helper.make_node("Unsqueeze", [made[3], axes], [after]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what the converter says of optional plugins and of types that it leaves open."""
    loggers = [logging.getLogger(name) for name in ("jax2onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
