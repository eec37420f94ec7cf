r"""Measures how time and memory of a training step grow with the number of inputs.

    python -m experiments.benchmarks.growth [--json=FILE] [--largest=1048576] \
        [--peers=plain,hf,perceiver_pytorch] [--peer_python=PYTHON]

One example of M inputs of 32 channels, M from 1,024 on in steps of four, for a Perceiver of 256
latents of 256 channels (one cross-attend, two self-attends), in float32, measured as `step` does.
Writes figures and a picture; prints the exponent of the time's growth over the last three sizes.
"""

import argparse
import pathlib
import sys
from typing import Any

import ml_collections
import numpy as np

from experiments import cli
from experiments.benchmarks import command, step
import perceiver_jax
from perceiver_jax import config as config_lib
from perceiver_jax import recipes

NUM_CHANNELS = 32
_SMALLEST, _FACTOR = 1024, 4
_FITTED = 3  # Sizes that the exponent is of.


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = command.make_parser("growth", __doc__, repeats=3)
    step.add_peer_flags(parser)
    parser.set_defaults(json=pathlib.Path("runs/growth.json"), mode="train", batch_size=1)
    parser.add_argument("--largest", type=command.positive, default=2**20, help="inputs")
    with cli.user_errors_end_the_program():
        flags = parser.parse_args(argv)
        result = measure(flags)
        command.write(result, flags.json)
        picture = flags.json.with_suffix(".png")
        _plot(result, picture)
    for name, rows in result.items():
        good = [row for row in rows if "error" not in row][-_FITTED:]
        if len(good) > 1:
            x, y = (np.log([row[key] for row in good]) for key in ("inputs", "median_seconds"))
            print(f"{name}: time grows as M^{np.polyfit(x, y, 1)[0]:.2f}")
    print(f"wrote {flags.json} and {picture}")


def measure(flags: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Measures workers at growing sizes, each until it fails; returns rows by worker."""
    result = {name: [] for name in (step.OURS, *flags.peers)}
    num_inputs, failed = _SMALLEST, set()
    while num_inputs <= flags.largest and step.OURS not in failed:
        flags.peers = [name for name in flags.peers if name not in failed]
        try:
            rows = step.measure(get_config(), {}, flags, [num_inputs, NUM_CHANNELS])["workers"]
        except config_lib.UserError as error:
            rows = {step.OURS: {"error": str(error)}}
        for name, row in rows.items():
            result[name].append({"inputs": num_inputs} | row)
            failed |= {name} if "error" in row else set()
            print(
                f"{name} at {num_inputs:,} inputs:",
                row.get("error")
                or f"{row['median_seconds']:.3g} s, {command.number(row['peak_megabytes'])} MB",
            )
        num_inputs *= _FACTOR
    return result


def get_config() -> ml_collections.ConfigDict:
    """The model and training of every measurement."""
    config = recipes.recipe(
        "growth",
        dataset="",
        num_classes=10,
        inputs={},
        layers=perceiver_jax.make_layers(num_cross_attends=1, num_latent_transformers=1),
        batch_size=1,
        steps=1,
        eval_every=1,
    )
    config.model.dtype = "float32"
    config.model.encoder.update(num_latents=256, latent_channels=256, num_self_attends=2)
    return step.comparable(config)


def _plot(result: dict[str, list[dict[str, Any]]], path: pathlib.Path) -> None:
    import matplotlib.figure  # Here, for it takes a second.

    figure = matplotlib.figure.Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    labels = {"median_seconds": "seconds a training step", "peak_megabytes": "peak memory, MB"}
    for axis, (key, label) in zip(axes, labels.items(), strict=True):
        for name, rows in result.items():
            good = [row for row in rows if row.get(key) is not None]
            axis.plot(*([row[k] for row in good] for k in ("inputs", key)), "o-", label=name)
        axis.set(xscale="log", yscale="log", xlabel="inputs M", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main(sys.argv[1:])
