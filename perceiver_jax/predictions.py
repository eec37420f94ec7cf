"""What a model predicts of a user's own examples, as a person wants it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from perceiver_jax import config as config_lib
from perceiver_jax import tiles
from perceiver_jax.data import inference
from perceiver_jax.data.fields import text

Answer = dict[str, Any]

LATENTS = ("pooled", "whole")  # What `Predicted.latents` may be.
FINITE = "is finite"  # Beside what is predicted; the name of no output.

_MOST = 4  # Times a batch: examples that are taken before answers are given, if most have errors.
_PAIRS = 2  # Of frames, which may be large, that are read and wait.


class Predicted(NamedTuple):
    """What became of an example.

    Attributes:
      name: how the example is called: its file's name, say.
      answer: what it is predicted to be, by name of the output, as of `Run.predict`; None if there
        is an error.
      error: why there is no answer; None if there is one.
      latents: those of the example, if they are wanted: [D], or [N, D].
    """

    name: str
    answer: Answer | None
    error: config_lib.UserError | None = None
    latents: np.ndarray | None = None


def predict(run: Any, examples: Sequence[Any], **options: Any) -> list[Answer]:
    """Predicts what examples are; see `Run.predict`."""
    answers = []
    for predicted in predict_each(run, inference.check_list(examples), **options):
        if predicted.error is not None:
            raise predicted.error
        answers.append(predicted.answer)
    return answers


def predict_each(
    run: Any,
    examples: Iterable[Any],
    *,
    k: int = 5,
    num_windows: int = 1,
    batch_size: int = 8,
    up: str = "y",
    latents: str = "",
) -> Iterator[Predicted]:
    """Predicts what any number of examples are, one batch after another.

    Examples are taken from an iterator as they are needed, and the next ones are read while the
    model computes; no more than a few batches are in memory.

    Args:
      run: what `load_run` or `load_pretrained` returned.
      examples: as of `Run.prepare`; an `inference.Example` has a name of its own.
      k: how many classes are named.
      num_windows: of each example, over which probabilities, numbers and latents are averaged.
      batch_size: examples that are computed at once; of frames, it is a tile.
      up: the vertical axis of points, 'y' or 'z'.
      latents: 'pooled' for the mean of the final latents of each example, 'whole' for all; ''.

    Yields:
      What became of each example, in their order. One that can't be read has an error, and the
      others go on.

    Raises:
      UserError: the arguments don't fit the model; at once.
    """
    config_lib.check(
        {"k": k, "batch_size": batch_size},
        k=config_lib.AT_LEAST_ONE,
        batch_size=config_lib.AT_LEAST_ONE,
    )
    if latents:
        config_lib.check_known("latents", latents, LATENTS)
    reader = run.reader(num_windows=num_windows, up=up)
    frames = only_frames(run)
    if frames is not None:
        if latents:
            raise config_lib.UserError(
                f"latents is {latents!r}, but frames of any size are computed in tiles, each of "
                "which has its own; expected ''. See run.model.latents for those of a tile."
            )
        return _each_pair(run, examples, frames)
    _check_has_mean(run, num_windows)
    return _each(run, examples, reader, k, batch_size, latents)


def _each(
    run: Any,
    examples: Iterable[Any],
    reader: inference.Reader,
    k: int,
    batch_size: int,
    latents: str,
) -> Iterator[Predicted]:
    size, before = 0, None
    for part in _parts(reader, examples, batch_size):
        windows = [rows for _, rows in part if not isinstance(rows, Exception)]
        if windows:
            # Of all batches the same: one program. Of few examples, there is one for a power of 2.
            size = size or min(batch_size, 1 << (len(windows) - 1).bit_length())
            size = max(size, len(windows))
            batch = reader.batch([row for rows in windows for row in rows])
            computed = _begin(run, batch, size * len(reader.windows), latents)
        else:
            batch, computed = {}, {}
        # One batch late: this one is computed while the answers of the one before are used, and
        # while the next one is read.
        if before is not None:
            yield from _finished(run, *before, k, latents)
        before = part, batch, computed
    if before is not None:
        yield from _finished(run, *before, k, latents)


def _parts(
    reader: inference.Reader, examples: Iterable[Any], batch_size: int
) -> Iterator[list[tuple[str, Any]]]:
    """Yields names and what was read, as many as can be read of a batch's size."""
    part: list[tuple[str, Any]] = []
    num = 0
    for i, (given, rows) in enumerate(inference.read_ahead(reader.read, examples, batch_size)):
        part.append((reader.name_of(i, given), rows))
        num += not isinstance(rows, Exception)
        if num == batch_size or len(part) >= _MOST * batch_size:
            yield part
            part, num = [], 0
    if part:
        yield part


def _begin(run: Any, batch: Mapping[str, np.ndarray], rows: int, latents: str) -> dict[str, Any]:
    """Has the device compute, and doesn't wait for it."""
    batch = {name: filled_up(x, rows) for name, x in batch.items()}
    if not latents:
        return {"outputs": of_outputs(run, run(batch))}
    found, outputs = run.with_latents(batch)
    found = found.mean(axis=1) if latents == "pooled" else found
    return {"outputs": of_outputs(run, outputs), "latents": found}


def compute(run: Any, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns what the task makes of the outputs of a batch, row by row, on the host.

    With `FINITE`, for of bytes and pixels one can't see whether the outputs were numbers.
    """
    return jax.device_get(of_outputs(run, run(batch)))


def of_outputs(run: Any, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the task makes of outputs, and by `FINITE` of which rows they are finite."""
    finite = [jnp.isfinite(x).reshape(len(x), -1).all(axis=1) for x in outputs.values()]
    return dict(run.task.predict(outputs)) | {FINITE: jnp.stack(finite).all(axis=0)}


def check_finite(predicted: Mapping[str, np.ndarray]) -> None:
    """Refuses what `of_outputs` returned of outputs that are no numbers.

    Raises:
      UserError: there is NaN or infinity.
    """
    if not predicted[FINITE].all():
        raise config_lib.UserError(
            "What comes out of the model is NaN or infinity; expected finite numbers. Take another "
            "checkpoint, or give less extreme inputs."
        )


def filled_up(rows: np.ndarray, number: int) -> np.ndarray:
    """Repeats the last row up to a number of them."""
    return rows[np.minimum(np.arange(number), len(rows) - 1)]


def _finished(
    run: Any,
    part: Sequence[tuple[str, Any]],
    batch: Mapping[str, np.ndarray],
    computed: Mapping[str, Any],
    k: int,
    latents: str,
) -> Iterator[Predicted]:
    """Waits for a batch; yields what became of its examples."""
    computed = jax.device_get(computed)
    begin = 0
    for name, rows in part:
        if isinstance(rows, config_lib.UserError):
            yield Predicted(name, None, rows)
            continue
        windows = slice(begin, begin := begin + len(rows))
        inputs = {n: x[windows] for n, x in batch.items()}
        try:
            predicted = {n: x[windows] for n, x in computed["outputs"].items()}
            found = answer(run, inputs, predicted, k)
        except config_lib.UserError as error:
            yield Predicted(name, None, type(error)(f"{name}: {error}"))
            continue
        yield Predicted(name, found, None, _mean(computed["latents"][windows]) if latents else None)


def answer(
    run: Any, batch: Mapping[str, np.ndarray], predicted: Mapping[str, np.ndarray], k: int
) -> Answer:
    """Makes of the windows of an example what a person wants.

    Args:
      run: the model.
      batch: the windows as `Run.prepare` returns them, one a row.
      predicted: what `compute` returned of them.
      k: how many classes.

    Raises:
      UserError: if there are several windows, and a prediction has no mean; or it is not finite.
    """
    _check_has_mean(run, max(map(len, predicted.values())))
    check_finite(predicted)
    found: Answer = {}
    for name, windows in predicted.items():
        if name == FINITE:
            continue
        if name in run.class_names:
            found[name] = likeliest(_mean(windows), run.class_names[name], k)
        elif getattr(run.fields.get(name), "feature", "") == "text":
            filled = np.where(batch[name] == text.MASK, windows, batch[name])
            found[name] = text.decode(filled[0][batch[f"{name}_mask"][0]])
        else:
            found[name] = _mean(windows)
    return found


def _check_has_mean(run: Any, num_windows: int) -> None:
    """Refuses several windows where what each of them was read as is predicted."""
    read = sorted(set(run.task.outputs) & set(run.config.model.inputs))
    if num_windows > 1 and read:
        raise config_lib.UserError(
            f"num_windows is {num_windows}; expected 1, for {read} are what each window was read "
            "as, which has no mean. Predict parts of the example one by one."
        )


def _mean(windows: np.ndarray) -> np.ndarray:
    """The mean over windows, summed in float64 as in evaluation; one alone stays as it is."""
    if len(windows) == 1:
        return windows[0]
    return windows.mean(axis=0, dtype=np.float64).astype(windows.dtype)


def likeliest(
    probabilities: np.ndarray, names: Sequence[str], k: int = 5
) -> list[tuple[str, float]]:
    """Returns the names of the k likeliest classes with their probabilities, the likeliest first.

    Args:
      probabilities: of an example [L].
      names: of the classes.
      k: how many; at most L are returned.
    """
    best = np.argsort(-probabilities, kind="stable")[:k]
    return [(names[i], float(probabilities[i])) for i in best]


def only_frames(run: Any) -> str | None:
    """The name of the input if a model makes a flow of two frames, of whatever size, else None."""
    kinds = {output.kind for output in run.config.model.outputs.values()}
    inputs = list(run.config.model.inputs)
    is_flow = kinds == {"flow"} and len(inputs) == 1
    return inputs[0] if is_flow and run.fields[inputs[0]].feature == "frames" else None


def _each_pair(run: Any, examples: Iterable[Any], name: str) -> Iterator[Predicted]:
    """Predicts the flow of pairs of frames of any size."""
    read = functools.partial(inference.read_pair, name=name)
    for i, (given, pair) in enumerate(inference.read_ahead(read, examples, _PAIRS)):
        called = given.name if isinstance(given, inference.Example) else f"example {i}"
        if isinstance(pair, config_lib.UserError):
            yield Predicted(called, None, pair)
            continue
        try:
            yield Predicted(called, flow_of_pair(run, name, pair))
        except config_lib.UserError as error:
            yield Predicted(called, None, type(error)(f"{called}: {error}"))


def flow_of_pair(
    run: Any, name: str, pair: np.ndarray, compute_tile: Callable[..., Any] | None = None
) -> Answer:
    """Predicts the flow of two frames [2, H, W, 3], tile by tile.

    Args:
      run: the model.
      name: of its input.
      pair: the frames.
      compute_tile: what takes the place of `compute`, given the batch of a tile.

    Raises:
      UserError: if what comes out is not finite.
    """
    (output,) = run.config.model.outputs

    def flow(tile: np.ndarray) -> np.ndarray:
        batch = {name: tile[None]}
        predicted = compute_tile(batch) if compute_tile else compute(run, batch)
        check_finite(predicted)
        return predicted[output][0]

    tile = run.fields[name].image_size
    return {output: tiles.blend(flow, pair, tile, min(tiles.OVERLAP, min(tile) // 2))}
