"""Metrics of a whole evaluation, in numpy on the host.

Scores may be probabilities or logits: only their order matters. Labels are classes (int [B]) or
multi-hot ([B, L]). Definitions are scikit-learn's.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxtyping import Float, Int, Num, Shaped
import numpy as np

Rows = Mapping[str, np.ndarray]


class Panel(NamedTuple):
    """A part of `curves.png`: what its axis shows, and between which numbers (None: all)."""

    label: str
    limits: tuple[float, float] | None = None


LOSS = Panel("loss")


class Metric(NamedTuple):
    """A metric of a split, and how it is shown.

    Attributes:
      label: Its name on the screen and in images.
      function: `(rows of the split, metrics before it in the table) -> number`.
      panel: Where it is drawn; None leaves it out.
      style: Of its line there, in matplotlib's letters.
    """

    label: str
    function: Callable[[Rows, Mapping[str, float]], float]
    panel: Panel | None = None
    style: str = "-"


def compute(table: Mapping[str, Metric], rows: Rows) -> dict[str, float]:
    """Returns the metrics of a table, in its order."""
    known: dict[str, float] = {}
    for name, metric in table.items():
        known[name] = float(metric.function(rows, known))
    return known


def top_k_accuracy(
    scores: Float[np.ndarray, "B L"], labels: Num[np.ndarray, " B"] | Num[np.ndarray, "B L"], k: int
) -> float:
    """Fraction of examples with a true class among the k highest scores.

    Among equal scores the lower class index comes first, as in `np.argmax`; NaN comes last.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # [B, k]
    hits = np.take_along_axis(multi_hot(labels, scores.shape[1]), best, axis=1)
    return float(hits.any(axis=1).mean())


def average_precision_per_class(
    scores: Float[np.ndarray, "B L"], labels: Num[np.ndarray, " B"] | Num[np.ndarray, "B L"]
) -> Float[np.ndarray, " L"]:
    """Average precision of each class, `sum_n (R_n - R_{n-1}) P_n`; NaN where it never occurs.

    The thresholds n are the distinct scores, so that ties enter together and the order of the
    examples has no influence. NaN is the lowest score.
    """
    from sklearn import metrics as sklearn_metrics  # Here, for it takes a second.

    # scikit-learn refuses NaN and infinity, which a model that diverged gives. Classes as rows, for
    # it sorts them one by one.
    finite = np.nan_to_num(np.ascontiguousarray(scores.T), nan=np.finfo(scores.dtype).min)
    targets = multi_hot(labels, scores.shape[1]).T
    precision = sklearn_metrics.average_precision_score
    return np.array(
        [precision(y, s) if y.any() else np.nan for y, s in zip(targets, finite, strict=True)]
    )


def mean_average_precision(
    scores: Float[np.ndarray, "B L"], labels: Num[np.ndarray, " B"] | Num[np.ndarray, "B L"]
) -> float:
    """Average precision averaged over the classes that occur (mAP); NaN if none does."""
    per_class = average_precision_per_class(scores, labels)
    occurs = ~np.isnan(per_class)
    return float(per_class[occurs].mean()) if occurs.any() else float("nan")


def mean_roc_auc(
    scores: Float[np.ndarray, "B L"], labels: Num[np.ndarray, " B"] | Num[np.ndarray, "B L"]
) -> float:
    """Area under the curve of true over false positives, averaged over classes; NaN if of none.

    As the statistic of Mann and Whitney, twice as fast as the curve of scikit-learn: how often
    a positive example scores higher than a negative one, where ties count a half. Classes that no
    example or every one has are left out, and those with a score of NaN.
    """
    import scipy.stats  # Here, for it takes a while.

    areas = []
    for score, hit in zip(scores.T, multi_hot(labels, scores.shape[1]).T, strict=True):
        num_hits = np.count_nonzero(hit)
        if 0 < num_hits < len(hit) and not np.isnan(score).any():
            wins = scipy.stats.rankdata(score)[hit].sum() - num_hits * (num_hits + 1) / 2
            areas.append(wins / (num_hits * (len(hit) - num_hits)))
    return float(np.mean(areas)) if areas else float("nan")


def d_prime(auc: float) -> float:
    """The sensitivity index d' of an area under the curve, `sqrt(2) ppf(auc)`.

    It is the distance of the means of two normal distributions of unit variance, of positive and
    negative scores, that have this area. Published figures for AudioSet are of the area averaged
    over classes: one class without a mistake would make an average of d' infinite.
    """
    import scipy.stats  # Here, for it takes a while.

    return float(np.sqrt(2) * scipy.stats.norm.ppf(auc))


def confusion_matrix(
    scores: Float[np.ndarray, "B L"], labels: Int[np.ndarray, " B"]
) -> Int[np.ndarray, "L L"]:
    """Counts of examples by true class (rows) and highest-scoring class (columns)."""
    num_classes = scores.shape[1]
    pairs = labels * num_classes + np.argmax(scores, axis=1)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def accuracy_per_class(confusion: Int[np.ndarray, "L L"]) -> Float[np.ndarray, " L"]:
    """Fraction of each class's examples that are recognised; NaN for a class without examples."""
    counts = confusion.sum(axis=1)
    return np.where(counts > 0, np.diag(confusion) / np.maximum(counts, 1), np.nan)


def multi_hot(
    labels: Num[np.ndarray, " B"] | Num[np.ndarray, "B L"], num_classes: int
) -> Shaped[np.ndarray, "B L"]:
    """Returns boolean multi-hot labels [B, L] for labels of either kind."""
    if labels.ndim == 2:
        return labels > 0
    return labels[:, None] == np.arange(num_classes)


def mean_squared_error(
    prediction: Float[np.ndarray, "B L"], target: Num[np.ndarray, "B L"]
) -> float:
    """Mean of the squared errors (MSE), over all numbers."""
    return float(np.square(prediction - target).mean())


def mean_absolute_error(
    prediction: Float[np.ndarray, "B L"], target: Num[np.ndarray, "B L"]
) -> float:
    """Mean of the absolute errors (MAE), over all numbers."""
    return float(np.abs(prediction - target).mean())


def r2_score(prediction: Float[np.ndarray, "B L"], target: Num[np.ndarray, "B L"]) -> float:
    """Coefficient of determination R², averaged over the numbers of an example.

    1 is perfect, 0 as good as always the mean of the targets. NaN for a single example, and where
    an error or a target is not finite.
    """
    import sklearn.metrics  # Here, for it takes a while.

    if len(target) < 2 or not (np.isfinite(prediction).all() and np.isfinite(target).all()):
        return float("nan")
    return float(sklearn.metrics.r2_score(target, prediction))
