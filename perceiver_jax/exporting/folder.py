"""The exported folder: its files, and what they say."""

from collections.abc import Mapping
import json
import os
import pathlib
from typing import Any

import jax
import numpy as np

import perceiver_jax
from perceiver_jax.exporting import onnx_file, preparing, programs, readme
from perceiver_jax.pretrained import write

FORMAT = 1  # Of `export.json`; greater if older readers would misunderstand it.
DESCRIPTION, EXAMPLE = "export.json", "example.npz"

_FUNCTIONS = {"predict": programs.predict, "latents": programs.latents}
_MEANINGS = {
    "softmax": "probabilities of the classes, which sum to 1",
    "sigmoid": "the probability of each class by itself",
    "regression": "numbers in their own units",
    "flow": "pixels to the right and down from the first frame to the second",
    "masked_text": "the likeliest id at each place, also where there is no gap",
    "pixels": "pixels of 0 to 255",
    "signal": "what is reconstructed; samples of sound in [-1, 1]",
    "latents": "the final latents; their mean over axis 1 is an embedding",
}


def export(run: Any, folder: str | os.PathLike[str], *, onnx: bool = False) -> str | None:
    """Writes a run as a folder that needs neither this package nor Haiku.

    Beside what `write.write_own` writes, from which `load_pretrained` makes a run again:

    - `predict.stablehlo` and `latents.stablehlo`: programs (`jax.export`) for CPUs, CUDA and TPUs
      and any batch size, which take the parameters and a batch;
    - `export.json`: shapes, dtypes and meaning of inputs and outputs, how inputs are prepared, and
      the names of the classes;
    - `example.npz`: a batch of noise, and what the model made of it here;
    - `README.md`: a program that uses all of it with JAX and NumPy alone;
    - `model.onnx`, if it is asked for, which gives predictions and latents in ONNX runtimes.

    Args:
      run: what `load_run` or `load_pretrained` returned.
      folder: where; made if it is not there.
      onnx: whether an ONNX file is made, and compared with the run in onnxruntime.

    Returns:
      Why there is no ONNX file though it is asked for, in a line; else None.

    Raises:
      UserError: if the folder holds something, or a package for ONNX is lacking.
    """
    write.check_empty(folder)  # Before what takes time.
    made = {name: programs.make(run, function(run)) for name, function in _FUNCTIONS.items()}
    batch, predicted = make_example(run, made["predict"].function)
    content = describe(run, {name: program.outputs for name, program in made.items()})
    file, problem = None, None
    if onnx:
        try:
            file, content["onnx"] = _make_onnx(run, batch, predicted)
        except onnx_file.NotConvertedError as error:
            problem = str(error)
    write.write_own(run, folder)
    folder = pathlib.Path(folder)
    for name, program in made.items():
        (folder / content["programs"][name]).write_bytes(program.serialized)
    if file is not None:
        (folder / content["onnx"]["file"]).write_bytes(file)
    arrays = {f"inputs/{name}": x for name, x in batch.items()}
    arrays |= {f"outputs/{name}": x for name, x in predicted.items()}
    np.savez_compressed(folder / EXAMPLE, **arrays)
    (folder / DESCRIPTION).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(readme.text(content), encoding="utf-8")
    return problem


def describe(run: Any, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `export.json` holds.

    Args:
      run: that is exported.
      outputs: by name of the program, as of `Program.outputs`.
    """
    return {
        "format": FORMAT,
        "package": f"perceiver-haiku {perceiver_jax.__version__}",
        "jax": jax.__version__,
        "experiment": run.config.get("experiment", ""),
        "step": run.step,
        "platforms": list(programs.PLATFORMS),
        "parameters": "model.safetensors",
        "programs": {name: f"{name}.stablehlo" for name in outputs},
        "inputs": {name: _input(run, name, zeros) for name, zeros in programs.inputs(run).items()},
        "outputs": {
            name: _form(x.shape, x.dtype) | {"meaning": _meaning(run, name, x)}
            for name, x in outputs["predict"].items()
        },
        "latents": _form(outputs["latents"].shape, outputs["latents"].dtype)
        | {"meaning": _MEANINGS["latents"]},
        "class_names": {name: list(names) for name, names in run.class_names.items()},
    }


def make_example(run: Any, predict: Any) -> tuple[programs.Batch, programs.Batch]:
    """Returns a batch of noise, of one example, and what is predicted of it."""
    rng = np.random.default_rng(0)
    batch = {name: noise(rng, zeros)[None] for name, zeros in programs.inputs(run).items()}
    return batch, jax.device_get(jax.jit(predict)(programs.flatten(run.params), batch))


def noise(rng: np.random.Generator, zeros: np.ndarray) -> np.ndarray:
    """Returns noise of an array's shape and type; of masks, True."""
    if zeros.dtype == bool:
        return np.ones(zeros.shape, bool)
    if zeros.dtype.kind in "ui":
        end = 256 if zeros.dtype == np.uint8 else 2
        return rng.integers(end, size=zeros.shape).astype(zeros.dtype)
    return rng.uniform(-1, 1, zeros.shape).astype(zeros.dtype)


def _make_onnx(run, batch, predicted):
    """The file, and what `export.json` says of it."""
    file, names = onnx_file.convert(run), onnx_file.output_names(run, predicted)
    if run.config.model.get("dtype", "float32") != "float32":  # The file's numbers are.
        params = programs.flatten(run.params)
        plain = programs.predict(onnx_file.plain_run(run))
        predicted = jax.device_get(jax.jit(plain)(params, batch))
    onnx_file.check(file, names, batch, predicted)
    return file, {"file": "model.onnx", "opset": onnx_file.OPSET, "outputs": names}


def _input(run, name, zeros):
    form = _form((programs.BATCH, *zeros.shape), zeros.dtype)
    of = name.removesuffix("_mask")
    if name not in run.config.model.inputs and of in run.config.model.inputs:
        what = "where the input is real" if zeros.ndim else "whether an example has the input"
        return form | {"kind": "mask", "of": of, "meaning": f"true {what}"}
    found = preparing.describe(name, run.fields[name], run.config.model.inputs[name])
    return form | {
        "kind": found.kind,
        "preprocessing": found.numbers,
        "meaning": found.sentences,
    }


def _form(shape, dtype):
    sizes = [x if isinstance(x, int) else programs.BATCH for x in shape]
    return {"shape": sizes, "dtype": str(np.dtype(dtype))}


def _meaning(run, name, array):
    """What an output of the task is."""
    kind = run.config.task.kind
    if kind == "classification":
        kind = run.config.task.get("loss", "softmax")
    if kind == "autoencoding":
        is_label = hasattr(run.fields[name], "num_classes")
        kind = "softmax" if is_label else "pixels" if array.dtype == np.uint8 else "signal"
    return _MEANINGS.get(kind, f"what the task {kind!r} predicts")
