r"""Measures how fast examples are read, decoded and augmented.

    python -m experiments.benchmarks.data --config=experiments/configs/imagenet.py \
        [--source=DIR] [--repeats=5] [--examples=64] [--json=FILE]
    python -m experiments.benchmarks.data --config=experiments/configs/imagenet.py:mini --wait
    python -m experiments.benchmarks.data --config=experiments/configs/imagenet.py:mini --memory

Needs no data set: records of the real size are made (see `records`), their images those of
`--source` if it is given. Figures per core are examples per second of CPU time of all threads,
which other programs on the machine disturb little. `--wait` trains the config itself for 300 steps,
`--memory` reads 10,000 batches of it.
"""

import argparse
import contextlib
import dataclasses
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

import ml_collections

from experiments import cli
from experiments.benchmarks import command, protocol
import perceiver_jax
from perceiver_jax import config as config_lib

WAIT_STEPS = 300
MEMORY_BATCHES = 10_000
_RECORDS = {"image": "images", "audio": "clips", "video": "clips"}
_BATCH_SIZE = 8


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = command.make_parser("data", __doc__, repeats=5)
    parser.add_argument("--source", type=pathlib.Path, metavar="DIR", help="JPEG files to use")
    parser.add_argument(
        "--examples", type=command.positive, default=64, help="that are read before the next repeat"
    )
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--wait", action="store_true", help="train, and time the wait for data")
    kinds.add_argument("--memory", action="store_true", help=f"of {MEMORY_BATCHES:,} batches")
    with cli.user_errors_end_the_program():
        flags, config = cli.parse_command_line(parser, argv)
        measure = measure_wait if flags.wait else measure_memory if flags.memory else measure_speed
        result = measure(config, flags)
        command.write(result, flags.json)
    rows = [(name, *map(command.number, values)) for name, values in result.items()]
    command.print_table(HEADS[measure], rows, config.experiment)


def measure_speed(
    config: ml_collections.ConfigDict, flags: argparse.Namespace
) -> dict[str, tuple[float, float]]:
    """Reads records of the real size; returns CPU ms an example and examples per second."""
    # Here, for they take a second.
    import numpy as np

    from experiments.benchmarks import records
    from perceiver_jax import data as data_lib

    features = {field.feature for field in data_lib.build_data(**config.data).inputs.values()}
    kinds = {_RECORDS.get(feature) for feature in features}
    if len(kinds) > 1 or None in kinds:
        raise config_lib.UserError(
            f"{config.experiment} reads {sorted(features)}; expected one of {sorted(_RECORDS)}, or "
            "audio and video. Choose another config, or --wait."
        )
    with tempfile.TemporaryDirectory() as directory:
        name = records.write_records(*kinds, directory, flags.source)
        here = {"dataset": name, "data_dir": directory, "train_split": "train"}
        plain = {"test_split": "train", "batch_size": _BATCH_SIZE, "num_workers": 0}
        data = data_lib.build_data(**config.data.to_dict() | here | plain)
        indices = np.arange(flags.examples) % data.num_train
        seconds = {"decoded, a core": [], "augmented, a core": []}
        for _ in range(1 + flags.repeats):
            for kind, times in seconds.items():
                begin = time.process_time()
                data.read_train(indices, 0, kind.startswith("augmented"))
                times.append((time.process_time() - begin) / flags.examples)
    each = {kind: statistics.median(times[1:]) for kind, times in seconds.items()}
    return {kind: (1e3 * x, 1 / x) for kind, x in each.items()}  # The first fills caches.


def measure_wait(
    config: ml_collections.ConfigDict, flags: argparse.Namespace
) -> dict[str, tuple[float]]:
    """Trains a config for some steps and times how long the loop waits for the next batch.

    The wait is all the time in `next`, also where the device was still busy with a step.
    """
    from perceiver_jax.data import examples

    del flags
    waits, original = [], examples.Batches.__next__

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
    examples.Batches.__next__ = timed
    try:
        with tempfile.TemporaryDirectory() as workdir:
            perceiver_jax.train(config, pathlib.Path(workdir))
    finally:
        examples.Batches.__next__ = original
    waits = waits[WAIT_STEPS // 4 : WAIT_STEPS]  # The first comes before compilation.
    total = waits[-1][1] - waits[0][1]
    waited = sum(end - begin for begin, end in waits[1:])
    return {"a step, ms": (1e3 * total / (len(waits) - 1),), "waits, %": (100 * waited / total,)}


def measure_memory(
    config: ml_collections.ConfigDict, flags: argparse.Namespace
) -> dict[str, tuple[float | None]]:
    """Reads batches of a config; returns megabytes in use after so many of them."""
    from perceiver_jax import data as data_lib

    del flags
    data = data_lib.build_data(**config.data)
    data, sizes = dataclasses.replace(data, batch_size=_BATCH_SIZE, num_workers=0), {}
    with contextlib.closing(data.train_batches(config.seed)) as batches:
        for i in range(1, MEMORY_BATCHES + 1):
            next(batches)
            if i in (1, 10, 100, 1_000) or i % 2_500 == 0:
                sizes[f"{i:,}"] = (protocol.resident("VmRSS"),)
    return sizes


HEADS = {
    measure_speed: ("", "CPU ms", "examples/s"),
    measure_wait: ("training", ""),
    measure_memory: ("batches", "MB"),
}


if __name__ == "__main__":
    main(sys.argv[1:])
