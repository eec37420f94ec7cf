r"""Measures a config's training or inference step, beside our plain forms and other projects.

    python -m experiments.benchmark --config=experiments/configs/imagenet.py:cross_attends=1 \
        [--batch_size=1] [--mode=train|inference] [--repeats=5] [--json=FILE] \
        [--compare=FILE:ARGUMENTS ...] [--peer_python=PYTHON] \
        [--peers=plain,hf,hf_compile,perceiver_pytorch,flash_perceiver]

Every subject runs in a process of its own and takes turns with the others, two steps each, of which
the second is timed, so that all meet the same machine. No data set is needed: the inputs are noise.
`plain` is our own model without its fast forms: keys and values projected, attention not streamed,
layers unrolled. The other peers are PyTorch projects, of the interpreter `--peer_python`, in an
environment of their own, which `make install-peers` makes. Beside them all get the byte array with
its position encodings already made, and optimise with Adam and the softmax loss; what can't be made
equal is printed. `flash_perceiver` needs a CUDA device and `--config.model.dtype=bfloat16`.
"""

import argparse
from collections.abc import Callable, Sequence
import json
import pathlib
import statistics
import sys
import time
from typing import Any

import ml_collections
import numpy as np
import rich.console
import rich.table

from experiments import arguments, benchmark_protocol

TORCH_PEERS = ("hf", "hf_compile", "perceiver_pytorch", "flash_perceiver")
PEERS = ("plain", *TORCH_PEERS)
OURS = "ours"
ADAM = {
    "name": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "schedule": {"name": "constant"},
}
_PAUSE_SECONDS = 0.3  # Between subjects: thread pools spin for a while after their work.
_BACKWARD = 3  # A training step has about three times the operations of a forward pass.


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        "python -m experiments.benchmark", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--mode", choices=("train", "inference"), default="train")
    parser.add_argument("--batch_size", type=int, help="default: the config's")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each subject")
    parser.add_argument("--peers", default="", help=f"of {','.join(PEERS)}; separated by commas")
    parser.add_argument("--peer_python", default=".venv-peers/bin/python", metavar="PYTHON")
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="FILE[:ARGUMENTS]",
        help="also this config, with the same --config.key=value",
    )
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write the figures")
    with arguments.user_errors_end_the_program():
        flags, config = arguments.parse_command_line(parser, argv)
        peers = parse_peers(flags.peers)
        for name in ("batch_size", "repeats"):
            value = getattr(flags, name)
            if value is not None and value < 1:
                raise arguments.UsageError(f"--{name}={value}; expected at least 1.")
        _, overrides = arguments.split_overrides(argv)
        others = {name: arguments.load_config_with(name, overrides) for name in flags.compare}
        batch_size = flags.batch_size or config.data.batch_size
        result = benchmark(
            config, others, peers, flags.peer_python, flags.mode, batch_size, flags.repeats
        )
        report(result)
        if flags.json:
            flags.json.write_text(json.dumps(result, indent=2) + "\n")


def benchmark(
    config: ml_collections.ConfigDict,
    others: dict[str, ml_collections.ConfigDict],
    peers: Sequence[str],
    peer_python: str,
    mode: str,
    batch_size: int,
    repeats: int,
) -> dict[str, Any]:
    """Measures subjects in turns.

    Args:
      config: the config of the subject `ours`, and of the peers.
      others: further configs of ours by name.
      peers: of `PEERS`.
      peer_python: the interpreter that has the PyTorch peers.
      mode: 'train' or 'inference'.
      batch_size: examples a step.
      repeats: timed steps of each subject.

    Returns:
      `subjects`: of each its facts and figures or the `error` that kept it from being measured;
      and what was measured on what.
    """
    configs = {OURS: config} | others | ({"plain": plain(config)} if "plain" in peers else {})
    summaries = {name: _describe(c) for name, c in configs.items()}
    settings = {name: {"config": c.to_dict()} for name, c in configs.items()}
    if any(name in TORCH_PEERS for name in peers):
        settings = {name: _comparable(c, summaries[name]["input"]) for name, c in configs.items()}
    common = {"mode": mode, "batch_size": batch_size}
    subjects, result = {}, {}

    def start(name: str, make: Callable[[], benchmark_protocol.Subject]) -> None:
        print(f"preparing {name} ...", file=sys.stderr)
        try:
            subject = make()
            result[name] = subject.receive()
            subjects[name] = subject
        except benchmark_protocol.SubjectError as error:
            result[name] = {"error": str(error)}

    for name in configs:
        start(name, lambda: start_ours(settings[name] | common))  # noqa: B023
    if OURS not in subjects:
        raise arguments.UsageError(f"The config can't be measured: {result[OURS]['error']}")
    byte_array = summaries[OURS]["input"]
    for name in [name for name in peers if name in TORCH_PEERS]:
        size = sizes(config, byte_array["number"], byte_array["channels"])
        peer = {"peer": name, "sizes": size} | common
        start(name, lambda: start_peer(peer_python, peer))  # noqa: B023

    seconds = {name: [] for name in (*subjects, "peak")}
    for _ in range(1 + repeats):
        for name in (*subjects, "peak"):
            time.sleep(_PAUSE_SECONDS)
            subject = subjects[OURS if name == "peak" else name]
            action = "peak" if name == "peak" else "step"
            try:
                subject.ask(action)  # Memory that was idle for seconds can be slow the first time.
                answer = subject.ask(action)
            except benchmark_protocol.SubjectError as error:  # Such as: out of memory.
                if subject is subjects[OURS]:
                    raise arguments.UsageError(f"Our own step failed: it {error}") from error
                result[name] = {"error": str(error)}
                subjects.pop(name).close()
                del seconds[name]
            else:
                seconds[name].append(answer["seconds"])
    first = {name: steps.pop(0) for name, steps in seconds.items()}
    size = result[OURS]["peak_size"]
    peak = 2 * size**3 / statistics.median(seconds["peak"])
    for name, subject in subjects.items():
        forward = summaries.get(name, summaries[OURS])["flops"]["paper"] * batch_size
        model_flops = forward * (_BACKWARD if mode == "train" else 1)
        median = statistics.median(seconds[name])
        executed = result[name]["executed_flops"]
        if result[name]["compile_seconds"] is None:
            result[name]["compile_seconds"] = max(0.0, first[name] - median)
        result[name] |= {
            "step_seconds": seconds[name],
            "median_seconds": median,
            "examples_per_second": batch_size / median,
            "peak_megabytes": subject.ask("memory")["megabytes"],
            "model_flops": model_flops,
            "model_flops_utilization": model_flops / median / peak,
            "executed_flops_utilization": executed and executed / median / peak,
        }
        subject.close()
    return {
        "config": config.experiment,
        "layers": len(config.model.encoder.layers),
        "dtype": config.model.dtype,
        "optimizer": settings[OURS]["config"]["optimizer"]["name"],
        "peak_flops": peak,
        "subjects": result,
    } | common


def parse_peers(text: str) -> list[str]:
    """Parses names of `PEERS` separated by commas.

    Raises:
      UsageError: if there is no such peer.
    """
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in PEERS:
            raise arguments.UsageError(f"Unknown peer {name!r}; expected some of {list(PEERS)}.")
    return names


def start_ours(settings: dict[str, Any]) -> benchmark_protocol.Subject:
    """Starts `benchmark_jax`."""
    return benchmark_protocol.Subject(sys.executable, "experiments.benchmark_jax", settings)


def start_peer(python: str, settings: dict[str, Any]) -> benchmark_protocol.Subject:
    """Starts `benchmark_peers` in the peers' environment.

    Raises:
      SubjectError: if there is no such environment.
    """
    if not pathlib.Path(python).exists():
        raise benchmark_protocol.SubjectError(
            f"needs {python}, which is not there. Run make install-peers, or name the Python of "
            "another environment with --peer_python"
        )
    # Without KMP_BLOCKTIME, OpenMP's threads would spin beside the next subject.
    return benchmark_protocol.Subject(
        python, "experiments.benchmark_peers", settings, {"KMP_BLOCKTIME": "0"}
    )


def plain(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The same model by its readable reference forms: projected, not streamed, unrolled."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.encoder.update(streaming=False, scan=False, remat=False)
    return config


def sizes(config: ml_collections.ConfigDict, num_inputs: int, num_channels: int) -> dict[str, Any]:
    """What a peer needs to know of a config to build a model of equal size.

    Args:
      config: the config.
      num_inputs: M.
      num_channels: C.
    """
    encoder = config.model.encoder
    layers = list(encoder.layers)
    return {
        "tokens": [num_inputs, num_channels],
        "num_classes": config.model.num_classes,
        "dtype": config.model.dtype,
        "num_latents": encoder.num_latents,
        "latent_channels": encoder.latent_channels,
        "num_self_attends": encoder.num_self_attends,
        "num_self_attend_heads": encoder.num_self_attend_heads,
        "num_cross_attends": sum(name.startswith("cross") for name in layers),
        "num_latent_transformers": sum(name.startswith("latent") for name in layers),
        "num_weight_sets": len(set(layers)),
    }


def report(result: dict[str, Any]) -> None:
    """Prints the figures as a table, and what was not equal."""
    measured = {name: row for name, row in result["subjects"].items() if "error" not in row}
    ours = measured[OURS]["median_seconds"]
    rows = {
        "compile, s": [_number(row["compile_seconds"]) for row in measured.values()],
        "step, s": [_number(row["median_seconds"]) for row in measured.values()],
        "  quartiles": [_quartiles(row["step_seconds"]) for row in measured.values()],
        "  times ours": [f"{row['median_seconds'] / ours:.2f}" for row in measured.values()],
        "examples/s": [_number(row["examples_per_second"]) for row in measured.values()],
        "peak memory, MB": [_number(row["peak_megabytes"]) for row in measured.values()],
        "temporaries, MB": [_number(row["temporary_megabytes"]) for row in measured.values()],
        "GFLOP, as the paper counts": [_giga(row["model_flops"]) for row in measured.values()],
        "  of the peak rate": [_share(row["model_flops_utilization"]) for row in measured.values()],
        "GFLOP, executed": [_giga(row["executed_flops"]) for row in measured.values()],
        "  of the peak rate ": [
            _share(row["executed_flops_utilization"]) for row in measured.values()
        ],
        "parameters": [f"{row['parameters']:,}" for row in measured.values()],
    }
    title = (
        f"{result['config']}, {result['mode']}, batch {result['batch_size']}, {result['dtype']}"
        f"{', ' + result['optimizer'] if result['mode'] == 'train' else ''}"
    )
    names = [name.rpartition("/")[2] for name in measured]  # Of files, without the directory.
    table = rich.table.Table("", *names, title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, cells in rows.items():
        table.add_row(name, *cells)
    rich.console.Console().print(table)
    print(
        f"{measured[OURS]['device']}: {_giga(result['peak_flops'])} GFLOP/s in a {result['dtype']} "
        "matrix product of JAX, measured in the same turns"
    )
    for name, row in result["subjects"].items():
        if "error" in row:
            print(f"{name}: not measured, it {row['error']}")
        for difference in row.get("differences", ()):
            print(f"{name}: {difference}")


def _describe(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """`describe.describe_model` of a config."""
    from experiments import describe
    from perceiver_jax import data as data_lib

    keys = config.data.to_dict() | {"batch_size": 1}
    return describe.describe_model(config, data_lib.build_data(**keys).batch_spec())


def _comparable(config: ml_collections.ConfigDict, byte_array: dict[str, int]) -> dict[str, Any]:
    """Settings with what all peers can do: inputs made ready, Adam and the softmax loss."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.model.inputs = {"inputs": {"kind": "array"}}
        config.model.fusion = None
        config.optimizer = ADAM
        config.train.update(loss="softmax", label_smoothing=0.0, ema_decay=0.0)
    size = {"num_inputs": byte_array["number"], "num_channels": byte_array["channels"]}
    return {"config": config.to_dict()} | size


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _giga(value: float | None) -> str:
    return _number(value and value / 1e9)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _quartiles(seconds: Sequence[float]) -> str:
    return " - ".join(_number(x) for x in np.percentile(seconds, [25, 75]))


if __name__ == "__main__":
    main(sys.argv[1:])
