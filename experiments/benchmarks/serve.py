r"""Measures the server: examples a second beside the model's own, and latencies at three loads.

    python -m experiments.benchmarks.serve [--config=experiments/configs/imagenet.py:mini]
        [--model=FOLDER] [--seconds=10] [--files=32] [--connections=8] [--threads=64] [--json=FILE]

The model reads pictures; without a folder it is that of a config, with random weights. Pictures are
digits as PNG files if they are grey, else photographs as JPEG. The server is a process of its own,
and so are those that decode; this one makes the load, on the same cores. Each answer is compared
with what `Run.predict` says of that picture: none may be lacking, or another's.

- own: the model alone, in this process, batches of the server's largest size;
- many: requests of `--files` files, one after another on each of `--connections`; in turns with
  `own`, and compared in each turn;
- single: requests of one file, likewise on `--threads` connections;
- three loads: requests of one file at random times, at fractions of the rate of single ones.
  Latencies count from when a request was due.

What each process takes of a core is counted, of which the model's share is measured alone.
"""

import argparse
import contextlib
import io
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any
import urllib.error
import urllib.request

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import PIL.Image

from experiments import cli
from experiments.benchmarks import command, records, serve_load
import perceiver_jax
from perceiver_jax import config as config_lib
from perceiver_jax import predictions, runs, tasks
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.data.builders import mnist5k
from perceiver_jax.pretrained import write

_CONFIG = "experiments/configs/imagenet.py:mini"
_LOADS = (0.25, 0.5, 0.75)  # Of the rate of single files.
_BATCH_SIZE = 32  # The largest of the server's.
_NUM_PICTURES = 256
_TOLERANCE = 1e-5  # Of a probability: batches of other sizes round otherwise.
_START_SECONDS = 300


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = command.make_parser("serve", __doc__, repeats=5)
    parser.add_argument("--model", help="a folder of weights whose only input is a picture")
    parser.add_argument("--seconds", type=command.positive, default=10, help="of each load")
    parser.add_argument("--files", type=command.positive, default=_BATCH_SIZE, help="of `many`")
    parser.add_argument("--connections", type=command.positive, default=8, help="of `many`")
    parser.add_argument("--threads", type=command.positive, default=64, help="that send one file")
    if not any(word.startswith("--config=") for word in argv):
        argv = [f"--config={command.ROOT / _CONFIG}", *argv]
    with cli.user_errors_end_the_program(), tempfile.TemporaryDirectory() as directory:
        flags, config = cli.parse_command_line(parser, argv)
        folder = flags.model or f"{directory}/model"
        if not flags.model:
            write.write_own(new_run(config), folder)
        result = measure(folder, flags)
        command.write(result, flags.json)
    report(result)


def new_run(config: ml_collections.ConfigDict) -> runs.Run:
    """Returns a run of a config with random weights; its classes are numbers."""
    label = {"num_classes": config.model.outputs.label.size, "multi_label": False}
    sections = config.data.fields.to_dict()
    sections["label"] = label | sections["label"]
    fields = {
        name: config_lib.build_from_table(fields_lib.FIELDS, section, name)
        for name, section in sections.items()
    }
    model = perceiver_jax.build_model(config.model)
    shapes = jax.eval_shape(model.init, jax.random.key(0), fields_lib.zero_batch(fields))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.array(rng.normal(0, 0.1, x.shape), jnp.float32), shapes)
    names = {"label": tuple(map(str, range(label["num_classes"])))}
    task = tasks.build_task(config.task, fields)
    return runs.Run(pathlib.Path(), 0, config, model, params, task, fields, names, ())


def measure(folder: str, flags: argparse.Namespace) -> dict[str, Any]:
    """Measures the model, starts the server and makes load; returns figures by name.

    Raises:
      UserError: if the model reads something else than a picture, or the server does not start.
    """
    run = perceiver_jax.load_pretrained(folder)
    inputs = {name: field for name, field in run.fields.items() if not field.is_target}
    features = [field.feature for field in inputs.values()]
    if features != ["image"]:
        raise config_lib.UserError(
            f"The model reads {features}; expected ['image']. Give another --model or --config."
        )
    (name,) = inputs
    files = pictures(inputs[name].channels)
    expected = run.predict(*files, k=3, batch_size=_BATCH_SIZE)
    settings = ("seconds", "files", "connections", "threads")
    result = {"settings": {key: getattr(flags, key) for key in settings}}
    batch = run.prepare(*files[:_BATCH_SIZE])
    predictions.compute(run, batch)  # Compiles.
    many = [
        tuple((begin + i) % len(files) for i in range(flags.files))
        for begin in range(0, len(files), flags.files)
    ]
    many = [(those, serve_load.form(name, [files[i] for i in those])) for those in many]
    single = [((i,), serve_load.form(name, [file])) for i, file in enumerate(files)]
    with _server(folder, max(2 * flags.threads, 64)) as (process, port):

        def load(make, *args):
            begun = _cpu_seconds(process)
            found = make(port, *args)
            taken = {who: x - begun[who] for who, x in _cpu_seconds(process).items()}
            return _figures(found, expected, taken)

        serve_load.closed(port, single, 8, 1.0)  # Warms this process up, too.
        turns = []
        for _ in range(flags.repeats):
            own = _own(run, batch, flags.seconds / flags.repeats)
            args = many, flags.connections, flags.seconds / flags.repeats
            turns.append((own, load(serve_load.closed, *args)))
        result["own"], result["many"] = (_together(found) for found in zip(*turns, strict=True))
        key = "examples_a_second"
        result["share"] = float(np.median([found[key] / own[key] for own, found in turns]))
        result["single"] = load(serve_load.closed, single, flags.threads, flags.seconds)
        for fraction in _LOADS:
            rate = fraction * result["single"]["examples_a_second"]
            found = load(serve_load.opened, single, flags.threads, flags.seconds, rate)
            result[f"load_{fraction:g}"] = found
        process.send_signal(signal.SIGTERM)
        result["exit_code"] = process.wait()
    return result


def pictures(channels: int) -> list[bytes]:
    """Returns different pictures: digits as PNG if they are grey, else photographs as JPEG."""
    if channels == 3:
        return records.images(None)
    digits = mnist5k.images("test")[:: 1000 // _NUM_PICTURES][:_NUM_PICTURES]
    return [_png(digit) for digit in digits]


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, format="png")
    return file.getvalue()


def _own(run: runs.Run, batch: dict[str, np.ndarray], seconds: float) -> dict[str, Any]:
    """The model's own rate, and what it takes of cores."""
    begun, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begun < seconds:
        predictions.compute(run, batch)
        count += len(batch["example_id"])
    milliseconds = 1e3 * (time.process_time() - cpu) / count
    rate = count / (time.perf_counter() - begun)
    return {"examples_a_second": rate, "cpu_ms": {"server": milliseconds}}


def _together(turns: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """The sums of what is counted, and medians of what is measured."""
    found = {}
    for name, value in turns[0].items():
        values = [turn[name] for turn in turns]
        if isinstance(value, dict):
            found[name] = _together(tuple(values))
        else:
            found[name] = sum(values) if isinstance(value, int) else float(np.median(values))
    return found


@contextlib.contextmanager
def _server(folder: str, queue: int):
    """Starts the server; gives its process and port when it is ready."""
    sizes = ",".join(str(2**i) for i in range(_BATCH_SIZE.bit_length()))
    command_line = [sys.executable, "-m", "experiments.serve", f"--model={folder}", "--port=0"]
    flags = [f"--queue={queue}", f"--batch_sizes={sizes}", "--compilation_cache="]
    process = subprocess.Popen(
        [*command_line, *flags], stdout=subprocess.PIPE, text=True, cwd=command.ROOT
    )
    try:
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        end = time.monotonic() + _START_SECONDS
        while not found or not _is_ready(int(found[1])):
            if not found or process.poll() is not None or time.monotonic() > end:
                raise config_lib.UserError("The server does not start; see above.")
            time.sleep(0.2)
        yield process, int(found[1])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
            return answer.status == 200
    except urllib.error.URLError:  # Also 503.
        return False


def _figures(load: serve_load.Load, expected: list[dict], taken: dict[str, float]) -> dict:
    """What a load gave: rates, latencies, and how many answers are lacking or wrong."""
    good = [answer for answer in load.answers if answer.status == 200]
    count = sum(len(answer.pictures) for answer in good)
    milliseconds = [1e3 * answer.seconds for answer in good] or [float("nan")]
    lost = [answer for answer in load.answers if answer.status != 200]
    wrong = [
        number
        for answer in good
        for number, found in _pairs(answer)
        if not _is_same(found, expected[number])
    ]
    return {
        "requests": len(load.answers),
        "examples_a_second": count / load.seconds,
        **{f"p{p}_ms": float(np.percentile(milliseconds, p)) for p in (50, 99)},
        "not_answered": len(lost),
        "wrong": len(wrong),
        "cpu_ms": {who: 1e3 * x / max(count, 1) for who, x in taken.items()},
    }


def _pairs(answer: serve_load.Answer):
    """Each picture with its prediction; all are wrong if there are too few or too many."""
    found = answer.predictions
    if len(found) != len(answer.pictures):
        found = [{}] * len(answer.pictures)
    return zip(answer.pictures, found, strict=True)


def _is_same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether the likeliest classes are, which may change places if they are as likely."""
    names = dict(map(tuple, found.get("label", ())))
    return all(
        abs(names.get(name, -1.0) - probability) < _TOLERANCE
        for name, probability in expected["label"]
    )


def _cpu_seconds(server: subprocess.Popen) -> dict[str, float]:
    """Seconds of cores that were taken so far: here, by the server, and by its processes."""
    own = {"load": sum(os.times()[:2])}
    threads = pathlib.Path(f"/proc/{server.pid}/task").glob("*/children")
    children = [int(pid) for thread in threads for pid in thread.read_text().split()]
    if not children:  # The system doesn't say.
        return own
    return own | {"server": _cpu_of(server.pid), "decoding": sum(map(_cpu_of, children))}


def _cpu_of(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(result: dict[str, Any]) -> None:
    """Prints what was measured, as a table."""
    own, rows = result["own"]["examples_a_second"], []
    for name in ("own", "many", "single", *(f"load_{fraction:g}" for fraction in _LOADS)):
        found = result[name]
        share = result["share"] if name == "many" else found["examples_a_second"] / own
        measured = ("p50_ms", "p99_ms", "not_answered", "wrong")
        cells = [found.get(key) for key in measured]
        cells += [found["cpu_ms"].get(who) for who in ("server", "decoding", "load")]
        rate = command.number(found["examples_a_second"])
        rows.append((name.replace("_", " "), rate, f"{share:.0%}", *map(command.number, cells)))
    columns = ("", "a second", "of own", "p50, ms", "p99, ms", "lost", "wrong")
    command.print_table((*columns, "server", "decoding", "load"), rows)
    print("The last columns are milliseconds of a core for each example.")


if __name__ == "__main__":
    main(sys.argv[1:])
