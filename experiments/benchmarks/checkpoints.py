"""Measures what saving costs, as a part of the time of training.

    python -m experiments.benchmarks.checkpoints --config=experiments/configs/audioset.py:mini

One process takes turns: a block of steps with a save at its begin, and one without. The save's
writing in the background is in the block's time, and so is waiting for its end. Processor time is
given, too, which other programs on the machine disturb less. No data set is needed: the inputs are
noise.
"""

import pathlib
import statistics
import sys
import tempfile
import time

import ml_collections

from experiments import cli
from experiments.benchmarks import command


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = command.make_parser("checkpoints", __doc__, repeats=5)
    parser.add_argument("--block", type=command.positive, default=20, help="steps of a block")
    parser.add_argument(
        "--every", type=command.positive, default=100, help="steps between saves, to report"
    )
    parser.add_argument(
        "--directory", type=pathlib.Path, help="where checkpoints go; default: a temporary one"
    )
    with cli.user_errors_end_the_program():
        flags, config = cli.parse_command_line(parser, argv)
        with tempfile.TemporaryDirectory(dir=flags.directory) as directory:
            place = pathlib.Path(directory)
            result = measure(config, place, flags.block, flags.repeats)
        command.write(result, flags.json)
    for clock, turns in result["seconds"].items():
        step = statistics.median(turns["without"]) / flags.block
        costs = [b - a for a, b in zip(turns["without"], turns["with"], strict=True)]
        cost = statistics.median(costs)
        print(
            f"{clock} time: a step {step:.4f} s, a save of {result['bytes'] / 1e6:.1f} MB "
            f"{cost:.3f} s more ({min(costs):.3f} to {max(costs):.3f} in {flags.repeats} turns of "
            f"{flags.block} steps): {100 * cost / (flags.every * step):.2f} % with a save every "
            f"{flags.every} steps"
        )


def measure(
    config: ml_collections.ConfigDict, directory: pathlib.Path, block: int, turns: int
) -> dict:
    """Trains on noise; returns seconds of the blocks, by clock and kind, and a checkpoint's bytes.

    Args:
      config: what to train.
      directory: where checkpoints go.
      block: steps of a turn.
      turns: how many of each kind.
    """
    # Here, for they take seconds.
    import jax

    from experiments.benchmarks import worker
    import perceiver_jax
    from perceiver_jax.training import checkpoints, devices

    keys = config.train
    batch = worker.make_noise(config, config.data.batch_size)
    params = jax.jit(perceiver_jax.build_model(config.model).init)(jax.random.key(0), batch)
    training = worker.make_training_step(config, params, batch)
    held, *rest = training.arguments
    step, fetch = training.compile(), devices.build_sharding(keys.parallelism).fetch_state
    clocks = {"elapsed": time.perf_counter, "processor": time.process_time}
    seconds = {clock: {"without": [], "with": []} for clock in clocks}
    with checkpoints.Checkpointer(directory / "checkpoints", keys.max_checkpoints) as checkpointer:
        for turn in range(-1, turns):  # The first warms up.
            for kind in ("without", "with"):
                jax.block_until_ready(held)
                begin = {clock: now() for clock, now in clocks.items()}
                if kind == "with":
                    host_state = fetch(held)
                    checkpointer.save(host_state, {}, {"config": config.to_dict()})
                for _ in range(block):
                    held, _ = step(held, *rest)
                jax.block_until_ready(held)
                checkpointer.wait()
                if turn >= 0:
                    for clock, now in clocks.items():
                        seconds[clock][kind].append(now() - begin[clock])
    return {"seconds": seconds, "bytes": sum(x.nbytes for x in jax.tree.leaves(host_state))}


if __name__ == "__main__":
    main(sys.argv[1:])
