"""Losses are the textbook's, example by example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver_jax import tasks
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.data.fields import label, number, text
from perceiver_jax.tasks import classification

LOGITS = np.random.RandomState(0).normal(size=(5, 7)).astype(np.float32)
LABELS = np.array([0, 3, 6, 3, 1], np.int32)


def test_softmax_cross_entropy_is_the_negative_log_probability_of_the_class():
    exp = np.exp(LOGITS.astype(np.float64))
    expected = -np.log(exp[np.arange(5), LABELS] / exp.sum(axis=1))
    got = classification.softmax_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_integer_labels_equal_one_hot_labels():
    hard = classification.softmax_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), 0.1)
    soft = classification.softmax_cross_entropy(jnp.asarray(LOGITS), jax.nn.one_hot(LABELS, 7), 0.1)
    np.testing.assert_array_equal(hard, soft)


def test_smoothed_softmax_labels_are_a_mixture_with_the_uniform_distribution():
    plain = classification.softmax_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS))
    uniform = classification.softmax_cross_entropy(jnp.asarray(LOGITS), jnp.full((5, 7), 1 / 7))
    smoothed = classification.softmax_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), 0.1)
    np.testing.assert_allclose(smoothed, 0.9 * plain + 0.1 * uniform, rtol=1e-5)


def test_labels_may_be_distributions_over_the_classes():
    labels = np.random.RandomState(1).dirichlet(np.ones(7), size=5).astype(np.float32)
    log_p = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
    got = classification.softmax_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(labels))
    np.testing.assert_allclose(got, -(labels * log_p).sum(axis=1), rtol=1e-5)


def test_sigmoid_cross_entropy_is_summed_over_classes():
    targets = (np.random.RandomState(1).uniform(size=(5, 7)) < 0.3).astype(np.float32)
    p = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(axis=1)
    got = classification.sigmoid_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(targets))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_sigmoid_cross_entropy_of_an_untrained_model_is_log_two_a_class():
    got = classification.sigmoid_cross_entropy(jnp.zeros((3, 7)), jnp.eye(3, 7), 0.1)
    np.testing.assert_allclose(got, 7 * np.log(2), rtol=1e-6)


def test_huge_logits_give_finite_losses():
    logits = jnp.array([[1e4, -1e4]])
    assert jnp.isfinite(classification.softmax_cross_entropy(logits, jnp.array([1]))).all()
    assert jnp.isfinite(classification.sigmoid_cross_entropy(logits, jnp.array([[0.0, 1.0]]))).all()


@pytest.mark.parametrize(("name", "total"), [("softmax", 5.0), ("sigmoid", None)])
def test_probabilities_belong_to_the_loss(name, total):
    p = classification.LOSSES[name][1](jnp.asarray(LOGITS))
    expected = total if total else np.sum(1 / (1 + np.exp(-LOGITS)))
    np.testing.assert_allclose(p.sum(), expected, rtol=1e-5)


FIELDS = {
    "label": label.Label(3, multi_label=False),
    "size": number.Number(2),
    "text": text.MaskedText(7),
}


@pytest.mark.parametrize(
    ("kind", "target", "shape", "message"),
    [
        ("classification", "label", (1, 3, 1), r"\[3, 1\] an example; expected \[3\].*'query'"),
        ("regression", "size", (1, 1, 2), r"\[1, 2\] an example; expected \[2\].*'query'"),
        ("masked_text", "text", (1, 262), r"\[262\] an example; expected \[7, 262\].*'text'"),
    ],
)
def test_an_output_of_another_shape_says_which_kind_it_takes(kind, target, shape, message):
    task = tasks.build_task({"kind": kind, "target": target}, FIELDS)
    batch = fields_lib.zero_batch({target: FIELDS[target]})  # Of one example.
    batch = {name: jnp.asarray(x) for name, x in batch.items()}
    with pytest.raises(ValueError, match=message):
        task.loss({target: jnp.zeros(shape)}, batch)
