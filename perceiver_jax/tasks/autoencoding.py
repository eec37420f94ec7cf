"""What was read, predicted from the little that the latents hold: video, audio and class, say."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from perceiver_jax import config as config_lib
from perceiver_jax.tasks import classification, metrics, plots

NUM_DRAWN = 4  # Examples.
_PEAK = {"pixels": 1.0, "signal": 2.0}  # From the least to the greatest value.
_LEAST = 1e-10  # Mean squared error over the peak's square: what is exact has 100 dB.

Rows = Mapping[str, np.ndarray]


def _psnr(name: str, peak: float) -> metrics.Metric:
    def function(rows: Rows, _: Mapping[str, float]) -> float:
        there = rows[f"{name}_there"] > 0
        errors = rows[f"{name}_error"][there]
        return float(decibels(errors, peak).mean()) if there.any() else float("nan")

    return metrics.Metric(f"{name} PSNR", function, metrics.Panel("PSNR in dB"))


def _top1(name: str) -> metrics.Metric:
    def function(rows: Rows, _: Mapping[str, float]) -> float:
        return metrics.top_k_accuracy(rows[f"{name}_scores"], rows[f"{name}_target"], 1)

    return metrics.Metric(f"{name} top-1", function, metrics.Panel("accuracy", (-0.02, 1.02)), "--")


def decibels(error: Any, peak: float) -> Any:
    """Peak signal-to-noise ratio of a mean squared error, `10 log10(peak^2 / error)`."""
    xp = np if isinstance(error, np.ndarray) else jnp
    return -10 * xp.log10(xp.maximum(error / peak**2, _LEAST))


class Autoencoding:
    """Several fields at once, each predicted by the output of its name.

    - Images and video (uint8): the mean absolute error of values in [0, 1].
    - Other numbers, such as audio in [-1, 1]: the mean absolute error.
    - Classes: cross-entropy; several of an example share its weight.

    Their weighted sum is an example's loss; what an example lacks (`<name>_mask`) adds nothing. An
    output may have several values a place, such as the 3 of a pixel or the 16 samples of a patch.
    With `<name>_indices` in the batch it has those places alone.

    PSNR is the mean over examples; peaks are 1 of pixels and 2 of audio, from -1 to 1. The paper
    does not say how it was computed.

    Args:
      weights: By name of the field, and of the output; the paper's are video 0.03, audio 1 and
        label 1e-4.
      fields: Of the data set.

    Attributes:
      outputs: As many numbers as the fields have; a logit a class.
      description: What is predicted, for people.
      main_metric: PSNR of the first of the fields, images before audio; top-1 of classes alone.
      lower_is_better: False.
      shown: The metrics.

    Raises:
      config.UserError: If there is no such field, or nothing is predicted.
    """

    lower_is_better = False

    def __init__(self, *, weights: Mapping[str, int | float], fields: Mapping[str, Any]):
        """Checks that the fields are there."""
        if not weights:
            raise config_lib.UserError(
                f"weights is empty; expected one for each of the fields to predict, of "
                f"{sorted(fields)}. Add some."
            )
        self._weights, self._kinds, self._shapes = dict(weights), {}, {}
        for name, weight in weights.items():
            config_lib.check_known("field in config.task.weights", name, sorted(fields))
            config_lib.NOT_NEGATIVE.check(f"config.task.weights.{name}", weight, weight)
            self._kinds[name] = _kind(name, fields[name])
            self._shapes[name] = np.shape(fields[name].zeros())
        is_label = {name: kind == "label" for name, kind in self._kinds.items()}
        self.outputs = {
            name: fields[name].num_classes if is_label[name] else int(np.prod(shape))
            for name, shape in self._shapes.items()
        }
        self.description = f"{', '.join(sorted(weights))} to reconstruct"
        own = {
            f"{name}_top1" if is_label[name] else f"{name}_PSNR": (
                _top1(name) if is_label[name] else _psnr(name, _PEAK[kind])
            )
            for name, kind in sorted(
                self._kinds.items(), key=lambda item: list(ORDER).index(item[1])
            )
        }
        self.main_metric = next(iter(own))
        loss = metrics.Metric("loss", lambda rows, _: rows["loss"].mean(), metrics.LOSS)
        self.shown = {"loss": loss} | own

    def loss(
        self, outputs: Mapping[str, Array], batch: Mapping[str, Array]
    ) -> tuple[Float[Array, " B"], dict[str, Float[Array, " B"]]]:
        """Returns the loss of each example, and by field its PSNR or whether it is recognised."""
        losses, reported = 0.0, {}
        for name, weight in self._weights.items():
            there = self._there(name, batch)
            if self._kinds[name] == "label":
                logits, labels = outputs[name], _shares(batch[name])
                each = classification.softmax_cross_entropy(logits, labels)
                hit = jnp.take_along_axis(
                    _multi_hot(labels, logits), jnp.argmax(logits, axis=-1)[:, None], axis=1
                )
                reported[f"{name}_top1"] = there * (hit[:, 0] > 0)
            else:
                error = self._error(name, outputs, batch)
                each = jnp.mean(jnp.abs(error), axis=(1, 2))
                squared = jnp.mean(jnp.square(error), axis=(1, 2))
                reported[f"{name}_PSNR"] = there * decibels(squared, _PEAK[self._kinds[name]])
            losses += weight * there * each
        return losses, reported

    def rows(self, outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> dict[str, Array]:
        """Returns `loss`; mean squared errors and of what is there; scores and classes."""
        rows = {"loss": self.loss(outputs, batch)[0]}
        for name, kind in self._kinds.items():
            if kind == "label":
                rows[f"{name}_scores"] = jax.nn.softmax(outputs[name])
                rows[f"{name}_target"] = batch[name]
            else:
                error = self._error(name, outputs, batch)
                rows[f"{name}_error"] = jnp.mean(jnp.square(error), axis=(1, 2))
                rows[f"{name}_there"] = self._there(name, batch)
        return rows

    def metrics(self, rows: Rows) -> dict[str, float]:
        """Returns `shown` of a whole split."""
        return metrics.compute(self.shown, rows)

    def predict(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Returns images and video as uint8, audio within [-1, 1], and classes' probabilities."""
        predicted = {}
        for name, kind in self._kinds.items():
            if kind == "label":
                predicted[name] = jax.nn.softmax(outputs[name])
                continue
            values = outputs[name].reshape(-1, *self._shapes[name])
            if kind == "pixels":
                predicted[name] = jnp.clip(jnp.rint(255 * values), 0, 255).astype(jnp.uint8)
            else:
                predicted[name] = jnp.clip(values, -1, 1) if values.ndim == 2 else values
        return predicted

    def render(
        self, rows: Rows, names: Mapping[str, Sequence[str]], examples: Any
    ) -> Iterator[tuple[str, Any]]:
        """Yields some images, frames and signals beside what was made of them."""
        del rows, names
        batch, predictions = examples(NUM_DRAWN)
        for name, kind in self._kinds.items():
            if kind == "pixels":
                yield f"{name}.png", plots.draw_frames(batch[name], predictions[name])
            elif kind == "signal":
                yield f"{name}.png", plots.draw_signals(batch[name], predictions[name])

    def _there(self, name: str, batch: Mapping[str, Array]) -> Float[Array, " B"]:
        """1 for the examples that have a field."""
        mask = batch.get(f"{name}_mask")
        return jnp.ones(len(batch[name])) if mask is None else mask.astype(jnp.float32)

    def _error(
        self, name: str, outputs: Mapping[str, Array], batch: Mapping[str, Array]
    ) -> Float[Array, "B O values"]:
        """Differences at the places that are decoded."""
        output = outputs[name]
        size = output.shape[-1]
        output = output.reshape(len(output), -1, size)
        target = batch[name].reshape(len(output), -1, size)
        indices = batch.get(f"{name}_indices")
        if indices is not None:
            target = jnp.take_along_axis(target, indices[:, :, None], axis=1)
        return output - target.astype(jnp.float32) / (255 if self._kinds[name] == "pixels" else 1)


ORDER = {"pixels": "images and video", "signal": "audio and other numbers", "label": "classes"}


def _kind(name: str, field: Any) -> str:
    if hasattr(field, "num_classes"):
        return "label"
    zeros = field.zeros()
    if isinstance(zeros, Mapping) or zeros.dtype.kind not in "fu":
        raise config_lib.UserError(
            f"weights has {name!r}, which can't be reconstructed; expected "
            f"{', '.join(ORDER.values())}. Take it out; 'masked_text' is the kind of task for gaps "
            "in text."
        )
    return "pixels" if zeros.dtype == np.uint8 else "signal"


def _shares(labels: Array) -> Array:
    """Several classes of an example as a distribution."""
    if labels.ndim == 1:
        return labels
    return labels / jnp.maximum(jnp.sum(labels, axis=-1, keepdims=True), 1)


def _multi_hot(labels: Array, logits: Array) -> Array:
    return jax.nn.one_hot(labels, logits.shape[-1]) if labels.ndim == 1 else labels
