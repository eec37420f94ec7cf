"""Writes the weights of a run, or of a released model, for other programs.

    python -m experiments.convert --source=DIR --output=FOLDER [--format=port|safetensors]

`port`: config.json, model.safetensors and how inputs are prepared, for Hugging Face's transformers,
which computes the same logits of them; models that it can't compute are refused. `safetensors`: the
parameters by their own names, of every model; `--config.init.source=FOLDER` and
`perceiver_jax.load_pretrained` read them back.
"""

import pathlib
import sys

from experiments import cli

_FORMATS = ("port", "safetensors")


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = cli.Parser("python -m experiments.convert", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--source", required=True, help="a workdir, a file or folder of weights, a released name"
    )
    parser.add_argument("--output", type=pathlib.Path, required=True, help="a new folder")
    parser.add_argument("--format", choices=_FORMATS, default=_FORMATS[0])
    parser.add_argument(
        "--code",
        choices=("authors", "port"),
        help="whose code a released model computes as; see docs/pretrained.md",
    )
    with cli.user_errors_end_the_program():
        flags = parser.parse_args(argv)
        cli.check_place("output", flags.output, may_be_there=False)
        from perceiver_jax.pretrained import load, write  # Here, for they take seconds.

        run = load.load_pretrained(flags.source, code=flags.code)
        writes = {"port": write.write_port, "safetensors": write.write_own}
        notes = writes[flags.format](run, flags.output)
    print(f"wrote {flags.output}", *(notes or ()), sep="\n  ")


if __name__ == "__main__":
    main(sys.argv[1:])
