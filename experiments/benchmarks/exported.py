r"""Measures an exported model beside the run that it is of: bytes on disk, seconds to an answer.

    python -m experiments.benchmarks.exported --workdir=WHAT [--repeats=5] [--json=FILE]

The model is exported, with an ONNX file if it can have one. Then fresh processes, which take turns,
each load it and compute the answer of one example: the run by this package (which imports JAX and
Haiku and compiles), the program by JAX and NumPy alone (which compiles), the ONNX file by
onnxruntime on its CPU. Compiled programs are not kept. `first answer` counts from the start of the
process, `processor` is the time of all its threads until then, which other work on the machine
changes least; `next` are answers after it, of the same process and example, whose inputs are ready.
"""

from collections.abc import Mapping
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from experiments import cli
from experiments.benchmarks import command
from perceiver_jax import config as config_lib

_NEXT = 20  # Answers that are timed after the first.

# Each defines `answer()`, the whole way from the files to numbers on the host.
_RUN = """
import sys
import jax, numpy as np, perceiver_jax
with np.load(sys.argv[2] + "/example.npz") as saved:
    batch = {name[7:]: saved[name] for name in saved.files if name.startswith("inputs/")}
run = perceiver_jax.load_pretrained(sys.argv[1])
def answer():
    return jax.device_get(run.task.predict(run(batch)))
"""
_PROGRAM = """
import json, pathlib, sys
import jax, numpy as np
from jax import export
folder = pathlib.Path(sys.argv[2])
about = json.loads((folder / "export.json").read_text())
call = jax.jit(export.deserialize(bytearray((folder / "predict.stablehlo").read_bytes())).call)
content = (folder / "model.safetensors").read_bytes()
end = 8 + int.from_bytes(content[:8], "little")
data = memoryview(content)[end:]
params = {
    name: np.frombuffer(data[slice(*x["data_offsets"])], np.float32).reshape(x["shape"])
    for name, x in json.loads(content[8:end]).items()
    if name != "__metadata__"
}
params = jax.device_put(params)
with np.load(folder / "example.npz") as saved:
    batch = {name: saved["inputs/" + name] for name in about["inputs"]}
def answer():
    return jax.device_get(call(params, batch))
"""
_ONNX = """
import json, pathlib, sys
import numpy as np, onnxruntime
folder = pathlib.Path(sys.argv[2])
about = json.loads((folder / "export.json").read_text())
session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
names = [about["onnx"]["outputs"][name] for name in about["outputs"]]
with np.load(folder / "example.npz") as saved:
    batch = {name: saved["inputs/" + name] for name in about["inputs"]}
def answer():
    return session.run(names, batch)
"""
_TIMED = f"""
import time
answer()
print("answered", time.process_time(), flush=True)
for _ in range({_NEXT}):
    begin = time.perf_counter()
    answer()
    print(time.perf_counter() - begin, flush=True)
"""
WAYS = {"run": _RUN, "program": _PROGRAM, "onnx": _ONNX}


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = command.make_parser("exported", __doc__, repeats=5)
    parser.add_argument("--workdir", required=True, metavar="WHAT", help="as of experiments.export")
    with cli.user_errors_end_the_program():
        flags = parser.parse_args(argv)
        from perceiver_jax import exporting  # Here, for they take seconds.
        from perceiver_jax.pretrained import load

        with tempfile.TemporaryDirectory() as root:
            folder = pathlib.Path(root, "exported")
            problem = exporting.export(load.load_pretrained(flags.workdir), folder, onnx=True)
            sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
            ways = [name for name in WAYS if name != "onnx" or problem is None]
            times = measure(ways, [flags.workdir, str(folder)], flags.repeats)
        command.write({"bytes": sizes, "seconds": times}, flags.json)
    command.print_table(
        ("file", "kB"), [(name, command.number(size / 1e3)) for name, size in sizes.items()]
    )
    command.print_table(
        ("", "first answer, s", "quartiles", "processor, s", "next, ms"),
        [
            (
                name,
                command.median(found["first"]),
                command.spread(found["first"]),
                command.median(found["processor"]),
                command.number(1e3 * statistics.median(found["next"])),
            )
            for name, found in times.items()
        ],
        title=flags.workdir,
    )
    if problem:
        print(f"There is no ONNX file: {problem}")


def measure(ways: list[str], arguments: list[str], repeats: int) -> Mapping[str, Any]:
    """Times fresh processes of each way, in turns.

    Args:
      ways: of `WAYS`.
      arguments: what is exported, and the exported folder.
      repeats: processes of each, after one that reads from the disk.

    Returns:
      By way the seconds of its processes to their `first` answer, elapsed and of the `processor`,
      and of all `next` answers.

    Raises:
      UserError: if a process fails.
    """
    times = {name: {"first": [], "processor": [], "next": []} for name in ways}
    for turn in range(1 + repeats):
        for name, found in times.items():
            first, processor, later = _run(WAYS[name], arguments)
            if turn:
                found["first"].append(first)
                found["processor"].append(processor)
                found["next"] += later
    return times


def _run(program: str, arguments: list[str]) -> tuple[float, float, list[float]]:
    line = [sys.executable, "-c", program + _TIMED, *arguments]
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "0"}
    begin = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        ) as process,
    ):
        answered = process.stdout.readline().split()
        first = time.perf_counter() - begin
        later = process.stdout.read()
        if process.wait() or answered[:1] != ["answered"]:
            log.seek(0)
            raise config_lib.UserError(f"A process ended with {process.returncode}: {log.read()}")
    return first, float(answered[1]), [float(x) for x in later.split()]


if __name__ == "__main__":
    main(sys.argv[1:])
