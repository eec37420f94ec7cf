"""Metrics agree with scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from perceiver_jax.tasks import metrics


def _scores(rng, size, num_classes):
    """Scores of few values, so that there are many ties."""
    return rng.randint(0, 11, size=(size, num_classes)) / 11.0


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_agrees_with_scikit_learn_on_tied_scores(seed):
    rng = np.random.RandomState(seed)
    scores, labels = _scores(rng, 97, 3), rng.randint(0, 3, size=97)
    expected = [
        sklearn_metrics.average_precision_score(labels == label, scores[:, label])
        for label in range(3)
    ]
    got = metrics.average_precision_per_class(scores, labels)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_map_of_several_labels_is_the_mean_over_classes_that_occur(seed):
    rng = np.random.RandomState(seed)
    scores = _scores(rng, 53, 7)
    labels = (rng.uniform(size=(53, 7)) < 0.2).astype(np.float32)
    labels[:, [2, 5]] = 0.0  # Classes that never occur.
    occurs = labels.any(axis=0)
    expected = sklearn_metrics.average_precision_score(
        labels[:, occurs], scores[:, occurs], average="macro"
    )
    assert metrics.mean_average_precision(scores, labels) == pytest.approx(expected, abs=1e-12)


def test_map_of_one_label_an_example_equals_that_of_its_one_hot_form():
    rng = np.random.RandomState(0)
    scores, labels = _scores(rng, 53, 7), rng.randint(0, 5, size=53)
    one_hot = np.eye(7, dtype=np.float32)[labels]
    expected = metrics.mean_average_precision(scores, one_hot)
    assert metrics.mean_average_precision(scores, labels) == expected


def test_average_precision_does_not_depend_on_the_order_of_examples():
    rng = np.random.RandomState(0)
    scores, labels = _scores(rng, 97, 3), rng.randint(0, 3, size=97)
    scores[::7] = np.nan
    order = rng.permutation(97)
    np.testing.assert_allclose(
        metrics.average_precision_per_class(scores[order], labels[order]),
        metrics.average_precision_per_class(scores, labels),
        rtol=0,
        atol=1e-12,
    )


def test_average_precision_of_a_class_that_never_occurs_is_nan():
    per_class = metrics.average_precision_per_class(np.eye(2, 3), np.array([0, 1]))
    np.testing.assert_array_equal(per_class, [1.0, 1.0, np.nan])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_is_the_lowest_score_of_average_precision(dtype):
    scores = np.array([[np.nan, np.inf], [-1e30, 0.0], [1.0, -np.inf]], dtype)
    per_class = metrics.average_precision_per_class(scores, np.array([0, 1, 1]))
    np.testing.assert_allclose(per_class, [1 / 3, (1 / 2 + 2 / 3) / 2])


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_accuracy_agrees_with_scikit_learn(k):
    rng = np.random.RandomState(k)
    scores, labels = _scores(rng, 97, 7), rng.randint(0, 7, size=97)
    # scikit-learn prefers the higher class among ties, so the classes are mirrored.
    expected = sklearn_metrics.top_k_accuracy_score(
        6 - labels, scores[:, ::-1], k=k, labels=range(7)
    )
    assert metrics.top_k_accuracy(scores, labels, k) == pytest.approx(expected)


def test_top_k_accuracy_breaks_ties_as_argmax_does():
    scores = np.zeros((2, 3))
    assert metrics.top_k_accuracy(scores, np.array([0, 1]), 1) == 0.5


def test_nan_scores_do_not_count_as_hits():
    scores = np.full((4, 3), np.nan)
    scores[:, 1] = 0.0
    assert metrics.top_k_accuracy(scores, np.array([2, 2, 2, 2]), 1) == 0.0


def test_top_k_accuracy_of_several_labels_asks_for_one_of_them():
    scores = np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]])
    labels = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    assert metrics.top_k_accuracy(scores, labels, 1) == 0.5
    assert metrics.top_k_accuracy(scores, labels, 2) == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_roc_auc_agrees_with_scikit_learn_on_tied_scores(seed):
    rng = np.random.RandomState(seed)
    scores, targets = _scores(rng, 97, 1), (rng.uniform(size=(97, 1)) < 0.3).astype(np.float32)
    expected = sklearn_metrics.roc_auc_score(targets[:, 0], scores[:, 0])
    assert metrics.mean_roc_auc(scores, targets) == pytest.approx(expected, abs=1e-12)


def test_mean_roc_auc_leaves_out_classes_that_none_or_all_have_or_that_have_nan_as_a_score():
    rng = np.random.RandomState(0)
    scores = _scores(rng, 53, 8)
    scores[3, 7] = np.nan
    labels = (rng.uniform(size=(53, 8)) < 0.2).astype(np.float32)
    labels[:, 2], labels[:, 5] = 0, 1
    known = [0, 1, 3, 4, 6]
    expected = sklearn_metrics.roc_auc_score(labels[:, known], scores[:, known], average="macro")
    assert metrics.mean_roc_auc(scores, labels) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(metrics.mean_roc_auc(scores, np.zeros((53, 8))))


@pytest.mark.parametrize("distance", [0.0, 0.7, 2.3])
def test_d_prime_is_the_distance_of_two_normal_distributions(distance):
    rng = np.random.RandomState(0)
    scores = np.concatenate([rng.normal(size=20_011), rng.normal(distance, size=20_011)])
    auc = sklearn_metrics.roc_auc_score(np.arange(len(scores)) >= 20_011, scores)
    assert metrics.d_prime(auc) == pytest.approx(distance, abs=0.03)
    assert metrics.d_prime(1.0) == np.inf


def test_confusion_and_accuracy_per_class_agree_with_scikit_learn():
    rng = np.random.RandomState(0)
    scores, labels = rng.uniform(size=(97, 5)), rng.randint(0, 4, size=97)
    predicted = scores.argmax(axis=1)
    confusion = sklearn_metrics.confusion_matrix(labels, predicted, labels=range(5))
    np.testing.assert_array_equal(metrics.confusion_matrix(scores, labels), confusion)
    recall = sklearn_metrics.recall_score(labels, predicted, labels=range(4), average=None)
    np.testing.assert_allclose(metrics.accuracy_per_class(confusion), [*recall, np.nan])
