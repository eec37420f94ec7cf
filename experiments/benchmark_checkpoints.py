"""Measures what saving costs, as a part of the time of training.

    python -m experiments.benchmark_checkpoints --config=experiments/configs/audioset.py:mini

One process takes turns: a block of steps with a save at its begin, and one without. The save's
writing in the background is in the block's time, and so is waiting for its end. Processor time is
given, too, which other programs on the machine disturb less. No data set is needed: the inputs are
noise.
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
import time

import ml_collections
import rich.console

from experiments import arguments


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        "python -m experiments.benchmark_checkpoints", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--block", type=int, default=20, help="steps of a block")
    parser.add_argument("--turns", type=int, default=5, help="blocks of each kind")
    parser.add_argument("--every", type=int, default=100, help="steps between saves, to report")
    parser.add_argument(
        "--directory", type=pathlib.Path, help="where checkpoints go; default: a temporary one"
    )
    with arguments.user_errors_end_the_program():
        flags, config = arguments.parse_command_line(parser, argv)
        for name in ("block", "turns", "every"):
            if getattr(flags, name) < 1:
                raise arguments.UsageError(f"--{name}={getattr(flags, name)}; expected at least 1.")
        with tempfile.TemporaryDirectory(dir=flags.directory) as directory:
            plain, saving, size = measure(config, pathlib.Path(directory), flags.block, flags.turns)
    console = rich.console.Console(soft_wrap=True, highlight=False)
    for clock, without, with_save in zip(("elapsed", "processor"), plain, saving, strict=True):
        step = statistics.median(without) / flags.block
        costs = [b - a for a, b in zip(without, with_save, strict=True)]
        cost = statistics.median(costs)
        console.print(
            f"{clock} time: a step {step:.4f} s, a save of {size / 1e6:.1f} MB {cost:.3f} s more "
            f"({min(costs):.3f} to {max(costs):.3f} in {flags.turns} turns of {flags.block} steps)"
            f": {100 * cost / (flags.every * step):.2f} % with a save every {flags.every} steps"
        )


def measure(
    config: ml_collections.ConfigDict, directory: pathlib.Path, block: int, turns: int
) -> tuple[tuple[list[float], ...], tuple[list[float], ...], int]:
    """Trains on noise, with and without saves in turns.

    Args:
      config: what to train.
      directory: where checkpoints go.
      block: steps of a turn.
      turns: how many of each kind.

    Returns:
      Seconds of the blocks without a save, elapsed and of the processor; the same with one; and the
      bytes of a checkpoint's state.
    """
    import jax

    import perceiver_jax
    from perceiver_jax import data as data_lib
    from perceiver_jax.data import fake
    from perceiver_jax.training import checkpoints, devices, losses, optimizers, state, steps

    keys = config.train
    data = data_lib.build_data(**config.data)
    model = perceiver_jax.build_model(config.model)
    loss = losses.build_loss(keys.loss, keys.label_smoothing)
    optimizer, schedule = optimizers.build_optimizer(**config.optimizer, total_steps=keys.steps)
    parallelism = devices.build_parallelism(keys.parallelism)
    host_batch = next(fake.fake_batches(data, seed=0))
    batch = parallelism.place_batch(host_batch)
    rng = parallelism.place_key(jax.random.key(1))
    held = parallelism.create_state(
        lambda: state.create_state(
            model.init(jax.random.key(0), data.batch_spec()), optimizer, keys.ema_decay
        )
    )
    update = steps.make_update(
        model.apply,
        loss,
        optimizer,
        schedule,
        ema_decay=keys.ema_decay,
        accumulate_steps=keys.accumulate_steps,
        axis_name=parallelism.axis_name,
    )
    step_fn = parallelism.compile_update(update, held, batch, rng)
    seconds = {saving: ([], []) for saving in (False, True)}
    with checkpoints.Checkpointer(directory / "checkpoints", keys.max_checkpoints) as checkpointer:
        for turn in range(-1, turns):  # The first warms up.
            for saving in (False, True):
                jax.block_until_ready(held)
                begin = time.perf_counter(), time.process_time()
                if saving:
                    host_state = parallelism.fetch_state(held)
                    checkpointer.save(host_state, {}, {"config": config.to_dict()})
                for _ in range(block):
                    held, _ = step_fn(held, batch, rng)
                jax.block_until_ready(held)
                checkpointer.wait()
                if turn >= 0:
                    seconds[saving][0].append(time.perf_counter() - begin[0])
                    seconds[saving][1].append(time.process_time() - begin[1])
    size = sum(x.nbytes for x in jax.tree.leaves(host_state))
    return seconds[False], seconds[True], size


if __name__ == "__main__":
    main(sys.argv[1:])
