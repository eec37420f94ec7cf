"""The exported folder: its files, and what they say."""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
from typing import Any

import jax
import numpy as np

import perceiver_jax
from perceiver_jax import baselines
from perceiver_jax.exporting import demo, onnx_file, preparing, programs, readme
from perceiver_jax.pretrained import write

Path = str | os.PathLike[str]

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


def export(
    run: Any,
    folder: Path,
    *,
    onnx: bool = False,
    examples: Sequence[Path] = (),
    static_demo: Path | None = None,
) -> str | None:
    """Writes a run as a folder that needs neither this package nor Haiku.

    Beside what `write.write_own` writes, from which `load_pretrained` makes a run again:

    - `predict.stablehlo` and `latents.stablehlo`: programs (`jax.export`) for CPUs, CUDA and TPUs
      and any batch size, which take the parameters and a batch;
    - `export.json`: shapes, dtypes and meaning of inputs and outputs, how inputs are prepared, and
      the names of the classes;
    - `example.npz`: a batch of noise, and what the model made of it here;
    - `README.md`: a program that uses all of it with JAX and NumPy alone;
    - `model.onnx`, if it is asked for, which gives predictions and latents in ONNX runtimes;
    - `examples/` and `demo/`, if they are.

    Args:
      run: what `load_run` or `load_pretrained` returned.
      folder: where; made if it is not there.
      onnx: whether an ONNX file is made, and compared with the run in onnxruntime.
      examples: files that visitors of a demo can choose, also of `serve --demo`.
      static_demo: onnxruntime-web, see `demo.find_runtime`, for a page that runs the ONNX file in
        a browser; None: there is no such page.

    Returns:
      Why there is no ONNX file (and no page) though it is asked for, in a line; else None.

    Raises:
      UserError: if the folder holds something, a package for ONNX is lacking, the page can't show
        the model, the run is of a baseline, onnxruntime-web or an example is not there, or the
        model can't read an example.
    """
    write.check_empty(folder)  # Before what takes time.
    if onnx or static_demo is not None:
        onnx_file.check_packages()
    paths = [pathlib.Path(path) for path in examples]
    given = demo.read_examples(paths)
    baselines.check_perceiver(run.config.model.encoder, "An export")
    demo.check_examples(run, paths)
    runtime = None
    if static_demo is not None:
        demo.check(run)
        runtime = demo.find_runtime(os.fspath(static_demo))
    made = {name: programs.make(run, function(run)) for name, function in _FUNCTIONS.items()}
    batch, predicted = make_example(run, made["predict"].function)
    content = describe(run, {name: program.outputs for name, program in made.items()})
    files = {content["programs"][name]: program.serialized for name, program in made.items()}
    files |= {f"examples/{name}": x for name, x in given.items()}
    problem = None
    if onnx or runtime is not None:
        try:
            model, content["onnx"] = _make_onnx(run, batch, predicted)
            files[content["onnx"]["file"]] = model
            if runtime is not None:
                page = demo.make(run, content, model, runtime, given)
                files |= {f"demo/{name}": x for name, x in page.items()}
        except onnx_file.NotConvertedError as error:
            problem = str(error)
    files[DESCRIPTION] = json.dumps(content, indent=2).encode() + b"\n"
    files["README.md"] = readme.text(content).encode()
    write.write_own(run, folder)
    for name, x in files.items():
        path = pathlib.Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(x)
    arrays = {f"inputs/{name}": x for name, x in batch.items()}
    arrays |= {f"outputs/{name}": x for name, x in predicted.items()}
    np.savez_compressed(pathlib.Path(folder, EXAMPLE), **arrays)
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
