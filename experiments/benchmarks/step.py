r"""Measures a config's training or inference step, beside our plain forms and other projects.

    python -m experiments.benchmarks.step --config=experiments/configs/imagenet.py:cross_attends=1 \
        [--batch_size=1] [--mode=train|inference] [--repeats=5] [--json=FILE] \
        [--compare=FILE:ARGUMENTS ...] [--peer_python=PYTHON] \
        [--peers=plain,hf,hf_compile,perceiver_pytorch,flash_perceiver]

Every worker is a process of its own and takes turns with the others, two steps each, of which the
second is timed, so that all meet the same machine. No data set is needed: the inputs are noise.
`plain` is our own model in its plain forms: keys and values projected, attention not streamed,
layers unrolled. The other peers are PyTorch projects, of the interpreter `--peer_python`, in an
environment of their own, which `make install-peers` makes. Beside them all get the byte array with
its position encodings already made, and optimise with Adam and the softmax loss; what can't be made
equal is printed. `flash_perceiver` needs a CUDA device and `--config.model.dtype=bfloat16`.
"""

import argparse
import pathlib
import statistics
import sys
import time
from typing import Any

import ml_collections

from experiments import cli
from experiments.benchmarks import command, protocol
from perceiver_jax import config as config_lib
from perceiver_jax import config_file

TORCH_PEERS = ("hf", "hf_compile", "perceiver_pytorch", "flash_perceiver")
PEERS = ("plain", *TORCH_PEERS)
OURS = "ours"
ADAM = {
    "name": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "schedule": {"name": "constant"},
}
_PAUSE_SECONDS = 0.3  # Between workers: thread pools spin for a while after their work.
_BACKWARD = 3  # A training step has about three times the operations of a forward pass.


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = command.make_parser("step", __doc__, repeats=5)
    add_peer_flags(parser)
    parser.add_argument("--mode", choices=("train", "inference"), default="train")
    parser.add_argument("--batch_size", type=command.positive, help="default: the config's")
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="FILE[:ARGUMENTS]",
        help="also this config, with the same --config.key=value",
    )
    with cli.user_errors_end_the_program():
        flags, config = cli.parse_command_line(parser, argv)
        _, overrides = cli.split_overrides(argv)
        others = {name: config_file.load_config(name, overrides) for name in flags.compare}
        result = measure(config, others, flags)
        command.write(result, flags.json)
        report(result)


def add_peer_flags(parser: argparse.ArgumentParser) -> None:
    """Adds `--peers`, a list of `PEERS`, and `--peer_python`."""

    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in PEERS:
                raise argparse.ArgumentTypeError(
                    f"unknown peer {name!r}; expected some of {', '.join(PEERS)}"
                )
        return names

    parser.add_argument("--peers", type=parse, default=[], help=f"of {','.join(PEERS)}")
    parser.add_argument("--peer_python", default=".venv-peers/bin/python", metavar="PYTHON")


def measure(
    config: ml_collections.ConfigDict,
    others: dict[str, ml_collections.ConfigDict],
    flags: argparse.Namespace,
) -> dict[str, Any]:
    """Measures workers in turns.

    Args:
      config: the config of the worker `ours`, and of the peers.
      others: further configs of ours by name.
      flags: those of the command.

    Returns:
      `workers`: of each its facts and figures or the `error` that kept it from being measured; and
      what was measured on what.
    """
    from perceiver_jax import data as data_lib  # Here, for they take seconds.
    from perceiver_jax import summary

    batch_size = flags.batch_size or config.data.batch_size
    configs = {OURS: config} | others | ({"plain": plain(config)} if "plain" in flags.peers else {})
    one = {"batch_size": 1}
    summaries = {
        name: summary.describe_model(c, data_lib.build_data(**c.data.to_dict() | one).zero_batch())
        for name, c in configs.items()
    }
    torch_peers = [name for name in flags.peers if name in TORCH_PEERS]
    workers, result, optimizer = {}, {}, config.optimizer.name
    for name in (*configs, *torch_peers):
        print(f"preparing {name} ...", file=sys.stderr)
        worker_config = configs.get(name, config)
        tokens = None
        if torch_peers:
            tokens = list(summaries.get(name, summaries[OURS])["input"].values())
            worker_config, optimizer = comparable(worker_config), ADAM["name"]
        try:
            settings = {"mode": flags.mode, "batch_size": batch_size, "tokens": tokens}
            workers[name] = start(name, worker_config, flags.peer_python, settings)
            result[name] = workers[name].receive()
        except protocol.WorkerError as error:
            workers.pop(name, None)
            result[name] = {"error": str(error)}
            if name == OURS:
                raise config_lib.UserError(f"The config can't be measured: it {error}") from error

    seconds = {name: [] for name in (*workers, "peak")}
    for _ in range(1 + flags.repeats):
        for name in list(seconds):
            time.sleep(_PAUSE_SECONDS)
            worker, action = (workers[OURS], "peak") if name == "peak" else (workers[name], "step")
            try:
                worker.ask(action)  # Memory that was idle for seconds can be slow the first time.
                seconds[name].append(worker.ask(action)["seconds"])
            except protocol.WorkerError as error:  # Such as: out of memory.
                if worker is workers[OURS]:
                    raise config_lib.UserError(f"Our own step failed: it {error}") from error
                result[name] = {"error": str(error)}
                del seconds[name], workers[name]
    first = {name: steps.pop(0) for name, steps in seconds.items()}
    peak = result[OURS]["peak_operations"] / statistics.median(seconds["peak"])
    for name, worker in workers.items():
        forward = summaries.get(name, summaries[OURS])["flops"]["paper"] * batch_size
        model_flops = forward * (_BACKWARD if flags.mode == "train" else 1)
        median = statistics.median(seconds[name])
        facts = result[name]
        if facts["compile_seconds"] is None:
            facts["compile_seconds"] = max(0.0, first[name] - median)
        executed = facts["executed_flops"]
        facts |= {
            "step_seconds": seconds[name],
            "median_seconds": median,
            "examples_per_second": batch_size / median,
            "peak_megabytes": worker.ask("memory")["megabytes"],
            "model_flops": model_flops,
            "model_flops_utilization": model_flops / median / peak,
            "executed_flops_utilization": executed and executed / median / peak,
        }
        worker.close()
    title = f"{config.experiment}, {flags.mode}, batch {batch_size}, {config.model.dtype}"
    title += f", {optimizer}" if flags.mode == "train" else ""
    return {"title": title, "peak_flops": peak, "workers": result}


def start(
    name: str,
    config: ml_collections.ConfigDict,
    peer_python: str,
    settings: dict[str, Any],
) -> protocol.Worker:
    """Starts the process that runs a step.

    Args:
      name: of `TORCH_PEERS`; any other is ours.
      config: the whole config.
      peer_python: the interpreter that has the PyTorch peers.
      settings: `mode`, `batch_size`, and `tokens`: M and C of inputs that are made ready, or None.

    Raises:
      WorkerError: if there is no such interpreter.
    """
    settings = settings | {"config": config.to_dict(), "peer": name}
    if name not in TORCH_PEERS:
        return protocol.Worker(sys.executable, "experiments.benchmarks.worker", settings)
    if not pathlib.Path(peer_python).exists():
        raise protocol.WorkerError(
            f"needs {peer_python}, which is not there. Run make install-peers, or name the Python "
            "of another environment with --peer_python"
        )
    # Without KMP_BLOCKTIME, OpenMP's threads would spin beside the next worker.
    module = "experiments.benchmarks.torch_peers"
    return protocol.Worker(peer_python, module, settings, KMP_BLOCKTIME="0")


def plain(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The same model by its readable reference forms: projected, not streamed, unrolled."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.encoder.update(streaming=False, scan=False, remat=False)
    return config


def comparable(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config with what all peers can do: inputs made ready, Adam and the softmax loss."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.inputs = {"inputs": {"kind": "array"}}
        config.model.fusion = None
        config.optimizer = ADAM
        config.task.update(loss="softmax", label_smoothing=0.0)
        config.train.ema_decay = 0.0
    return config


def report(result: dict[str, Any]) -> None:
    """Prints the figures as a table, and what was not equal."""
    measured = {name: row for name, row in result["workers"].items() if "error" not in row}
    ours = measured[OURS]["median_seconds"]
    rows = {
        "compile, s": lambda row: command.number(row["compile_seconds"]),
        "step, s": lambda row: command.median(row["step_seconds"]),
        "  quartiles": lambda row: command.spread(row["step_seconds"]),
        "  times ours": lambda row: f"{row['median_seconds'] / ours:.2f}",
        "examples/s": lambda row: command.number(row["examples_per_second"]),
        "peak memory, MB": lambda row: command.number(row["peak_megabytes"]),
        "temporaries, MB": lambda row: command.number(row["temporary_megabytes"]),
        "GFLOP by the paper": lambda row: _giga(row["model_flops"]),
        "  of the peak rate": lambda row: _share(row["model_flops_utilization"]),
        "GFLOP, executed": lambda row: _giga(row["executed_flops"]),
        "  of the peak rate ": lambda row: _share(row["executed_flops_utilization"]),
        "parameters": lambda row: f"{row['parameters']:,}",
    }
    names = [name.rpartition("/")[2] for name in measured]  # Of files, without the directory.
    cells = [(label, *map(show, measured.values())) for label, show in rows.items()]
    command.print_table(("", *names), cells, result["title"])
    print(
        f"{measured[OURS]['device']}: {_giga(result['peak_flops'])} GFLOP/s in a matrix product of "
        "JAX, measured in the same turns"
    )
    for name, row in result["workers"].items():
        if "error" in row:
            print(f"{name}: not measured, it {row['error']}")
        for difference in row.get("differences", ()):
            print(f"{name}: {difference}")


def _giga(value: float | None) -> str:
    return command.number(value and value / 1e9)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


if __name__ == "__main__":
    main(sys.argv[1:])
