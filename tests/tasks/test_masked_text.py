"""Bytes in gaps: loss and metrics count the gaps alone, as scikit-learn counts them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console
import sklearn.metrics

from perceiver_jax import tasks
from perceiver_jax.data.fields import text

FIELDS = {"text": text.MaskedText(23), "plain": text.Text(23)}
TASK = tasks.build_task({"kind": "masked_text", "target": "text"}, FIELDS)


def make_arrays():
    rng = np.random.RandomState(0)
    logits = rng.normal(size=(3, 23, 262)).astype(np.float32)
    ids = rng.randint(6, 262, size=(3, 23)).astype(np.int32)
    weights = (rng.uniform(size=(3, 23)) < 0.3).astype(np.float32)
    weights[1] = 0  # A text without gaps.
    logits[0, np.arange(23), ids[0]] += 5.0  # Mostly right.
    batch = {"text_targets": jnp.asarray(ids), "text_weights": jnp.asarray(weights)}
    return {"text": jnp.asarray(logits)}, batch


def test_the_loss_is_the_mean_cross_entropy_over_an_example_s_gaps():
    outputs, batch = make_arrays()
    losses, reported = TASK.loss(outputs, batch)
    probabilities = np.asarray(jax.nn.softmax(outputs["text"]))
    for i in (0, 2):
        gaps = np.asarray(batch["text_weights"][i]) > 0
        expected = sklearn.metrics.log_loss(
            np.asarray(batch["text_targets"][i])[gaps],
            probabilities[i][gaps],
            labels=np.arange(262),
        )
        assert losses[i] == pytest.approx(expected, rel=1e-5)
        right = probabilities[i][gaps].argmax(axis=-1) == np.asarray(batch["text_targets"][i])[gaps]
        assert reported["accuracy"][i] == pytest.approx(right.mean())
    assert losses[1] == 0


def test_metrics_are_means_over_all_bytes_in_gaps():
    outputs, batch = make_arrays()
    rows = {name: np.asarray(x, np.float64) for name, x in TASK.rows(outputs, batch).items()}
    gaps = np.asarray(batch["text_weights"]) > 0
    probabilities = np.asarray(jax.nn.softmax(outputs["text"]))[gaps]
    true = np.asarray(batch["text_targets"])[gaps]
    got = TASK.metrics(rows)
    nats = sklearn.metrics.log_loss(true, probabilities, labels=np.arange(262))
    assert got["bits_per_byte"] == pytest.approx(nats / np.log(2), rel=1e-5)
    expected = sklearn.metrics.accuracy_score(true, probabilities.argmax(axis=-1))
    assert got["accuracy"] == pytest.approx(expected)
    assert got["loss"] == pytest.approx(rows["loss"].mean())


def test_what_is_outside_of_gaps_has_no_influence():
    outputs, batch = make_arrays()

    def total(logits):
        return TASK.loss({"text": logits}, batch)[0].sum()

    gradient = np.asarray(jax.grad(total)(outputs["text"]))
    assert np.abs(gradient).max(axis=-1)[batch["text_weights"] == 0].max() == 0
    assert np.abs(gradient).max(axis=-1)[batch["text_weights"] > 0].min() > 0


def test_a_split_without_gaps_has_numbers():
    rows = dict.fromkeys(("loss", "nats", "right", "bytes"), np.zeros(3))
    assert set(TASK.metrics(rows).values()) == {0.0}


def test_gaps_are_shown_filled_beside_what_was_there():
    field = text.MaskedText(23, mask_rate=0.5)
    read = field.read(b"one two", 0.5, np.random.default_rng(0))
    batch = {f"text{suffix}": x[None] for suffix, x in read.items()}
    guess = field.read(b"ten two", 0.5, None)["_targets"][None]
    console = rich.console.Console(record=True, width=100)
    files = {}
    for name, content in TASK.render({}, {}, lambda count: (batch, {"text": guess})):
        if name:
            files[name] = content
        else:
            console.print(content)
    if read["_weights"][0]:
        assert files["filled.txt"].splitlines()[:3] == [
            "given:  ▁▁▁ two", "filled: ten two", "true:   one two"
        ]  # fmt: skip
        assert "ten[one] two" in console.export_text()
    else:
        assert files["filled.txt"].startswith("given:  one ▁▁▁")


def test_text_without_gaps_can_t_be_filled():
    with pytest.raises(ValueError, match="'plain'; expected a field of masked text, of .'text'."):
        tasks.build_task({"kind": "masked_text", "target": "plain"}, FIELDS)
