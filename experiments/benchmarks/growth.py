r"""Measures how time and memory of a training step grow with the number of inputs.

    python -m experiments.benchmarks.growth [--json=FILE] [--largest=1048576] \
        [--peers=plain,hf,perceiver_pytorch] [--peer_python=PYTHON]

One example of M inputs of 32 channels, M from 1,024 on in steps of four, for a Perceiver of 256
latents of 256 channels (one cross-attend, two self-attends), in float32. Each measurement has a
process of its own. Writes figures and a picture; prints the exponent of the time's growth over the
last three sizes.
"""

import pathlib
import statistics
import sys
from typing import Any

import ml_collections
import numpy as np

from experiments import cli
from experiments.benchmarks import command, protocol, step
import perceiver_jax
from perceiver_jax import recipes

NUM_CHANNELS = 32
_SMALLEST, _FACTOR = 1024, 4
_FITTED = 3  # Sizes that the exponent is of.


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = command.make_parser("growth", __doc__, repeats=3)
    step.add_peer_flags(parser)
    parser.set_defaults(json=pathlib.Path("runs/growth.json"))
    parser.add_argument("--largest", type=command.positive, default=2**20, help="inputs")
    flags = parser.parse_args(argv)
    with cli.user_errors_end_the_program():
        result = {name: _measure(name, flags) for name in (step.OURS, *flags.peers)}
        command.write(result, flags.json)
        picture = flags.json.with_suffix(".png")
        _plot(result, picture)
    for name, rows in result.items():
        good = [row for row in rows if "seconds" in row][-_FITTED:]
        if len(good) > 1:
            x, y = (np.log([row[key] for row in good]) for key in ("inputs", "seconds"))
            print(f"{name}: time grows as M^{np.polyfit(x, y, 1)[0]:.2f}")
    print(f"wrote {flags.json} and {picture}")


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


def _measure(name: str, flags: Any) -> list[dict[str, Any]]:
    """Measures a worker at growing sizes until it fails."""
    config = step.plain(get_config()) if name == "plain" else get_config()
    rows, num_inputs = [], _SMALLEST
    while num_inputs <= flags.largest:
        row = {"inputs": num_inputs}
        rows.append(row)
        try:
            settings = {"mode": "train", "batch_size": 1, "tokens": [num_inputs, NUM_CHANNELS]}
            worker = step.start(name, config, flags.peer_python, settings)
            facts = worker.receive()
            worker.ask("step")
            times = [worker.ask("step")["seconds"] for _ in range(flags.repeats)]
            row |= {
                "seconds": statistics.median(times),
                "peak_megabytes": worker.ask("memory")["megabytes"],
                "temporary_megabytes": facts["temporary_megabytes"],
            }
            worker.close()
        except (protocol.WorkerError, BrokenPipeError) as error:
            row["error"] = str(error)
            print(f"{name} at {num_inputs:,} inputs: {error}")
            break
        memory = command.number(row["peak_megabytes"])
        print(f"{name} at {num_inputs:,} inputs: {row['seconds']:.3g} s, {memory} MB")
        num_inputs *= _FACTOR
    return rows


def _plot(result: dict[str, list[dict[str, Any]]], path: pathlib.Path) -> None:
    import matplotlib.figure  # Here, for it takes a second.

    figure = matplotlib.figure.Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    labels = {"seconds": "seconds a training step", "peak_megabytes": "peak memory, MB"}
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
