"""The README of an exported folder, of what `export.json` holds."""

from collections.abc import Mapping
from typing import Any

# Runs in the folder. Another program finds the folder by its own means.
EXAMPLE = """\
import json
import pathlib

import jax
from jax import export
import numpy as np

folder = pathlib.Path(".")
about = json.loads((folder / "export.json").read_text())
program = export.deserialize(bytearray((folder / about["programs"]["predict"]).read_bytes()))

# The file of weights: eight bytes of a length, so much JSON, and float32 arrays.
content = (folder / about["parameters"]).read_bytes()
end = 8 + int.from_bytes(content[:8], "little")
data = memoryview(content)[end:]
params = {
    name: np.frombuffer(data[slice(*x["data_offsets"])], np.float32).reshape(x["shape"])
    for name, x in json.loads(content[8:end]).items()
    if name != "__metadata__"
}

saved = np.load(folder / "example.npz")
batch = {name: saved[f"inputs/{name}"] for name in about["inputs"]}  # Any number of examples.
predicted = jax.jit(program.call)(params, batch)  # Compiled once for each number of them.
for name, x in predicted.items():
    same = np.allclose(x, saved[f"outputs/{name}"], atol=1e-3)
    print(name, x.shape, "as when it was exported" if same else "NOT as when it was exported")
"""

ONNX = """\
import json

import numpy as np
import onnxruntime

about = json.load(open("export.json"))
session = onnxruntime.InferenceSession(about["onnx"]["file"])
saved = np.load("example.npz")
batch = {name: saved[f"inputs/{name}"] for name in about["inputs"]}
names = about["onnx"]["outputs"]  # What the file calls them; an input may have the same name.
for name, x in zip(names, session.run(list(names.values()), batch), strict=True):
    print(name, x.shape)
"""


def text(about: Mapping[str, Any]) -> str:
    """Returns the page.

    Args:
      about: what `export.json` holds.
    """
    name = about["experiment"] or "a model"
    outputs = "".join(
        f"| `{name}` | {_form(x)} | {x['meaning']} |\n" for name, x in about["outputs"].items()
    )
    inputs = "".join(
        f"- `{name}`: {_form(x)}. {x['meaning'][:1].upper()}{x['meaning'][1:]}\n"
        for name, x in about["inputs"].items()
    )
    classes = "".join(
        f"`class_names.{name}` has the names of its {len(names):,} classes.\n"
        for name, names in about["class_names"].items()
    )
    onnx = _ONNX.format(code=ONNX, **about["onnx"]) if "onnx" in about else ""
    return f"""# {name}, after {about["step"]:,} steps

Written by {about["package"]} with JAX {about["jax"]}, for {", ".join(about["platforms"])}.
Nothing of that package is needed to use it: `pip install jax flatbuffers` (JAX reads programs by
flatbuffers), and in this folder:

```python
{EXAMPLE}```

`latents.stablehlo` takes the same and returns the final latents, {_form(about["latents"])}.
With the package, `perceiver_jax.load_pretrained(FOLDER)` opens the folder as a run, which also
reads files.

{onnx}## Outputs

`predict.stablehlo` returns, by name:

| | form | |
|---|---|---|
{outputs}
{classes}
## Inputs

All of these, by name. `export.json` has the numbers under `inputs.NAME.preprocessing`, by the names
that are used here.

{inputs}"""


_ONNX = """## ONNX

`{file}` (opset {opset}) computes predictions and latents in float32, in any runtime of ONNX:

```python
{code}```

"""


def _form(x):
    return f"{x['dtype']} [{', '.join(map(str, x['shape']))}]"
