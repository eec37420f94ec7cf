"""Evaluates a trained experiment and draws where it is right and wrong.

    python -m experiments.evaluate --workdir=DIR

Reads `config.json` and the newest checkpoint of the workdir; writes there what the task renders:
`confusion.png`, `per_class.png` and `per_class.json` of classes, `predictions.png` and
`per_number.json` of numbers.
"""

import pathlib
import sys

from experiments import cli, compilation_cache
import perceiver_jax
from perceiver_jax import workdir


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = cli.Parser("python -m experiments.evaluate", description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="of a training run")
    compilation_cache.add_flag(parser)
    parser.add_argument(
        "--accept_changes",
        action="store_true",
        help="evaluate on other data than those of the run; see docs/resuming.md",
    )
    cli.add_baseline_flag(parser)
    with cli.user_errors_end_the_program():
        flags = parser.parse_args(argv)
        cli.check_place("workdir", flags.workdir)
        config = workdir.read(flags.workdir)  # Before JAX is imported, which takes seconds.
        compilation_cache.use(flags.compilation_cache, flags.workdir)
        workdir.check_on_disk(flags.workdir, config)
        baseline = cli.fit_baseline(config) if flags.baseline else None
        metrics = perceiver_jax.evaluate(flags.workdir, accept_changes=flags.accept_changes)
        cli.compare(baseline, metrics)


if __name__ == "__main__":
    main(sys.argv[1:])
