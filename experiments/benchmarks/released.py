r"""Measures the six released models beside Hugging Face's port of them: time and memory of a step.

    python -m experiments.benchmarks.released [--models=vision-perceiver-fourier,...]
        [--modes=inference,train] [--batch_sizes=1,8] [--repeats=3] [--json=FILE]
        [--peer_python=PYTHON]

Both have random weights and inputs, float32, and a process each; they take turns, two steps each,
of which the second is timed. A training step is the forward pass, the mean of the squared outputs,
their gradients and AdamW. The multimodal model decodes all of its 804,737 outputs in inference (the
port chunk by chunk, of latents that it encodes once), and 512 patches of sound and 512 pixels in
training. The port's interpreter is that of `make install-peers`.
"""

import argparse
import pathlib
import statistics
import sys
import time
from typing import Any

from experiments import cli
from experiments.benchmarks import command, protocol
from perceiver_jax.pretrained import configs

_PAUSE_SECONDS = 0.3  # Between workers: thread pools spin for a while after their work.
_MODES = ("inference", "train")
_WORKERS = {"ours": "released_worker", "port": "port_worker"}


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = command.make_parser("released", __doc__, repeats=3)
    parser.add_argument("--models", type=_some_of(tuple(configs.RELEASED)), default=None)
    parser.add_argument("--modes", type=_some_of(_MODES), default=None)
    parser.add_argument("--batch_sizes", type=_sizes, default=[1, 8])
    parser.add_argument("--peer_python", default=".venv-peers/bin/python", metavar="PYTHON")
    with cli.user_errors_end_the_program():
        flags = parser.parse_args(argv)
        rows = []
        for model in flags.models or configs.RELEASED:
            for mode in flags.modes or _MODES:
                for size in flags.batch_sizes:
                    settings = {"model": model, "mode": mode, "batch_size": size}
                    rows.append(settings | measure(settings, flags.repeats, flags.peer_python))
                    command.write(rows, flags.json)
                    _report(rows[-1:])
    _report(rows)


def measure(settings: dict[str, Any], repeats: int, peer_python: str) -> dict[str, Any]:
    """Measures both workers in turns.

    Returns:
      By worker its `seconds` of each repeat, `peak_megabytes` above what it had before the first
      step, and facts; or the `error` that kept it from being measured.
    """
    result, workers = {}, {}
    settings = settings | {"port": configs.RELEASED[settings["model"]]}
    for name, module in _WORKERS.items():
        python = sys.executable if name == "ours" else peer_python
        try:
            if not pathlib.Path(python).exists():
                raise protocol.WorkerError(
                    f"needs {python}, which is not there. Run make install-peers, or name the "
                    "Python of another environment with --peer_python"
                )
            # Without KMP_BLOCKTIME, OpenMP's threads would spin beside the next worker.
            workers[name] = protocol.Worker(
                python, f"experiments.benchmarks.{module}", settings, KMP_BLOCKTIME="0"
            )
            result[name] = workers[name].ask() | {"seconds": []}
        except protocol.WorkerError as error:
            result[name] = {"error": str(error)}
            workers.pop(name, None)
    for turn in range(repeats):
        for name in list(workers):
            time.sleep(_PAUSE_SECONDS)
            try:
                workers[name].ask("step")
                result[name]["seconds"].append(workers[name].ask("step")["seconds"])
                if not turn:
                    result[name] |= workers[name].ask("memory")
            except protocol.WorkerError as error:  # Such as: out of memory.
                result[name] = {"error": str(error)}
                del workers[name]
    for worker in workers.values():
        worker.close()
    return result


def _report(rows: list[dict[str, Any]]) -> None:
    """Prints what was measured, as a table."""
    cells, errors = [], []
    for row in rows:
        ours, port = row["ours"], row["port"]
        for name in _WORKERS:
            if "error" in row[name]:
                what = f"{row['model']}, {row['mode']}, batch {row['batch_size']}"
                errors.append(f"{what}: {name} not measured, it {row[name]['error']}")
        seconds, megabytes = (
            [None if "error" in x else of(x) for x in (ours, port)]
            for of in (lambda x: statistics.median(x["seconds"]), lambda x: x["peak_megabytes"])
        )
        cells.append(
            (
                f"{row['model']}, {row['mode']}, batch {row['batch_size']}",
                *map(command.number, seconds),
                _ratio(seconds),
                *map(command.number, megabytes),
                _ratio(megabytes),
            )
        )
    columns = ("", "ours, s", "port, s", "port / ours", "ours, MB", "port, MB", "port / ours")
    command.print_table(columns, cells)
    for error in errors:
        print(error)


def _ratio(pair: list[float | None]) -> str:
    ours, port = pair
    return "-" if None in pair else f"{port / ours:.2f}"


def _some_of(known: tuple[str, ...]):
    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"got {name!r}; expected some of {list(known)}")
        return names

    return parse


def _sizes(text: str) -> list[int]:
    return [command.positive(size) for size in text.split(",")]


if __name__ == "__main__":
    main(sys.argv[1:])
