"""One number or several for each example, such as a height or the corners of a box."""

from collections.abc import Iterator, Mapping, Sequence
import json
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np
import optax
import rich.table

from perceiver_jax import config as config_lib
from perceiver_jax.tasks import metrics, plots, targets

NUM_WORST = 5  # Examples that are named as predicted worst.

# Squares of errors of this size, and their inverse, are float32.
_MEAN, _STD = config_lib.Range(-1e18, 1e18), config_lib.Range(1e-18, 1e18)

Rows = Mapping[str, np.ndarray]
# Of errors, which are in standard deviations of the target. Huber: squared below 1, linear above.
LOSSES = {"squared": jnp.square, "absolute": jnp.abs, "huber": optax.huber_loss}


def _of_predictions(function):
    return lambda rows, _: function(rows["prediction"], rows["target"])


# A metric is one entry here.
METRICS = {
    "loss": metrics.Metric("loss", lambda rows, _: rows["loss"].mean(), metrics.LOSS),
    "MSE": metrics.Metric("MSE", _of_predictions(metrics.mean_squared_error)),
    "MAE": metrics.Metric(
        "MAE", _of_predictions(metrics.mean_absolute_error), metrics.Panel("absolute error")
    ),
    "R2": metrics.Metric("R²", _of_predictions(metrics.r2_score), metrics.Panel("R²")),
}


class Regression:
    """Numbers [B, L], or [B] of one.

    Args:
      target: Name of the field of numbers, and of the output that predicts them.
      fields: Of the data set.
      loss: 'squared', 'absolute' or 'huber'; the mean over the numbers of an example.
      mean: Of the target, one for all numbers or one each; the model predicts the difference from
        it, divided by `std`. A new model predicts the mean.
      std: Standard deviation of the target, in the same form.

    Attributes:
      target: As given.
      outputs: As many numbers as the field has.
      description: What is predicted, for people.
      main_metric: MSE for the squared loss, else MAE.
      lower_is_better: True.
      shown: The metrics, in the target's own units.

    Raises:
      config.UserError: If the field has classes, the loss is unknown, or mean or std don't fit.
    """

    lower_is_better = True
    shown = METRICS

    def __init__(
        self,
        *,
        target: str,
        fields: Mapping[str, Any],
        loss: str = "squared",
        mean: int | float | Sequence[int | float] = 0.0,
        std: int | float | Sequence[int | float] = 1.0,
    ):
        """Checks that the settings fit the field."""
        field = targets.find(fields, target)
        if hasattr(field, "num_classes"):
            raise config_lib.UserError(
                f"target is {target!r}, which has classes. For classes set "
                "config.task.kind to 'classification', or give numbers as floats: astype(float)."
            )
        config_lib.check_known("loss", loss, LOSSES)
        given = {"mean": mean, "std": std}
        config_lib.check(given, mean=_MEAN, std=_STD)
        size = int(np.prod(field.zeros().shape))
        self.target, self.outputs = target, {target: size}
        self.description = f"{size} number{'s' if size > 1 else ''}"
        for name, value in given.items():
            if np.size(value) not in (1, size):
                raise config_lib.UserError(
                    f"{name} is {value}; expected one number, or {size}. Change it."
                )
        self.main_metric = "MSE" if loss == "squared" else "MAE"
        self._loss = LOSSES[loss]
        self._mean, self._std = (np.broadcast_to(x, (1, size)) for x in (mean, std))

    def loss(
        self, outputs: Mapping[str, Array], batch: Mapping[str, Array]
    ) -> tuple[Float[Array, " B"], dict[str, Float[Array, " B"]]]:
        """Returns the loss of each example, and `MAE`, its mean absolute error."""
        error = self._error(outputs, batch)
        return self._loss(error).mean(axis=1), {"MAE": jnp.abs(error * self._std).mean(axis=1)}

    def rows(self, outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> dict[str, Array]:
        """Returns `prediction` and `target`, both [B, L] in the target's own units, and `loss`."""
        prediction = self.predict(outputs)[self.target]
        target = batch[self.target].reshape(prediction.shape)
        return {
            "prediction": prediction,
            "target": target,
            "loss": self.loss(outputs, batch)[0],
        }

    def metrics(self, rows: Rows) -> dict[str, float]:
        """Returns `shown` of a whole split."""
        return metrics.compute(self.shown, rows)

    def predict(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the numbers [B, L] in the target's own units."""
        return {self.target: outputs[self.target] * self._std + self._mean}

    def render(
        self, rows: Rows, names: Mapping[str, Sequence[str]], examples: Any
    ) -> Iterator[tuple[str, Any]]:
        """Yields predictions against targets, the errors of each number, the worst examples."""
        del names, examples
        prediction, target = rows["prediction"], rows["target"]
        yield "predictions.png", plots.draw_predictions(prediction, target)
        lines = []
        for p, t in zip(prediction.T, target.T, strict=True):
            one = {"loss": rows["loss"], "prediction": p[:, None], "target": t[:, None]}
            line = {name: x for name, x in self.metrics(one).items() if name != "loss"}
            lines.append({name: x if np.isfinite(x) else None for name, x in line.items()})
        yield "per_number.json", json.dumps(lines, indent=2) + "\n"
        table = rich.table.Table("predicted worst", "prediction", "target")
        for row in np.argsort(-np.abs(prediction - target).mean(axis=1))[:NUM_WORST]:
            shown = (", ".join(f"{x:.4g}" for x in values[row]) for values in (prediction, target))
            table.add_row(f"example {rows['example_id'][row]}", *shown)
        yield "", table

    def _error(
        self, outputs: Mapping[str, Array], batch: Mapping[str, Array]
    ) -> Float[Array, "B L"]:
        """Errors in standard deviations."""
        output = outputs[self.target]
        shape = (output.shape[0], self.outputs[self.target])
        targets.check_shape(self.target, output, shape, targets.OF_AN_EXAMPLE)
        return output - (batch[self.target].reshape(output.shape) - self._mean) / self._std
