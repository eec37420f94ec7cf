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
_PEAK = "peak"  # A product of matrices, by the process of `ours`.
_NOT_TOLD_BY_ALL = ("compile_seconds", "executed_flops", "temporary_megabytes")


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
    tokens: list[int] | None = None,
) -> dict[str, Any]:
    """Measures workers in turns.

    Args:
      config: the config of the worker `ours`, and of the peers.
      others: further configs of ours by name.
      flags: those of the command.
      tokens: M and C of inputs that are made ready; None: as the config's, if there are peers that
        need them.

    Returns:
      `workers`: of each its facts and figures or the `error` that kept it from being measured; and
      what was measured on what.

    Raises:
      UserError: if `ours` can't be measured.
    """
    batch_size = flags.batch_size or config.data.batch_size
    configs = {OURS: config} | others | ({"plain": plain(config)} if "plain" in flags.peers else {})
    torch_peers = [name for name in flags.peers if name in TORCH_PEERS]
    workers, result, seconds = {}, {}, {}

    def leave_out(name: str, error: protocol.WorkerError) -> None:
        if name in (OURS, _PEAK):
            raise config_lib.UserError(f"The config can't be measured: it {error}") from error
        result[name] = {"error": str(error)}
        workers.pop(name, None)
        seconds.pop(name, None)

    for name in (*configs, *torch_peers):
        print(f"preparing {name} ...", file=sys.stderr)
        given, ready = configs.get(name, config), tokens
        if torch_peers and not ready:
            given, ready = comparable(given), _tokens(given)
        settings = {"mode": flags.mode, "batch_size": batch_size, "tokens": ready}
        try:
            workers[name] = start(name, given, flags.peer_python, settings)
            result[name] = dict.fromkeys(_NOT_TOLD_BY_ALL) | workers[name].ask()
        except protocol.WorkerError as error:
            leave_out(name, error)

    seconds |= {name: [] for name in (*workers, _PEAK)}
    for turn in range(1 + flags.repeats):
        for name in list(seconds):
            time.sleep(_PAUSE_SECONDS)
            worker, action = (workers[OURS], name) if name == _PEAK else (workers[name], "step")
            try:
                worker.ask(action)  # Memory that was idle for seconds can be slow the first time.
                seconds[name].append(worker.ask(action)["seconds"])
                if name != _PEAK and not turn:
                    result[name] |= worker.ask("memory")
            except protocol.WorkerError as error:  # Such as: out of memory.
                leave_out(name, error)
    first = {name: steps.pop(0) for name, steps in seconds.items()}
    peak = result[OURS]["peak_operations"] / statistics.median(seconds[_PEAK])
    for name, worker in workers.items():
        worker.close()
        facts, median = result[name], statistics.median(seconds[name])
        if facts["compile_seconds"] is None:
            facts["compile_seconds"] = max(0.0, first[name] - median)
        flops = facts.setdefault("model_flops", result[OURS]["model_flops"])
        executed = facts["executed_flops"]
        facts |= {
            "step_seconds": seconds[name],
            "median_seconds": median,
            "examples_per_second": batch_size / median,
            "model_flops_utilization": flops / median / peak,
            "executed_flops_utilization": executed and executed / median / peak,
        }
    title = f"{config.experiment}, {flags.mode}, batch {batch_size}, {config.model.dtype}"
    if flags.mode == "train":
        title += f", {(ADAM if torch_peers else config.optimizer)['name']}"
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


def _tokens(config: ml_collections.ConfigDict) -> list[int]:
    """M and C of the inputs of a config."""
    from perceiver_jax import data, summary  # Here, for they take seconds.

    if config.model.encoder.reads:
        raise config_lib.UserError(
            f"config.model.encoder.reads is {config.model.encoder.reads}; expected (), for the "
            "peers read all inputs at once. Leave out --peers."
        )
    batch = data.build_data(**config.data.to_dict() | {"batch_size": 1}).zero_batch()
    return list(summary.describe_model(config, batch)["input"].values())


def report(result: dict[str, Any]) -> None:
    """Prints the figures as a table, and what was not equal."""
    measured = {name: row for name, row in result["workers"].items() if "error" not in row}
    ours = measured[OURS]["median_seconds"]
    rows = {
        "compile, s": ("compile_seconds", command.number),
        "step, s": ("step_seconds", command.median),
        "  quartiles": ("step_seconds", command.spread),
        "  times ours": ("median_seconds", lambda x: f"{x / ours:.2f}"),
        "examples/s": ("examples_per_second", command.number),
        "peak memory, MB": ("peak_megabytes", command.number),
        "temporaries, MB": ("temporary_megabytes", command.number),
        "GFLOP by the paper": ("model_flops", _giga),
        "  of the peak rate": ("model_flops_utilization", _share),
        "GFLOP, executed": ("executed_flops", _giga),
        "  of the peak rate ": ("executed_flops_utilization", _share),
        "parameters": ("parameters", "{:,}".format),
    }
    names = [name.rpartition("/")[2] for name in measured]  # Of files, without the directory.
    cells = [
        (label, *(show(facts[key]) for facts in measured.values()))
        for label, (key, show) in rows.items()
    ]
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
