"""Draws a training batch as the model gets it, beside the same examples without augmentation.

    python -m experiments.show_data --config=FILE[:ARGUMENTS] [--out=DIR] [--num=8]
        [--config.key=value ...]

Writes one image for each input, and audio as wav files.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import pathlib
import re
import sys
from typing import Any

import ml_collections
import numpy as np

from experiments import cli
from perceiver_jax import config as config_lib

MAX_EXAMPLES = 64


def main(argv: list[str]) -> None:
    """Runs the command."""
    parser = cli.Parser("python -m experiments.show_data", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--out", type=pathlib.Path, help="where the files go; default: runs/EXPERIMENT/data"
    )
    parser.add_argument("--num", type=int, default=8, help="how many examples (default: 8)")
    with cli.user_errors_end_the_program():
        flags, config = cli.parse_command_line(parser, argv)
        out = flags.out or pathlib.Path("runs") / config.experiment / "data"
        cli.check_place("out", out)
        for path, what in show(config, out, flags.num):
            print(f"{path}: {what}")


def show(
    config: ml_collections.ConfigDict, out: pathlib.Path, num: int
) -> Iterator[tuple[pathlib.Path, str]]:
    """Writes the first examples of training, one sheet an input.

    Args:
      config: a recipe; its data set has to be on disk if it is not embedded.
      out: where the files go; made if need be.
      num: number of examples.

    Yields:
      Each file as it is written, and what it shows.

    Raises:
      UserError: if that many examples can't be shown.
    """
    # Here, for they take a second.
    from perceiver_jax import data as data_lib
    from perceiver_jax.data import contact_sheets

    data = data_lib.build_data(**config.data)
    largest = min(MAX_EXAMPLES, data.num_train)
    if not 1 <= num <= largest:
        raise config_lib.UserError(
            f"Got --num={num}; expected 1 to {largest}. Give a number in this range."
        )
    data = dataclasses.replace(data, batch_size=num, num_workers=0)
    with contextlib.closing(data.train_batches(config.seed)) as batches:
        after = next(batches)
    before = data.read_train(after["example_id"], config.seed, augmented=False)
    labels, mixed_labels = (target_texts(data, batch) for batch in (before, after))
    out.mkdir(parents=True, exist_ok=True)
    title = f"{config.experiment}: {num} of {data.num_train:,} examples of {config.data.dataset}"
    # Places to train, which are drawn anew for each step, are no part of an example.
    hidden = [name for name, field in data.fields.items() if not field.feature]
    drawn = {n: x for n, x in data.fields.items() if n not in (*written(data), *hidden)}
    for name, field in drawn.items():
        kind = config.data.fields[name].kind
        pairs = contact_sheets.Pairs(
            field,
            before[name],
            after[name],
            labels,
            mixed_labels,
        )
        path = out / f"{name}.png"
        contact_sheets.draw_sheet(kind, pairs, title).savefig(path)
        how = "before and after augmentation" if pairs.augmented else "not augmented"
        yield path, f"{num} examples of {name!r} ({kind}), {how}"
        if kind in ("audio", "mel"):
            yield from _write_audio(data, config.seed, name, pairs, after["example_id"], out)


def target_texts(data: Any, batch: Mapping[str, np.ndarray]) -> list[str]:
    """Says in words what is to be predicted of each example of a batch."""
    texts = [[] for _ in batch["example_id"]]
    for name in written(data):
        if name in data.labels:
            added = label_texts(batch[name], data.class_names(name))
        else:
            added = [f"{name} {', '.join(f'{x:.4g}' for x in row)}" for row in batch[name]]
        for text, more in zip(texts, added, strict=True):
            text.append(more)
    return ["; ".join(text) for text in texts]


def written(data: Any) -> list[str]:
    """Returns the names of the fields that are shown as text, beside those that are drawn."""
    from perceiver_jax.data.fields import label, number

    return [n for n, x in data.fields.items() if isinstance(x, label.Label | number.Number)]


def label_texts(labels: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """Says in words which classes examples have.

    Args:
      labels: classes [B], or weights of all classes [B, L].
      class_names: names of the classes.

    Returns:
      A text for each example: names, with their weights if these are not all one.
    """
    if labels.ndim == 1:
        return [class_names[i] for i in labels]
    texts = []
    for row in labels:
        present = np.flatnonzero(row)
        weights = [f"{row[i]:.2g} " if row[i] != 1 else "" for i in present]
        names = [weight + class_names[i] for weight, i in zip(weights, present, strict=True)]
        texts.append("; ".join(names) or "no label")
    return texts


def _write_audio(
    data: Any, seed: int, name: str, pairs: Any, indices: np.ndarray, out: pathlib.Path
) -> Iterator[tuple[pathlib.Path, str]]:
    """Writes the windows of `pairs` as wav files: of raw audio also as the model gets it."""
    import soundfile

    from perceiver_jax.data.fields import audio

    rate = pairs.field.sample_rate
    raw = isinstance(pairs.field, audio.Audio)
    unaugmented = audio.Audio(pairs.field.num_samples, rate)
    windows = dataclasses.replace(data, fields={name: unaugmented}).read_train(
        indices, seed, augmented=False
    )[name]
    versions = {"": windows}
    if raw and pairs.augmented:
        versions["_after"] = pairs.after
    as_is = raw and not pairs.augmented
    for suffix, several in versions.items():
        for i, samples in enumerate(several):
            label = re.sub(r"\W+", "_", pairs.labels[i])[:40].strip("_")
            soundfile.write(out / f"{name}_{i:02d}_{label}{suffix}.wav", samples, rate)
        what = "as the model gets it" if suffix or as_is else "before augmentation"
        yield out / f"{name}_*{suffix}.wav", f"{len(several)} wav files, the audio {what}"


if __name__ == "__main__":
    main(sys.argv[1:])
