"""How far each pixel of a frame moves to the next one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from perceiver_jax import config as config_lib
from perceiver_jax.tasks import metrics, plots, targets

NUM_DRAWN = 4  # Examples.
_TINY = 1e-12  # Square pixels; without it, the gradient of no error would be NaN.
_OUTLIER, _RELATIVE = 3.0, 0.05  # Pixels and fraction of the flow's length, KITTI's.

Rows = Mapping[str, np.ndarray]


def end_point_errors(
    flow: Float[Array, "B H W 2"], target: Float[Array, "B H W 2"]
) -> Float[Array, "B H W"]:
    """Distance of the pixels' ends, `|flow - target|`, in pixels."""
    return jnp.sqrt(jnp.sum(jnp.square(flow - target), axis=-1) + _TINY)


def _per_pixel(name: str):
    return lambda rows, _: rows[name].sum() / max(rows["pixels"].sum(), 1)


# A metric is one entry here. Both are means over all pixels of a split whose flow is known.
METRICS = {
    "loss": metrics.Metric("loss", lambda rows, _: rows["loss"].mean(), metrics.LOSS),
    "EPE": metrics.Metric("EPE", _per_pixel("errors"), metrics.Panel("end-point error in pixels")),
    "outliers": metrics.Metric(
        "outliers", _per_pixel("outliers"), metrics.Panel("outliers", (-0.02, 1.02))
    ),
}


class Flow:
    """Optical flow [B, H, W, 2], in pixels to the right and down.

    The paper does not say which loss it was trained with. Here it is the end-point error, the
    measure of the benchmarks: of an example the mean over the pixels whose flow is known.

    Args:
      target: Name of the field of flow, and of the output that predicts it.
      fields: Of the data set.

    Attributes:
      target: As given.
      outputs: Two numbers for each pixel of the frames.
      description: What is predicted, for people.
      main_metric: EPE.
      lower_is_better: True.
      shown: The metrics: EPE, and the fraction of `outliers`, wrong by more than 3 pixels and 5 %.

    Raises:
      config.UserError: If the field is no flow.
    """

    main_metric, lower_is_better, shown = "EPE", True, METRICS
    description = "flow of each pixel"

    def __init__(self, *, target: str, fields: Mapping[str, Any]):
        """Checks that the field is a flow."""
        field = targets.find(fields, target)
        if getattr(field, "feature", "") != "flow":
            raise config_lib.UserError(
                f"target is {target!r}, which is no flow. Name a field of kind 'flow'."
            )
        self.target, self.outputs = target, {target: 2}

    def loss(
        self, outputs: Mapping[str, Array], batch: Mapping[str, Array]
    ) -> tuple[Float[Array, " B"], dict[str, Float[Array, " B"]]]:
        """Returns the mean end-point error of each example; nothing else is reported."""
        errors, known = self._errors(outputs, batch)
        count = jnp.sum(known, axis=(1, 2))
        return jnp.sum(errors * known, axis=(1, 2)) / jnp.maximum(count, 1), {}

    def rows(self, outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> dict[str, Array]:
        """Returns `loss`, and sums over the known pixels: `errors`, `outliers` and `pixels`."""
        errors, known = self._errors(outputs, batch)
        length = jnp.linalg.norm(batch[self.target], axis=-1)
        outliers = (errors > _OUTLIER) & (errors > _RELATIVE * length)
        sums = {"errors": errors, "outliers": outliers, "pixels": jnp.ones_like(errors)}
        sums = {name: jnp.sum(x * known, axis=(1, 2)) for name, x in sums.items()}
        return sums | {"loss": self.loss(outputs, batch)[0]}

    def metrics(self, rows: Rows) -> dict[str, float]:
        """Returns `shown` of a whole split."""
        return metrics.compute(self.shown, rows)

    def predict(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the flow [B, H, W, 2] in pixels."""
        return {self.target: outputs[self.target]}

    def render(
        self, rows: Rows, names: Mapping[str, Sequence[str]], examples: Any
    ) -> Iterator[tuple[str, Any]]:
        """Yields some frames, their flow and the predicted one as colours, and the error."""
        del rows, names
        batch, predictions = examples(NUM_DRAWN)
        frames = next(x for x in batch.values() if x.ndim == 5)
        known, target = batch[f"{self.target}_mask"], batch[self.target]
        yield "flow.png", plots.draw_flows(frames[:, 0], target, predictions[self.target], known)

    def _errors(
        self, outputs: Mapping[str, Array], batch: Mapping[str, Array]
    ) -> tuple[Float[Array, "B H W"], Float[Array, "B H W"]]:
        """End-point errors, and 1 where the flow is known."""
        flow, target = outputs[self.target], batch[self.target]
        remedy = (
            "Set image_size of frames and flow in config.data.fields to the same, and the "
            "output's size to 2."
        )
        targets.check_shape(self.target, flow, target.shape, remedy)
        return end_point_errors(flow, target), batch[f"{self.target}_mask"].astype(flow.dtype)
