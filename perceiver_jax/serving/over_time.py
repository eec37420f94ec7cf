"""What a model makes of a recording over time: answers part by part, or of windows."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from perceiver_jax import config, layers, predictions

_CHUNK = 8  # Rows that are computed at once: one program, however long a recording is.
_SHOWN = 5  # Classes.


def num_parts(run: Any) -> int:
    """Returns how many parts of its inputs a model reads one after the other; 1 if it can't."""
    resolved = layers.of_encoder(run.config.model.encoder)
    try:
        layers.find_step(resolved)
    except config.UserError:
        return 1
    return layers.num_parts(resolved)


def label_of(run: Any) -> str | None:
    """Returns the name of the output that has classes; None: there is none, or no recording."""
    features = {field.feature for field in run.fields.values() if not field.is_target}
    names = [name for name in run.config.model.outputs if name in run.class_names]
    return names[0] if features <= {"audio", "video"} and len(names) == 1 else None


def make_reader(run: Any) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Returns what computes predictions [T, ...] of parts that follow each other, [T, ...].

    The prediction at a part is of latents that have read it and those before it, as many as in
    training: latents that began there. So each is what `apply` gives of the last few parts; at the
    beginning there are fewer.
    """
    count = num_parts(run)
    step, decode = jax.jit(run.model.step), jax.jit(run.model.decode)

    @jax.jit
    def keep(is_there, new, old):
        return jnp.where(is_there[:, None, None], new, old)

    def read(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        total = len(next(iter(rows.values())))
        found = []
        for begin in range(0, total, _CHUNK):
            last = np.minimum(np.arange(begin, begin + _CHUNK), total - 1)
            latents = run.model.initial_latents(run.params, _CHUNK)
            for back in reversed(range(count)):
                at = last - back
                part = {name: x[np.maximum(at, 0)] for name, x in rows.items()}
                latents = keep(at >= 0, step(run.params, latents, part), latents)
            found.append(jax.device_get(predictions.of_outputs(run, decode(run.params, latents))))
        return {name: np.concatenate([x[name] for x in found])[:total] for name in found[0]}

    return read


def to_json(
    seconds: list[float], probabilities: np.ndarray, names: tuple[str, ...], are_parts: bool
) -> dict[str, Any]:
    """Returns the JSON values of classes over time: of those that are likeliest at any time.

    Args:
        seconds: of each row.
        probabilities: [T, L].
        names: of the classes.
        are_parts: whether rows are parts that latents read one after the other.
    """
    shown = np.argsort(-probabilities.max(axis=0), kind="stable")[:_SHOWN]
    shown = sorted(shown.tolist(), key=lambda i: -probabilities[:, i].mean())
    return {
        "reads": "parts" if are_parts else "windows",
        "seconds": [round(x, 3) for x in seconds],
        "classes": [
            {"name": names[i], "probabilities": probabilities[:, i].astype(float).tolist()}
            for i in shown
        ],
    }
