r"""Writes a model as a folder that runs elsewhere, without this package and without Haiku.

    python -m experiments.export --workdir=WHAT --output=FOLDER [--onnx] [--examples FILE ...]
        [--static_demo=npm|ONNXRUNTIME_WEB]

The folder has programs for CPUs, CUDA and TPUs and any batch size (StableHLO), the weights
(safetensors), how inputs are prepared and what classes are called (JSON), and a README with a
program that runs it. `perceiver_jax.load_pretrained` and the other commands open it as well.

With `--onnx` there is an ONNX file, too; of a model that can't have one it says why, and exits with
1. With `--static_demo`, FOLDER/demo is a page, for any web host, that runs the ONNX file in the
visitor's browser by onnxruntime-web: from a folder, or fetched by npm.
"""

import pathlib
import sys

from experiments import cli


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = cli.Parser("python -m experiments.export", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="WHAT",
        help="a training run's workdir, a folder of weights, a released name or an exported folder",
    )
    parser.add_argument("--output", type=pathlib.Path, required=True, help="a new folder")
    parser.add_argument("--onnx", action="store_true", help="write model.onnx as well")
    parser.add_argument(
        "--examples",
        nargs="+",
        default=(),
        metavar="FILE",
        help="files that visitors of the demo, or of serve --demo, can choose",
    )
    parser.add_argument(
        "--static_demo",
        metavar="npm|FOLDER",
        help="write a page that runs the model in a browser; onnxruntime-web is fetched by npm, or "
        "is in FOLDER, such as node_modules/onnxruntime-web",
    )
    with cli.user_errors_end_the_program():
        flags = parser.parse_args(argv)
        cli.check_place("output", flags.output, may_be_there=False)
        from perceiver_jax import exporting  # Here, for they take seconds.
        from perceiver_jax.pretrained import load

        problem = exporting.export(
            load.load_pretrained(flags.workdir),
            flags.output,
            onnx=flags.onnx,
            examples=flags.examples,
            static_demo=flags.static_demo,
        )
    print(f"wrote {flags.output}")
    if flags.static_demo and not problem:
        print(f"the demo: python -m http.server -d {flags.output}/demo, then http://localhost:8000")
    if problem:
        sys.exit(f"There is no ONNX file{' and no demo' * bool(flags.static_demo)}: {problem}")


if __name__ == "__main__":
    main(sys.argv[1:])
