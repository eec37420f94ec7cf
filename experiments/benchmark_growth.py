r"""Measures how time and memory of a training step grow with the number of inputs.

    python -m experiments.benchmark_growth [--out=DIR] [--largest=1048576] \
        [--peers=plain,hf,perceiver_pytorch] [--peer_python=PYTHON]

One example of M inputs of 32 channels, M from 1,024 on in steps of four, for a Perceiver of 256
latents of 256 channels (one cross-attend, two self-attends), in float32. Each measurement has a
process of its own. Writes `growth.json` and `growth.png`; prints the exponent of the time's growth
over the last three sizes.
"""

import argparse
import json
import pathlib
import statistics
import sys
from typing import Any

import ml_collections
import numpy as np

from experiments import arguments, benchmark, benchmark_protocol
import perceiver_jax

NUM_CHANNELS = 32
_SMALLEST, _FACTOR, _REPEATS = 1024, 4, 3
_FITTED = 3  # Sizes that the exponent is of.


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        "python -m experiments.benchmark_growth", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/growth"))
    parser.add_argument("--largest", type=int, default=2**20, help="inputs")
    parser.add_argument("--peers", default="", help=f"of {','.join(benchmark.PEERS)}")
    parser.add_argument("--peer_python", default=".venv-peers/bin/python", metavar="PYTHON")
    flags = parser.parse_args(argv)
    with arguments.user_errors_end_the_program():
        names = (benchmark.OURS, *benchmark.parse_peers(flags.peers))
        result = {name: _measure(name, flags.largest, flags.peer_python) for name in names}
    flags.out.mkdir(parents=True, exist_ok=True)
    (flags.out / "growth.json").write_text(json.dumps(result, indent=2) + "\n")
    _plot(result, flags.out / "growth.png")
    for name, rows in result.items():
        good = [row for row in rows if "seconds" in row][-_FITTED:]
        if len(good) > 1:
            x, y = (np.log([row[key] for row in good]) for key in ("inputs", "seconds"))
            print(f"{name}: time grows as M^{np.polyfit(x, y, 1)[0]:.2f}")
    print(f"wrote {flags.out / 'growth.json'} and {flags.out / 'growth.png'}")


def get_config() -> ml_collections.ConfigDict:
    """The model and training of every measurement."""
    layers = perceiver_jax.make_layers(num_cross_attends=1, num_latent_transformers=1)
    return ml_collections.ConfigDict(
        {
            "model": {
                "num_classes": 10,
                "inputs": {"inputs": {"kind": "array"}},
                "encoder": {
                    "num_latents": 256,
                    "latent_channels": 256,
                    "layers": layers,
                    "num_self_attends": 2,
                    "num_self_attend_heads": 8,
                    "streaming": True,
                    "scan": True,
                    "remat": False,
                },
                "dtype": "float32",
            },
            "optimizer": benchmark.ADAM,
            "train": {
                "steps": 1,
                "loss": "softmax",
                "label_smoothing": 0.0,
                "ema_decay": 0.0,
                "parallelism": "pmap",
                "accumulate_steps": 1,
            },
        }
    )


def _measure(name: str, largest: int, peer_python: str) -> list[dict[str, Any]]:
    """Measures a subject at growing sizes until it fails."""
    rows, num_inputs = [], _SMALLEST
    while num_inputs <= largest:
        row = {"inputs": num_inputs}
        rows.append(row)
        try:
            subject, facts = _start(name, num_inputs, peer_python)
            subject.ask("step")
            times = [subject.ask("step")["seconds"] for _ in range(_REPEATS)]
            row |= {
                "seconds": statistics.median(times),
                "peak_megabytes": subject.ask("memory")["megabytes"],
                "temporary_megabytes": facts["temporary_megabytes"],
            }
            subject.close()
        except (benchmark_protocol.SubjectError, BrokenPipeError) as error:
            row["error"] = str(error)
            print(f"{name} at {num_inputs:,} inputs: {error}")
            break
        print(f"{name} at {num_inputs:,} inputs: {row['seconds']:.3g} s, {_memory(row)}")
        num_inputs *= _FACTOR
    return rows


def _start(name: str, num_inputs: int, peer_python: str):
    config = get_config()
    common = {"mode": "train", "batch_size": 1}
    if name in benchmark.TORCH_PEERS:
        sizes = benchmark.sizes(config, num_inputs, NUM_CHANNELS)
        settings = {"peer": name, "sizes": sizes} | common
        subject = benchmark.start_peer(peer_python, settings)
    else:
        config = benchmark.plain(config) if name == "plain" else config
        size = {"num_inputs": num_inputs, "num_channels": NUM_CHANNELS}
        settings = {"config": config.to_dict()} | size | common
        subject = benchmark.start_ours(settings)
    return subject, subject.receive()


def _memory(row: dict[str, Any]) -> str:
    return "memory unknown" if row["peak_megabytes"] is None else f"{row['peak_megabytes']:,.0f} MB"


def _plot(result: dict[str, list[dict[str, Any]]], path: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, rows in result.items():
        good = [row for row in rows if row.get("peak_megabytes") is not None]
        sizes = [row["inputs"] for row in good]
        axes[0].plot(sizes, [row["seconds"] for row in good], "o-", label=name)
        axes[1].plot(sizes, [row["peak_megabytes"] for row in good], "o-", label=name)
    for axis, label in zip(axes, ("seconds a training step", "peak memory, MB"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="inputs M", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main(sys.argv[1:])
