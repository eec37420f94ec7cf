"""Predicts what files are, by a model that was trained here or released.

    python -m experiments.predict --workdir=RUN FILES... [--output=predictions.jsonl|csv|parquet]

FILES are files, folders, patterns, or `-` for names on standard input, a line each. A table is
printed; what is no terminal gets JSON Lines. Files that can't be read are said on stderr, a line
each, and the exit code is 1; the others go on. docs/using.md has the rest.
"""

import argparse
from collections.abc import Iterable, Iterator
import contextlib
import itertools
import os
import pathlib
import signal
import sys
from typing import Any

import rich.console
import rich.progress

from experiments import cli, compilation_cache, screen
from perceiver_jax import config as config_lib

_K = 5
_MANY = 32  # Windows that are computed at once, if so many are evaluated at once.
_FEW = 8  # Of weights, of which that is not known.


def main(argv: list[str]) -> None:
    """Runs the command."""
    with cli.user_errors_end_the_program():
        flags = cli.parse_with_files(_parser(), argv)
        with _ending_soon():
            _check(flags)
            sys.exit(predict(flags))


def predict(flags: argparse.Namespace) -> int:
    """Predicts what the flags say; returns the exit code."""
    console = rich.console.Console(stderr=True)
    with _busy(console, "loading the model"):
        # Here, for they take seconds.
        from perceiver_jax import prediction_files, predictions
        from perceiver_jax.pretrained import load

        prediction_files.check_table(flags.output)
        workdir = pathlib.Path(flags.workdir)
        place = workdir if workdir.exists() else pathlib.Path("runs", flags.workdir)
        compilation_cache.use(flags.compilation_cache, place)
        run = load.load_pretrained(flags.workdir)
        options = _options(flags, run)
        outputs = prediction_files.outputs_of(run, options["k"])
        predictions.predict_each(run, [], **options)  # Refuses what doesn't fit the model.
        _check_of_use(flags, run, outputs)
    examples = _examples(flags, run)
    if flags.beam_pipeline_options or flags.part_size:
        return _in_parts(flags, run, options, examples, console)
    total = None
    if flags.examples is None and "-" not in flags.files and not flags.lines:
        examples = list(examples)
        total = len(examples)
    return _at_once(flags, run, outputs, options, examples, total)


def _parser() -> cli.Parser:
    parser = cli.Parser("python -m experiments.predict", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="RUN",
        help="of a training run; or a folder or file of weights, or the name of a released model",
    )
    parser.add_argument(
        "files", nargs="*", metavar="FILES", help="files, folders, patterns; - for names on stdin"
    )
    parser.add_argument(
        "--examples",
        type=pathlib.Path,
        metavar="TABLE",
        help="instead of FILES: a .jsonl or .csv with a value for each input of the model",
    )
    parser.add_argument("--lines", action="store_true", help="each line of a file is a text")
    parser.add_argument(
        "--output", type=pathlib.Path, help="a new .jsonl, .csv or .parquet file for the table"
    )
    parser.add_argument(
        "--output_dir",
        type=pathlib.Path,
        help="a new folder for what is no table: flow, reconstructed clips, arrays",
    )
    parser.add_argument(
        "--embeddings", type=pathlib.Path, help="a new .npz file for the mean of the final latents"
    )
    parser.add_argument(
        "--whole_latents", action="store_true", help="embeddings are all latents, not their mean"
    )
    parser.add_argument("--overwrite", action="store_true", help="begin anew if they are there")
    parser.add_argument("--k", type=int, help=f"how many classes are named (default: {_K})")
    parser.add_argument(
        "--num_windows",
        type=int,
        help="of each clip or cloud, which are averaged (default: as in the run's evaluation)",
    )
    parser.add_argument(
        "--batch_size",
        type=int,
        help="examples that are computed at once (default: of 32 windows, or fewer)",
    )
    parser.add_argument("--up", help="the vertical axis of points: y (default) or z")
    parser.add_argument(
        "--part_size",
        type=int,
        help="write --output in parts of so many examples, and resume if it is given again",
    )
    parser.add_argument(
        "--beam_pipeline_options",
        default="",
        help="have Apache Beam make the parts, such as runner=DataflowRunner,project=...; see "
        "docs/using.md (default: this machine)",
    )
    compilation_cache.add_flag(parser)
    return parser


def _check(flags: argparse.Namespace) -> None:
    """Refuses, before anything takes time, flags that don't fit each other."""
    in_parts = flags.beam_pipeline_options or flags.part_size is not None
    if flags.examples is not None and (flags.files or flags.lines):
        raise config_lib.UserError(
            "Got --examples with FILES or --lines; expected one of them. Leave the other out."
        )
    if flags.examples is None and not flags.files:
        raise config_lib.UserError(
            "Got no FILES; expected files, folders, patterns, or - for names on standard input. "
            "Name some, or give --examples=TABLE."
        )
    if flags.whole_latents and flags.embeddings is None:
        raise config_lib.UserError(
            "Got --whole_latents without --embeddings=FILE.npz; expected both. Add it."
        )
    if flags.embeddings is not None and flags.embeddings.suffix != ".npz":
        raise config_lib.UserError(
            f"Got --embeddings={flags.embeddings}; expected a name that ends in .npz. Change it."
        )
    if flags.overwrite and not (flags.output or flags.embeddings or flags.output_dir):
        raise config_lib.UserError(
            "Got --overwrite without --output, --embeddings or --output_dir; expected one of them, "
            "for else nothing is written. Add it, or leave --overwrite out."
        )
    if in_parts and flags.output is None:
        raise config_lib.UserError(
            "Got --part_size or --beam_pipeline_options without --output; expected a table, which "
            "is written in parts. Add --output=predictions.jsonl."
        )
    if flags.part_size is not None:
        config_lib.AT_LEAST_ONE.check("--part_size", flags.part_size, flags.part_size)
    rule = {"may_be_there": bool(flags.overwrite or in_parts), "remedy": "add --overwrite"}
    cli.check_place("output", flags.output, is_folder=False, **rule)
    cli.check_place("embeddings", flags.embeddings, is_folder=False, **rule)
    cli.check_place("output_dir", flags.output_dir, **rule)


def _options(flags: argparse.Namespace, run: Any) -> dict[str, Any]:
    """Returns how examples are predicted."""
    evaluation = {"num_windows": 1, "batch_size": _FEW}
    if "eval" in run.config:  # Of a run.
        evaluation |= run.config.eval.to_dict()
    for key, value in evaluation.items():
        config_lib.AT_LEAST_ONE.check(f"config.eval.{key}", value, value)
    num_windows = evaluation["num_windows"] if flags.num_windows is None else flags.num_windows
    batch_size = flags.batch_size
    if batch_size is None:
        most = min(evaluation["batch_size"], _MANY)
        batch_size = max(1, most // max(1, num_windows))
    latents = "whole" if flags.whole_latents else "pooled"
    return {
        "k": _K if flags.k is None else flags.k,
        "num_windows": num_windows,
        "batch_size": batch_size,
        "up": flags.up or "y",
        "latents": latents if flags.embeddings else "",
    }


def _check_of_use(flags: argparse.Namespace, run: Any, outputs: Any) -> None:
    """Refuses what the model has no use for, and a table for what has no place in one."""
    from perceiver_jax import prediction_files, predictions

    arrays = prediction_files.arrays_of(outputs)
    gives = f"a model that gives {[x.name for x in outputs]}"
    if flags.output and arrays and not flags.output_dir:
        raise config_lib.UserError(
            f"Got --output for {gives}, of which {arrays} have no place in a table; expected a "
            "folder for them, too. Add --output_dir=DIR."
        )
    if flags.output_dir and not arrays:
        raise config_lib.UserError(
            f"Got --output_dir for {gives}, which are in the table; expected one that gives "
            "arrays. Leave it out."
        )
    if flags.k is not None and all(output.kind != "classes" for output in outputs):
        raise config_lib.UserError(f"Got --k for {gives}, which are no classes. Leave it out.")
    cli.check_up(flags.up, run.fields)
    if flags.batch_size is not None and predictions.only_frames(run):
        raise config_lib.UserError(
            "Got --batch_size for frames of any size, whose tiles are computed one by one. Leave "
            "it out."
        )


def _examples(flags: argparse.Namespace, run: Any) -> Iterator[Any]:
    from perceiver_jax.data import listing

    if flags.examples is not None:
        return listing.read_table(flags.examples, run.fields)
    stdin = sys.stdin.buffer if "-" in flags.files else None
    return listing.find(flags.files, run.fields, lines=flags.lines, stdin=stdin, note=screen.say)


def _at_once(
    flags: argparse.Namespace,
    run: Any,
    outputs: Any,
    options: dict[str, Any],
    examples: Iterable[Any],
    total: int | None,
) -> int:
    """Predicts one example after the other."""
    from perceiver_jax import prediction_files, predictions

    examples = iter(examples)
    first = next(examples, None)
    if first is None:
        raise config_lib.UserError(
            "There is nothing to predict; expected at least one file. Name others."
        )
    writer = prediction_files.Writer(
        run,
        outputs,
        table=flags.output,
        embeddings=flags.embeddings,
        folder=flags.output_dir,
    )
    shown = screen.Screen(outputs, total, options["batch_size"], flags.output)
    try:
        with shown:
            each = predictions.predict_each(run, itertools.chain([first], examples), **options)
            for number, one in enumerate(each):
                shown.show(one, writer.write(number, one))
        writer.finish()
    except BaseException:
        left = writer.close()
        if shown.num and left:
            where = ", ".join(map(str, left))
            screen.say(f"Ended after {shown.num:,} examples, which are in {where}.")
        else:
            for path in left:
                path.unlink(missing_ok=True)
        raise
    arrays = prediction_files.arrays_of(outputs)
    if arrays and not flags.output_dir and shown.num > shown.num_errors:
        screen.say(f"{', '.join(arrays)} of each example are files with --output_dir=DIR.")
    where = ", ".join(str(x) for x in (flags.output, flags.embeddings, flags.output_dir) if x)
    screen.say(f"{shown.summary()}{f' They are in {where}.' if where else ''}")
    return int(shown.num_errors > 0)


def _in_parts(
    flags: argparse.Namespace,
    run: Any,
    options: dict[str, Any],
    examples: Iterable[Any],
    console: rich.console.Console,
) -> int:
    """Predicts part by part, those that are not done."""
    from perceiver_jax import prediction_shards
    from perceiver_jax.data.builders import beam

    beam_options = None
    if flags.beam_pipeline_options:
        beam_options = beam.options(flags.beam_pipeline_options)
    is_path = pathlib.Path(flags.workdir).exists()
    job = prediction_shards.Job(
        model=os.path.abspath(flags.workdir) if is_path else flags.workdir,
        checksum=prediction_shards.checksum(run),
        table=os.path.abspath(flags.output),
        embeddings=os.path.abspath(flags.embeddings) if flags.embeddings else "",
        folder=os.path.abspath(flags.output_dir) if flags.output_dir else "",
        options=options,
        size=flags.part_size or prediction_shards.SIZE,
    )
    if flags.overwrite:
        prediction_shards.remove(job)
    with _busy(console, "listing the examples"):
        num_parts = prediction_shards.plan(job, examples)
    left = prediction_shards.missing(job, num_parts)
    screen.say(f"{num_parts:,} parts, {num_parts - len(left):,} are done already; {job.plan}")
    try:
        if beam_options is not None and left:
            prediction_shards.make_with_beam(job, left, beam_options)
        else:
            for number in rich.progress.track(left, "predicting", console=console, transient=True):
                prediction_shards.make(str(job.plan), number, run)
    except KeyboardInterrupt:
        screen.say("Interrupted; give the same command again to make what is missing.")
        raise
    num = num_errors = 0
    for part in prediction_shards.done(job, num_parts):
        num, num_errors = num + part.num, num_errors + len(part.errors)
        for _, why in part.errors:
            screen.say(f"Error: {why}")
    prediction_shards.tidy(job)
    errors = f" {num_errors:,} without an answer." if num_errors else ""
    last = f"{num_parts - 1:05d}-of-{num_parts:05d}"
    where = [
        prediction_shards.part_of(str(flags.output), x) for x in (f"{'0' * 5}{last[5:]}", last)
    ]
    screen.say(
        f"{num:,} examples.{errors} They are in {' to '.join(map(str, dict.fromkeys(where)))}."
    )
    return int(num_errors > 0)


def _busy(console: rich.console.Console, what: str) -> contextlib.AbstractContextManager:
    """Says that something takes a while; elsewhere than on a terminal there is nothing to move."""
    return console.status(what) if console.is_terminal else contextlib.nullcontext()


@contextlib.contextmanager
def _ending_soon() -> Iterator[None]:
    """Ends without waiting for files that are being read; quietly, if nobody reads the output."""
    from perceiver_jax.data.builders import isolated

    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    finally:
        isolated.interrupt_kept()


if __name__ == "__main__":
    main(sys.argv[1:])
