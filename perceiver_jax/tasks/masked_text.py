"""What is in the gaps of a text, byte by byte."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np
import optax
import rich.text

from perceiver_jax import config as config_lib
from perceiver_jax.tasks import metrics, targets

NUM_SHOWN = 8  # Examples that are shown with their gaps filled.
_MAX_SHOWN = 400  # Ids of each.
_GAP = "▁"

Rows = Mapping[str, np.ndarray]


def _per_byte(name: str, scale: float) -> Callable[[Rows, Any], float]:
    """The mean over all gaps of the split, where long gaps count more than short ones."""
    return lambda rows, _: rows[name].sum() / max(rows["bytes"].sum(), 1) * scale


# A metric is one entry here.
METRICS = {
    "loss": metrics.Metric("loss", lambda rows, _: rows["loss"].mean(), metrics.LOSS),
    "bits_per_byte": metrics.Metric(
        "bits per byte", _per_byte("nats", 1 / np.log(2)), metrics.Panel("bits per masked byte")
    ),
    "accuracy": metrics.Metric(
        "accuracy", _per_byte("right", 1.0), metrics.Panel("accuracy in gaps", (-0.02, 1.02))
    ),
}


class MaskedText:
    """Bytes in gaps, from a text whose words are masked.

    The loss of an example is the mean cross-entropy over its gaps' bytes, in nats, so that texts
    count alike whatever their lengths; `bits_per_byte` and `accuracy` are means over all bytes in
    gaps of a split.

    Args:
      target: Name of the field of masked text, and of the output that has logits [B, M, V].
      fields: Of the data set.

    Attributes:
      target: As given.
      outputs: A logit an id.
      description: What is predicted, for people.
      main_metric: Bits per byte.
      lower_is_better: True.
      shown: The metrics.

    Raises:
      config.UserError: If the field has no gaps.
    """

    main_metric, lower_is_better, shown = "bits_per_byte", True, METRICS

    def __init__(self, *, target: str, fields: Mapping[str, Any]):
        """Checks that there are gaps to fill."""
        masked = sorted(name for name, field in fields.items() if hasattr(field, "mask_rate"))
        if target not in masked:
            raise config_lib.UserError(
                f"target is {target!r}; expected a field of masked text, of {masked}. Name one, or "
                f"set config.data.fields.{target}.kind to 'masked_text'."
            )
        size = fields[target].vocab_size
        self.target, self.outputs = target, {target: size}
        self.description = f"{size} ids to fill gaps with"
        self._decode = fields[target].decode

    def loss(
        self, outputs: Mapping[str, Array], batch: Mapping[str, Array]
    ) -> tuple[Float[Array, " B"], dict[str, Float[Array, " B"]]]:
        """Returns the loss of each example, and the `accuracy` in its gaps."""
        nats, right, count = self._sums(outputs, batch)
        return nats / jnp.maximum(count, 1), {"accuracy": right / jnp.maximum(count, 1)}

    def rows(self, outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> dict[str, Array]:
        """Returns `loss`, and sums over the gaps: `nats`, bytes that are `right`, and `bytes`."""
        nats, right, count = self._sums(outputs, batch)
        loss = nats / jnp.maximum(count, 1)
        return {"loss": loss, "nats": nats, "right": right, "bytes": count}

    def metrics(self, rows: Rows) -> dict[str, float]:
        """Returns `shown` of a whole split."""
        return metrics.compute(self.shown, rows)

    def predict(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the likeliest id of each place [B, M]; also where there is no gap."""
        return {self.target: jnp.argmax(outputs[self.target], axis=-1)}

    def render(
        self, rows: Rows, names: Mapping[str, Sequence[str]], examples: Any
    ) -> Iterator[tuple[str, Any]]:
        """Yields some texts with their gaps, filled, and as they were."""
        del rows, names
        batch, predictions = examples(NUM_SHOWN)
        lines = []
        for ids, gaps, guess in zip(
            batch[f"{self.target}_targets"],
            batch[f"{self.target}_weights"] > 0,
            predictions[self.target],
            strict=True,
        ):
            parts = list(self._parts(ids[:_MAX_SHOWN], gaps[:_MAX_SHOWN], guess))
            shown = rich.text.Text()
            for given, filled, is_gap in parts:
                style = "" if not is_gap else "bold green" if given == filled else "bold red"
                shown.append(filled, style)
                shown.append(f"[{given}]" if is_gap and given != filled else "", "dim")
            yield "", shown
            given = "".join(_GAP * len(text) if gap else text for text, _, gap in parts)
            filled = "".join(text for _, text, _ in parts)
            true = "".join(text for text, _, _ in parts)
            lines.append(f"given:  {given}\nfilled: {filled}\ntrue:   {true}\n")
        yield "filled.txt", "\n".join(lines)

    def _sums(
        self, outputs: Mapping[str, Array], batch: Mapping[str, Array]
    ) -> tuple[Float[Array, " B"], Float[Array, " B"], Float[Array, " B"]]:
        """Sums over the gaps of each example: cross-entropies, right bytes, bytes."""
        logits, ids = outputs[self.target], batch[f"{self.target}_targets"]
        weights = batch[f"{self.target}_weights"]
        shape = (*ids.shape, self.outputs[self.target])
        remedy = "Set its kind to 'text', which gives a row of logits a place."
        targets.check_shape(self.target, logits, shape, remedy)
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, ids)
        right = jnp.argmax(logits, axis=-1) == ids
        return tuple(jnp.sum(weights * x, axis=-1) for x in (nats, right, jnp.ones_like(nats)))

    def _parts(
        self, ids: np.ndarray, gaps: np.ndarray, guess: np.ndarray
    ) -> Iterator[tuple[str, str, bool]]:
        """Yields runs of a text, inside or outside of gaps: as it was, as predicted, which."""
        borders = [0, *(np.flatnonzero(np.diff(gaps)) + 1), len(ids)]
        for start, stop in zip(borders[:-1], borders[1:], strict=True):
            true, is_gap = self._decode(ids[start:stop]), bool(gaps[start])
            filled = self._decode(guess[start:stop]) if is_gap else true
            yield tuple(" ".join(x.split("\n")) for x in (true, filled)) + (is_gap,)
