"""What a model predicts of a user's own examples, as a person wants it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from perceiver_jax import config as config_lib
from perceiver_jax import tiles
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.data import inference
from perceiver_jax.data.fields import text

Answer = dict[str, Any]


def predict(
    run: Any,
    examples: Sequence[Any],
    *,
    k: int = 5,
    num_windows: int = 1,
    batch_size: int = 8,
    up: str = "y",
) -> list[Answer]:
    """Predicts what examples are; see `Run.predict`."""
    config_lib.check(
        {"k": k, "batch_size": batch_size},
        k=config_lib.AT_LEAST_ONE,
        batch_size=config_lib.AT_LEAST_ONE,
    )
    if not examples:
        raise config_lib.UserError(
            "Got no example; expected at least one, such as a file's name. Give it."
        )
    frames = only_frames(run)
    if frames is not None:
        fields_lib.check_windows(num_windows, run.fields)
        config_lib.check_known("axis in up", up, ["y", "z"])
        pairs = inference.read_pairs(examples, frames)
        return [flow_of_pair(run, frames, pair) for pair in pairs]
    answers = []
    for begin in range(0, len(examples), batch_size):
        part = examples[begin : begin + batch_size]
        batch = run.prepare(*part, num_windows=num_windows, up=up, first=begin)
        rows = min(len(examples), batch_size) * num_windows  # Of all batches: one program.
        predicted = compute(run, {name: filled_up(x, rows) for name, x in batch.items()})
        for i in range(len(part)):
            windows = slice(i * num_windows, (i + 1) * num_windows)
            of_one = {name: x[windows] for name, x in predicted.items()}
            answers.append(answer(run, {n: x[windows] for n, x in batch.items()}, of_one, k))
    return answers


def compute(run: Any, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns what the task makes of the outputs of a batch, row by row, on the host."""
    return jax.device_get(run.task.predict(run(batch)))


def filled_up(rows: np.ndarray, number: int) -> np.ndarray:
    """Repeats the last row up to a number of them."""
    return rows[np.minimum(np.arange(number), len(rows) - 1)]


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
      UserError: if there are several windows, and a prediction has no mean.
    """
    found: Answer = {}
    for name, windows in predicted.items():
        field = run.fields.get(name)
        if len(windows) > 1 and name in run.config.model.inputs:
            raise config_lib.UserError(
                f"num_windows is {len(windows)}; expected 1, for {name!r} is what each window was "
                "read as, which has no mean. Predict parts of the example one by one."
            )
        if name in run.class_names:
            found[name] = likeliest(windows.mean(axis=0), run.class_names[name], k)
        elif getattr(field, "feature", "") == "text":
            filled = np.where(batch[name] == text.MASK, windows, batch[name])
            found[name] = text.decode(filled[0][batch[f"{name}_mask"][0]])
        else:
            found[name] = windows.mean(axis=0) if len(windows) > 1 else windows[0]
    return found


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


def flow_of_pair(
    run: Any, name: str, pair: np.ndarray, compute_tile: Callable[..., Any] | None = None
) -> Answer:
    """Predicts the flow of two frames [2, H, W, 3], tile by tile.

    Args:
      run: the model.
      name: of its input.
      pair: the frames.
      compute_tile: what takes the place of `compute`, given the batch of a tile.
    """
    (output,) = run.config.model.outputs

    def flow(tile: np.ndarray) -> np.ndarray:
        batch = {name: tile[None]}
        return (compute_tile(batch) if compute_tile else compute(run, batch))[output][0]

    tile = run.fields[name].image_size
    return {output: tiles.blend(flow, pair, tile, min(tiles.OVERLAP, min(tile) // 2))}
