"""The page of `serve --demo` with the model in it: a folder that any web host serves.

In the place of the page's `backend.js`, which asks a server, it has one that runs ONNX files by
onnxruntime-web. All that the browser loads is in the folder.
"""

from collections.abc import Iterable, Mapping
import importlib.resources
import json
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from typing import Any

import numpy as np

from perceiver_jax import attention_pictures
from perceiver_jax import config as config_lib
from perceiver_jax.data import inference
from perceiver_jax.exporting import onnx_file, programs

NPM = "npm"  # Instead of a folder of onnxruntime-web: fetch it.
VERSION = "1.30.0"  # That is fetched; tested with.
MOST_EXAMPLES, MOST_BYTES = 24, 2**22  # Of examples, and of each: a page loads all.

# Of onnxruntime-web, with WebAssembly alone; and what it is called here, for hosts know few types.
_RUNTIME = {
    "dist/ort.wasm.bundle.min.mjs": "ort.js",
    "dist/ort-wasm-simd-threaded.wasm": "ort.wasm",
    "package.json": "package.json",  # Has version and licence.
}
_INPUTS = ("array", "image", "text")  # Features of fields that a browser reads as we do.
_OUTPUTS = ("classes", "numbers", "text")
_NOTE = "Nothing leaves this computer: the model runs in this browser."
_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'"
)
_NUM_COLOURS = 256

Files = dict[str, bytes]


def check(run: Any) -> None:
    """Refuses a model that the page can't run in a browser.

    Raises:
      UserError: if it reads or predicts what is not known there.
      MissingPackageError: if the page needs a package that is not installed.
    """
    from perceiver_jax.serving import about, limits  # Here: the extra `serve` is not for all.

    described = about.describe(run, limits.Limits(), [])
    found = [x["kind"] for x in described["inputs"]]
    given = [x["name"] for x in described["inputs"] if f"{x['name']}".endswith("_mask")]
    if len(found) - len(given) != 1 or not set(found) <= set(_INPUTS) or run.may_lack:
        raise config_lib.UserError(
            f"The model reads {', '.join(found)}; expected one of {', '.join(_INPUTS)} alone, for "
            "these are read in a browser as they are here. Serve it: python -m experiments.serve"
        )
    kinds = [x["kind"] for x in described["outputs"]]
    if not set(kinds) <= set(_OUTPUTS):
        raise config_lib.UserError(
            f"The model predicts {', '.join(kinds)}; expected some of {', '.join(_OUTPUTS)}, which "
            "the page shows by itself. Serve it: python -m experiments.serve"
        )


def find_runtime(where: str) -> Files:
    """Returns onnxruntime-web's files, of a folder or fetched.

    Args:
      where: a folder of the package, such as `node_modules/onnxruntime-web`; or 'npm'.

    Raises:
      UserError: if it is not there, or can't be fetched.
    """
    if where == NPM:
        with tempfile.TemporaryDirectory() as root:
            return _named(_fetch(pathlib.Path(root)), f"onnxruntime-web {VERSION}")
    folder = pathlib.Path(where)
    there = {name: folder / name for name in _RUNTIME if (folder / name).is_file()}
    return _named({name: path.read_bytes() for name, path in there.items()}, where)


def make(
    run: Any, content: Mapping[str, Any], model: bytes, runtime: Files, examples: Files
) -> Files:
    """Returns the demo's files by their paths.

    Args:
      run: whose model it is; `check` has passed.
      content: of `export.json`.
      model: the ONNX file.
      runtime: of `find_runtime`.
      examples: that visitors can choose, by name.

    Raises:
      NotConvertedError: the maps of attention can't be converted.
    """
    from perceiver_jax.serving import about, limits

    described = about.describe(run, limits.Limits(), list(examples))
    described["program"] = {
        "inputs": content["inputs"],
        "outputs": content["onnx"]["outputs"],
        "class_names": content["class_names"],
    }
    scale = attention_pictures.colours(np.linspace(0, 1, _NUM_COLOURS))
    described["colours"] = scale.tolist()
    files = {"model/model.onnx": model}
    if [x["kind"] for x in described["inputs"]] != ["image"]:
        described["layers"] = []  # Only pictures are drawn over, in the browser.
    else:
        indices = [layer["index"] for layer in described["layers"]]
        names = {f"layer_{index}": f"layer_{index}" for index in indices}
        attention = programs.attention(onnx_file.plain_run(run), indices)
        files["model/attention.onnx"] = onnx_file.convert_function(run, attention, names)
    files["model/about.json"] = json.dumps(described).encode()
    files |= _page()
    files |= {f"onnxruntime/{name}": x for name, x in runtime.items()}
    return files | {f"examples/{name}": x for name, x in examples.items()}


def read_examples(paths: Iterable[pathlib.Path]) -> Files:
    """Reads files by their names.

    Raises:
      UserError: if there is no such, two have one name, or it is more than a page has.
    """
    found: Files = {}
    for path in paths:
        if not path.is_file():
            raise config_lib.MissingFileError(
                f"There is no {path}; expected files that the model reads. Correct the path."
            )
        if path.name in found:
            raise config_lib.UserError(
                f"Two examples are called {path.name}; expected different names. Rename one."
            )
        if path.stat().st_size > MOST_BYTES:
            raise config_lib.UserError(
                f"The example {path} has {path.stat().st_size:,} bytes; expected at most "
                f"{MOST_BYTES:,}. Take a smaller one."
            )
        found[path.name] = path.read_bytes()
    if len(found) > MOST_EXAMPLES:
        raise config_lib.UserError(
            f"Got {len(found)} examples; expected at most {MOST_EXAMPLES}. Leave some out."
        )
    return found


def check_examples(run: Any, paths: Iterable[pathlib.Path]) -> None:
    """Reads files as they are read for a prediction.

    The page takes a file as the whole example if it can be one, else as the first input, or, of two
    frames, as one of them.

    Raises:
      UserError: the model can't read one.
    """
    inputs = {name: field for name, field in run.fields.items() if not field.is_target}
    first, *_ = inputs
    if not {field.feature for field in inputs.values()} <= {"audio", "video"}:
        inputs = {first: inputs[first]}
    is_pair = inputs[first].feature == "frames"
    reader = inference.make_reader(inputs, may_lack=[x for x in run.may_lack if x in inputs])
    for number, path in enumerate(paths):
        if is_pair:
            inference.read_pair(number, inference.Example(str(path), (path, path)), first)
        else:
            reader.read(number, inference.Example(str(path), path))


def _page() -> Files:
    """The page, with the backend that runs in the browser."""
    files = {}
    for package, folder in (
        ("perceiver_jax.serving", "page"),
        ("perceiver_jax.exporting", "browser"),
    ):
        for file in importlib.resources.files(package).joinpath(folder).iterdir():
            if file.name.endswith((".css", ".html", ".js")):
                files[f"page/{file.name}"] = file.read_bytes()  # The later one counts.
    index = files.pop("page/index.html").decode()
    index, notes = re.subn(
        "<footer>.*</footer>", f"<footer><p>{_NOTE}</p></footer>", index, flags=re.DOTALL
    )
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}" />'
    index, heads = re.subn("<head>", f"<head>\n    {policy}", index)
    assert (notes, heads) == (1, 1)
    return files | {"index.html": index.encode()}


def _fetch(root: pathlib.Path) -> Files:
    """Downloads the package by npm, into a folder that is there."""
    npm = shutil.which("npm")
    if npm is None:
        raise config_lib.UserError(
            "There is no npm, which fetches onnxruntime-web; expected it to be installed, or the "
            f"folder of onnxruntime-web {VERSION}. Name that folder."
        )
    line = [npm, "pack", f"onnxruntime-web@{VERSION}", "--silent"]
    done = subprocess.run(line, cwd=root, capture_output=True, text=True)
    packed = sorted(root.glob("*.tgz"))
    if done.returncode or not packed:
        lines = done.stderr.strip().splitlines() or ["npm said nothing"]
        raise config_lib.UserError(
            f"npm could not fetch onnxruntime-web {VERSION}: {config_lib.said(lines[-1])[:300]}. "
            "Try again, or name the folder of one that you have."
        )
    found = {}
    with tarfile.open(packed[0]) as archive:
        for name in _RUNTIME:
            try:
                file = archive.extractfile(f"package/{name}")
            except KeyError:
                continue
            if file is not None:
                found[name] = file.read()
    return found


def _named(found: Files, where: str) -> Files:
    """The files by what they are called in the demo."""
    lacking = sorted(_RUNTIME.keys() - found.keys())
    if lacking:
        raise config_lib.MissingFileError(
            f"{where} lacks {', '.join(lacking)}; expected onnxruntime-web {VERSION} or one like "
            f"it. Fetch it (npm pack onnxruntime-web@{VERSION}), or say {NPM!r} to have it fetched."
        )
    return {name: found[path] for path, name in _RUNTIME.items()}
