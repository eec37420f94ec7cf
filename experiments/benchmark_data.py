"""Measures how fast examples are read: decoding and augmentation, workers, other libraries.

    python -m experiments.benchmark_data --config=experiments/configs/imagenet.py \
        [--workers=0,1,2] [--peers=torchvision,albumentations,tf.data] [--peer_python=PYTHON] \
        [--source=DIR] [--records=DIR] [--rounds=5] [--examples=64] [--json=FILE]
    python -m experiments.benchmark_data --all
    python -m experiments.benchmark_data --config=experiments/configs/imagenet.py:mini --wait
    python -m experiments.benchmark_data --config=experiments/configs/imagenet.py:mini --memory

Needs no data set: records of the real size are made (see `benchmark_records`), their pictures those
of `--source` if it is given. Figures per core are examples per second of CPU time of all threads,
which other programs on the machine disturb little; peers, each in a process of its own, take turns
with ours. `--wait` trains the config itself for 300 steps, `--memory` reads 10,000 batches of it.
"""

import argparse
from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import json
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

import ml_collections
import rich.console
import rich.table

from experiments import arguments, benchmark_protocol

CONFIGS = ("imagenet.py", "audioset.py", "audioset.py:av_mel", "modelnet40.py")
PICTURE_PEERS = ("torchvision", "torchvision_usual", "albumentations", "tf.data")
CLIP_PEERS = ("pyav",)
WAIT_STEPS = 300
MEMORY_BATCHES = 10_000
_RECORDS = {"image": "pictures", "audio": "clips", "video": "clips", "points": "clouds"}
_BATCH_SIZE = 8


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        "python -m experiments.benchmark_data", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--workers", default="0,1,2", help="numbers of processes that decode")
    parser.add_argument("--peers", default="", help=f"of {','.join(PICTURE_PEERS + CLIP_PEERS)}")
    parser.add_argument("--peer_python", default=".venv-peers/bin/python", metavar="PYTHON")
    parser.add_argument("--source", type=pathlib.Path, metavar="DIR", help="JPEG files to use")
    parser.add_argument(
        "--records", type=pathlib.Path, metavar="DIR", help="where records are kept"
    )
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many is given")
    parser.add_argument("--examples", type=int, default=64, help="examples of a round")
    parser.add_argument("--wait", action="store_true", help="train, and time the wait for data")
    parser.add_argument("--memory", action="store_true", help=f"of {MEMORY_BATCHES:,} batches")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write the figures")
    argv = list(argv)
    names = [""]
    if "--all" in argv:
        argv.remove("--all")
        names = [f"--config=experiments/configs/{name}" for name in CONFIGS]
    console = rich.console.Console()
    results = []
    with arguments.user_errors_end_the_program():
        for name in names:
            flags, config = arguments.parse_command_line(parser, [*argv, *filter(None, [name])])
            results.append(run(flags, config))
            print_result(console, results[-1])
        if flags.json:
            flags.json.write_text(json.dumps(results, indent=2) + "\n")


def run(flags: argparse.Namespace, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Does what the flags say with one config; returns JSON values."""
    peers = _names("peers", flags.peers, PICTURE_PEERS + CLIP_PEERS)
    workers = [int(n) for n in _names("workers", flags.workers, list(map(str, range(129))))]
    for name in ("rounds", "examples"):
        if getattr(flags, name) < 1:
            raise arguments.UsageError(
                f"Got --{name}={getattr(flags, name)}; expected 1 or more. Give a larger number."
            )
    if flags.wait or flags.memory:
        measured = {"wait": wait(config)} if flags.wait else {"memory": memory(config)}
        return {"experiment": config.experiment, **measured}
    with contextlib.ExitStack() as stack:
        directory = flags.records or stack.enter_context(tempfile.TemporaryDirectory())
        return measure(config, pathlib.Path(directory), flags, workers, peers)


def measure(
    config: ml_collections.ConfigDict,
    directory: pathlib.Path,
    flags: argparse.Namespace,
    workers: Sequence[int],
    peers: Sequence[str],
) -> dict[str, Any]:
    """Measures reading, alone and beside peers.

    Args:
      config: its modalities are read, from records of the real size.
      directory: where these are, or go.
      flags: those of the command.
      workers: numbers of worker processes.
      peers: keys of `benchmark_data_peers.PEERS`.

    Returns:
      `ms`, CPU milliseconds an example; `workers`, examples a wall-clock second by number;
      `peers`, each with `ms`, `ratio` (to ours, the median of rounds) and `versions`, or `missing`.
    """
    # Here, for they take a second.
    import numpy as np

    from experiments import benchmark_records
    from perceiver_jax import data as data_lib

    kinds = data_lib.build_data(**config.data).inputs.values()
    records = {_RECORDS[modality.feature] for modality in kinds}
    if len(records) > 1:
        raise arguments.UsageError(
            f"{config.experiment} reads {sorted(records)}; expected one kind of records."
        )
    (kind,) = records
    name = benchmark_records.write_records(kind, directory, flags.source)
    here = {"dataset": name, "data_dir": str(directory), "train_split": "train"}
    plain = {"test_split": "train", "batch_size": _BATCH_SIZE, "num_workers": 0}
    data = data_lib.build_data(**config.data.to_dict() | here | plain)
    indices = np.arange(flags.examples) % data.num_train

    def ours(augmented: bool) -> Callable[[], float]:
        def read() -> float:
            begin = time.process_time()
            data.read_train(indices, 0, augmented)
            return time.process_time() - begin

        return read

    subjects = {"decoded": ours(augmented=False), "augmented": ours(augmented=True)}
    missing, versions = {}, {}
    with contextlib.ExitStack() as stack:
        for peer in peers:
            settings = {
                "peer": peer,
                "modalities": config.data.modalities.to_dict(),
                "directory": str(benchmark_records.write_files(kind, directory, flags.source)),
                "examples": flags.examples,
            }
            try:
                subject = benchmark_protocol.Subject(
                    flags.peer_python, "experiments.benchmark_data_peers", settings
                )
                stack.callback(subject.close)
                versions[peer] = subject.receive()["versions"]
            except (OSError, benchmark_protocol.SubjectError) as error:
                missing[peer] = str(error)
            else:
                subjects[peer] = lambda subject=subject: subject.ask("read")["cpu_seconds"]
        for subject in subjects.values():
            subject()  # Fills caches.
        rounds = [{name: read() for name, read in subjects.items()} for _ in range(flags.rounds)]
    ms = {
        name: 1e3 / flags.examples * statistics.median(r[name] for r in rounds) for name in subjects
    }
    return {
        "experiment": config.experiment,
        "records": str(flags.source or "synthetic"),
        "ms": {"decoded": ms["decoded"], "augmented": ms["augmented"]},
        "workers": {n: _throughput(data, n, flags.examples * 4) for n in workers},
        "peers": {
            peer: {"missing": missing[peer]}
            if peer in missing
            else {
                "ms": ms[peer],
                "ratio": statistics.median(r[peer] / r["augmented"] for r in rounds),
                "versions": versions[peer],
            }
            for peer in peers
        },
    }


def wait(config: ml_collections.ConfigDict) -> dict[str, float]:
    """Trains a config for some steps and times how long the loop waits for the next batch.

    The wait is all the time in `next`, also where the device was still busy with a step.

    Returns:
      `share` of the time of all steps, and `step_ms`.
    """
    from experiments import train
    from perceiver_jax.data import batches as batches_lib
    from perceiver_jax.training import preemption

    waits, original = [], batches_lib.Batches.__next__

    def timed(batches: Any) -> Any:
        begin = time.perf_counter()
        batch = original(batches)
        waits.append((begin, time.perf_counter()))
        return batch

    config = config.copy_and_resolve_references()
    never = WAIT_STEPS + 1
    config.train.update(
        steps=WAIT_STEPS, eval_every=never, checkpoint_every=never, log_every=WAIT_STEPS
    )
    batches_lib.Batches.__next__ = timed
    try:
        with tempfile.TemporaryDirectory() as workdir:
            with preemption.Preemption() as signals:
                train.train(config, pathlib.Path(workdir), signals)
    finally:
        batches_lib.Batches.__next__ = original
    waits = waits[WAIT_STEPS // 4 : WAIT_STEPS]  # The first comes before compilation.
    total = waits[-1][1] - waits[0][1]
    waited = sum(end - begin for begin, end in waits[1:])
    return {"share": waited / total, "step_ms": 1e3 * total / (len(waits) - 1)}


def memory(config: ml_collections.ConfigDict) -> dict[str, float]:
    """Reads batches of a config; returns megabytes in use after so many of them, by number."""
    from perceiver_jax import data as data_lib

    data = data_lib.build_data(**config.data)
    data, sizes = dataclasses.replace(data, batch_size=_BATCH_SIZE, num_workers=0), {}
    with contextlib.closing(data.train_batches(config.seed)) as batches:
        for i in range(1, MEMORY_BATCHES + 1):
            next(batches)
            if i in (1, 10, 100, 1_000) or i % 2_500 == 0:
                sizes[i] = benchmark_protocol.resident("VmRSS")
    return sizes


def print_result(console: rich.console.Console, result: dict[str, Any]) -> None:
    """Prints what `run` returned as tables."""
    if "wait" in result:
        wait_ = result["wait"]
        console.print(
            f"{result['experiment']}: {100 * wait_['share']:.1f} % of {wait_['step_ms']:.1f} ms "
            "a step is waiting for data",
            highlight=False,
        )
        return
    if "memory" in result:
        table = rich.table.Table("batches", "MB", title=result["experiment"], title_justify="left")
        for batches, size in result["memory"].items():
            table.add_row(f"{batches:,}", f"{size:.0f}")
        console.print(table)
        return
    title = f"{result['experiment']}, {result['records']} records"
    table = rich.table.Table("", "CPU ms", "examples/s per core", "", title=title)
    ms = result["ms"]
    table.add_row("decoded", f"{ms['decoded']:.2f}", f"{1e3 / ms['decoded']:.1f}", "")
    table.add_row("augmentation", f"{ms['augmented'] - ms['decoded']:.2f}", "", "the difference")
    table.add_row("training examples", f"{ms['augmented']:.2f}", f"{1e3 / ms['augmented']:.1f}", "")
    for peer, row in result["peers"].items():
        if "missing" in row:
            table.add_row(peer, "", "", f"missing: {row['missing']}")
            continue
        used = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        speed = f"{1e3 / row['ms']:.1f}"
        table.add_row(peer, f"{row['ms']:.2f}", speed, f"ours is {row['ratio']:.2f} x ({used})")
    for number, speed in result["workers"].items():
        table.add_row(f"{number} workers", "", f"{speed:.1f} in all", "by the clock")
    console.print(table)


def _throughput(data: Any, num_workers: int, num_examples: int) -> float:
    """Examples a second by the clock, of the whole pipeline."""
    data = dataclasses.replace(data, num_workers=num_workers)
    with contextlib.closing(data.train_batches(0)) as batches:
        for _ in range(2 + 3 * num_workers):
            next(batches)  # Workers start, buffers fill.
        begin = time.perf_counter()
        for _ in range(num_examples // _BATCH_SIZE + 1):
            next(batches)
        return (num_examples // _BATCH_SIZE + 1) * _BATCH_SIZE / (time.perf_counter() - begin)


def _names(flag: str, text: str, known: Sequence[str]) -> list[str]:
    names = list(filter(None, text.split(",")))
    for name in names:
        if name not in known:
            shown = known if len(known) < 20 else [known[0], "...", known[-1]]
            raise arguments.UsageError(
                f"Unknown --{flag} {name!r}; expected some of {', '.join(shown)}, separated by "
                "commas."
            )
    return names


if __name__ == "__main__":
    main(sys.argv[1:])
