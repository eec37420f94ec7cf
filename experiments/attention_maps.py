"""Draws what a model looks at in pictures, sound, films, points or texts: a sheet an example.

    python -m experiments.attention_maps --workdir=RUN --output=FOLDER [FILES...]

FILES are files, folders, patterns, or `-` for names on standard input, a line each; without, some
examples of the run's test split are drawn. For each, a PNG is written, rows are layers and columns
latents, and an .npz with the maps that are drawn. docs/using.md has the rest.
"""

import argparse
from collections.abc import Iterator, Mapping
import pathlib
import re
import sys
from typing import Any, NamedTuple
import zipfile

import numpy as np

from experiments import cli, compilation_cache, show_data
from perceiver_jax import config as config_lib

_NUM_LATENTS = 5


class Example(NamedTuple):
    """What is drawn.

    Attributes:
      name: of the files, without what comes after the dot.
      title: of the sheet.
      batch: of this one example; or why there is none.
    """

    name: str
    title: str
    batch: Mapping[str, np.ndarray] | config_lib.UserError


def main(argv: list[str]) -> None:
    """Runs the command."""
    with cli.user_errors_end_the_program():
        flags = cli.parse_with_files(_parser(), argv)
        _check(flags)
        from perceiver_jax.pretrained import load  # Here, for it takes seconds.

        workdir = pathlib.Path(flags.workdir)
        place = workdir if workdir.exists() else pathlib.Path("runs", flags.workdir)
        compilation_cache.use(flags.compilation_cache, place)
        run = load.load_pretrained(flags.workdir)
        sys.exit(draw(run, flags))


def draw(run: Any, flags: argparse.Namespace) -> int:
    """Draws what the flags say; returns the exit code."""
    from perceiver_jax import attention_looks as looks
    from perceiver_jax import attention_sheets

    layers = looks.find_layers(run, flags.layers.split(",")) if flags.layers else None
    if layers is not None and set(layers) <= set(looks.find_layers(run, [looks.SELF])):
        _check_self(flags)
    latents = flags.latents or looks.DIFFERENT
    choice = {
        "layers": layers,
        "latents": _numbers("latents", latents, looks.DIFFERENT, looks.MOST, looks.ALL),
        "num_latents": flags.num_latents or _NUM_LATENTS,
        "heads": _numbers("heads", flags.heads, looks.MEAN, looks.ALL),
    }
    drawing = {
        "kind": flags.kind,
        "draw": flags.draw or attention_sheets.OVERLAY,
        "side": flags.side,
    }
    cli.check_up(flags.up, run.fields)
    flags.output.mkdir(parents=True, exist_ok=True)
    num, num_errors = 0, 0
    for example in _examples(run, flags):
        if isinstance(example.batch, config_lib.UserError):
            print(f"Error: {example.batch}", file=sys.stderr)
            num_errors += 1
            continue
        inputs = looks.inputs_of(run, example.batch)
        rows, path = [], flags.output / f"{example.name}.png"
        with _Archive(path.with_suffix(".npz")) as archive:
            for name, values in inputs.items():
                archive.write(f"inputs/{name}", values)
            for look in looks.look(run, example.batch, **choice):
                rows += attention_sheets.draw_rows(run, inputs, look, **drawing)
                archive.write_look(look)
                if flags.grids:
                    _write_grids(flags.output / f"{example.name}_grids", look, flags.kind)
        attention_sheets.draw_sheet(rows, example.title).savefig(path)
        print(f"{path}: {example.title}", flush=True)
        num += 1
    if not num and not num_errors:
        raise config_lib.UserError(
            "There is nothing to draw; expected at least one file. Name others."
        )
    return int(num_errors > 0)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        "python -m experiments.attention_maps", description=__doc__.partition("\n")[0]
    )
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
        "--output", type=pathlib.Path, required=True, help="a new folder for the results"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files of the same names if it is there"
    )
    parser.add_argument(
        "--examples",
        type=pathlib.Path,
        metavar="TABLE",
        help="instead of FILES: a .jsonl or .csv with a value for each input of the model",
    )
    parser.add_argument(
        "--num_examples",
        type=int,
        help="without FILES: how many of the test split, evenly spaced (default: 4)",
    )
    parser.add_argument(
        "--layers",
        default="",
        help="places in config.model.encoder.layers, names of weights, 'cross', 'self' or 'all', "
        "separated by commas (default: the first, second and last cross-attend)",
    )
    parser.add_argument(
        "--latents",
        help="'different': few that stand for all; 'most': those with most weight on an input, or "
        "on a place of it; 'all'; or their numbers, such as 3,7 (default: different)",
    )
    parser.add_argument(
        "--num_latents", type=int, help="how many of 'different' or 'most' (default: 5)"
    )
    parser.add_argument(
        "--heads",
        default="mean",
        help="'mean' of all, 'all', or numbers such as 0,1 (default: mean)",
    )
    parser.add_argument(
        "--kind",
        choices=("scores", "weights", "both"),
        default="both",
        help="before the softmax, after it, or both (default: both)",
    )
    parser.add_argument(
        "--draw",
        choices=("overlay", "raw", "both"),
        help="maps over the input, alone, or both (default: overlay)",
    )
    parser.add_argument("--side", type=int, default=168, help="of a picture, in pixels")
    parser.add_argument(
        "--grids",
        action="store_true",
        help="each map as a PNG, too: a grey pixel an input, from the lowest to the highest",
    )
    parser.add_argument("--up", help="the vertical axis of points in FILES: y (default) or z")
    compilation_cache.add_flag(parser)
    return parser


def _check(flags: argparse.Namespace) -> None:
    """Refuses, before anything takes time, flags that don't fit each other."""
    if flags.files and flags.examples is not None:
        raise config_lib.UserError(
            "Got --examples with FILES; expected one of them. Leave the other out."
        )
    if flags.num_examples is not None and (flags.files or flags.examples is not None):
        raise config_lib.UserError(
            "Got --num_examples, which is of the test split, with FILES or --examples; expected "
            "one of them. Leave the other out."
        )
    for name in ("num_examples", "num_latents", "side"):
        if getattr(flags, name) is not None:
            config_lib.AT_LEAST_ONE.check(f"--{name}", getattr(flags, name), getattr(flags, name))
    if flags.up is not None:
        config_lib.check_known("axis in --up", flags.up, ["y", "z"])
        if not flags.files and flags.examples is None:
            raise config_lib.UserError(
                "Got --up without FILES or --examples; expected files of points. Leave it out."
            )
    if flags.num_latents is not None and flags.latents not in (None, "different", "most"):
        raise config_lib.UserError(
            f"Got --num_latents with --latents={flags.latents}, which says how many; expected one "
            "of them. Leave the other out."
        )
    cli.check_place("output", flags.output, may_be_there=flags.overwrite, remedy="add --overwrite")


def _check_self(flags: argparse.Namespace) -> None:
    """Refuses what latent Transformers have no use for: their maps are of all latents, alone."""
    for name in ("latents", "num_latents", "draw"):
        if getattr(flags, name) is not None:
            raise config_lib.UserError(
                f"Got --{name} with --layers={flags.layers}, of latent Transformers, whose maps "
                "are of all latents and over no input; expected a cross-attend. Leave it out."
            )


def _numbers(flag: str, text: str, *words: str) -> str | list[int]:
    """Parses '3,7', or one of the words."""
    if text in words:
        return text
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise config_lib.UserError(
            f"--{flag} is {text!r}; expected {', '.join(words)}, or numbers such as 3,7. Change it."
        )
    return [int(number) for number in numbers]


def _examples(run: Any, flags: argparse.Namespace) -> Iterator[Example]:
    of_run = f"{run.workdir.name}, step {run.step}"
    if not flags.files and flags.examples is None:
        yield from _of_test_split(run, flags.num_examples or 4, of_run)
        return
    from perceiver_jax.data import listing

    if flags.examples is not None:
        found = listing.read_table(flags.examples, run.fields)
    else:
        stdin = sys.stdin.buffer if "-" in flags.files else None
        found = listing.find(flags.files, run.fields, stdin=stdin, note=_note)
    for number, example in enumerate(found):
        try:
            batch = run.prepare(example, up=flags.up or "y", first=number)
        except config_lib.UserError as error:
            batch = error
        stem = re.sub(r"[^\w-]+", "_", pathlib.Path(example.name).stem)[:60]
        yield Example(f"{number:02d}_{stem}", f"{of_run}: {example.name}", batch)


def _of_test_split(run: Any, count: int, of_run: str) -> Iterator[Example]:
    from perceiver_jax import data as data_lib
    from perceiver_jax.data import errors

    if not run.config.get("data", {}).get("dataset"):
        raise config_lib.UserError(
            f"{run.workdir} has no data set whose test split could be drawn; expected FILES, or "
            "--examples=TABLE. Name some."
        )
    data = data_lib.build_data(**run.config.data)
    indices = np.linspace(0, data.num_test - 1, min(count, data.num_test)).round().astype(int)
    for index in map(int, indices):
        name, title = f"test_{index}", ""
        try:
            batch: Any = data.read_test([index])
        except errors.BadDataError as error:
            batch = config_lib.UserError(f"Test example {index}: {error}. It is left out.")
        else:
            (words,) = show_data.target_texts(data, batch)
            title = f"{of_run}: test example {index}{', ' * bool(words)}{words[:80]}"
            name += re.sub(r"\W+", "_", f" {words}".rstrip())[:40]
        yield Example(name, title, batch)


def _note(words: str) -> None:
    print(words, file=sys.stderr)


class _Archive:
    """An .npz that is written array by array, so that all of them need not be in memory.

    It has its name when it is whole.
    """

    def __init__(self, path: pathlib.Path):
        """Opens it."""
        self._path = path
        self._part = path.with_name(f"{path.name}.part")

    def __enter__(self) -> "_Archive":
        """Begins to write."""
        self._zip = zipfile.ZipFile(self._part, "w", allowZip64=True)
        return self

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        """Ends; what was not finished is removed."""
        self._zip.close()
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink()

    def write(self, name: str, values: Any) -> None:
        """Writes an array."""
        with self._zip.open(f"{name}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, np.asanyarray(values), allow_pickle=False)

    def write_look(self, look: Any) -> None:
        """Writes the maps of a layer."""
        self.write(f"{look.index}/layer", look.weights)
        self.write(f"{look.index}/reads", look.reads)
        self.write(f"{look.index}/heads", [str(head) for head in look.heads])
        for name, maps in look.maps.items():
            if name in look.chosen:
                self.write(f"{look.index}/{name}/latents", look.chosen[name].latents)
            for kind, values in maps.items():
                self.write(f"{look.index}/{name}/{kind}", values)


def _write_grids(folder: pathlib.Path, look: Any, chosen_kind: str) -> None:
    """Writes maps as grey pictures; frames are below each other, what has one axis is a line."""
    import PIL.Image

    folder.mkdir(exist_ok=True)
    for name, maps in look.maps.items():
        latents = [f"_latent_{i}" for i in look.chosen[name].latents] if look.chosen else [""]
        for kind, values in maps.items():
            if chosen_kind not in (kind, "both"):
                continue
            for head, of_head in zip(look.heads, values, strict=True):
                grids = of_head if look.chosen else [of_head]
                for latent, grid in zip(latents, grids, strict=True):
                    rows = np.atleast_2d(grid).reshape(-1, np.atleast_1d(grid).shape[-1])
                    there = np.isfinite(rows)
                    low, high = (
                        f(rows[there], initial=x) for f, x in ((np.min, np.inf), (np.max, -np.inf))
                    )
                    levels = 255 * (rows - low) / max(high - low, 1e-30)
                    pixels = np.rint(np.where(there, levels, 0)).astype(np.uint8)
                    where = f"{look.index}_{name}_{kind}{latent}_head_{head}.png"
                    PIL.Image.fromarray(pixels).save(folder / where)


if __name__ == "__main__":
    main(sys.argv[1:])
