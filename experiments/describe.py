"""Prints what a config builds: inputs, weights and where they are used, size, cost, every key.

    python -m experiments.describe --config=experiments/configs/imagenet.py [--json]

Nothing is compiled, and the data set need not be there.
"""

import json
import sys
from typing import Any

import rich.console
import rich.table
import rich.text

from experiments import cli
from perceiver_jax import config_file


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = cli.Parser("python -m experiments.describe", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="for scripts")
    with cli.user_errors_end_the_program():
        flags, config = cli.parse_command_line(parser, argv)
        from perceiver_jax import data, summary  # Here, for they take a second.

        batch = data.build_data(**config.data.to_dict() | {"batch_size": 1}).zero_batch()
        described = summary.describe_model(config, batch)
        described["activation_bytes"] = summary.activation_bytes(config, batch)
        described["config"] = config_file.flatten(config)
    if flags.json:
        print(json.dumps(described, indent=2))
    else:
        _print(described)


def _print(described: dict[str, Any]) -> None:
    from perceiver_jax import summary

    console = rich.console.Console()
    title = rich.text.Text(described["experiment"])
    inputs = rich.table.Table("input", "M", "C", title=title, title_justify="left")
    for name, size in described["inputs"].items():
        inputs.add_row(rich.text.Text(name), f"{size['number']:,}", str(size["channels"]))
    if len(described["inputs"]) > 1 and described["input"]:
        inputs.add_row("together", *(f"{n:,}" for n in described["input"].values()), style="bold")

    weights = rich.table.Table("weights", "parameters", "used by layers", "reading")
    for name, row in described["weights"].items():
        reads = dict.fromkeys(filter(None, (described["reads"][i] for i in row["layers"])))
        layers = ", ".join(map(str, row["layers"]))
        reads = rich.text.Text(", ".join(reads))  # Brackets are no markup.
        weights.add_row(name, f"{row['parameters']:,}", layers, reads)
    weights.add_row("all", f"{described['parameters']:,}", style="bold")

    cost = rich.table.Table("cost of one example", "")
    for name, count in described["flops"].items():
        label = {"paper": "as the paper counts", "executed": "as executed"}[name]
        cost.add_row(f"forward pass, {label}", f"{summary.format_count(count)}FLOP")
    for dtype, size in described["activation_bytes"].items():
        cost.add_row(f"kept for the backward pass, {dtype}", f"{summary.format_count(size)}B")
    for table in (inputs, weights, cost):
        for column in table.columns[1:]:
            column.justify = "right"
        console.print(table)
    latents = described["latents"]
    console.print(f"latents: {latents['number']} x {latents['channels']}\n", highlight=False)
    for key, value in described["config"].items():  # As they are typed, to be copied.
        print(f"--config.{key}={value}")


if __name__ == "__main__":
    main(sys.argv[1:])
