"""Metrics of a whole evaluation, in numpy on the host.

Scores may be probabilities or logits: only their order matters. Labels are classes (int [B]) or
multi-hot ([B, L]). Definitions are scikit-learn's.
"""

from jaxtyping import Float, Int, Num, Shaped
import numpy as np


def top_k_accuracy(
    scores: Float[np.ndarray, "B L"], labels: Num[np.ndarray, " B"] | Num[np.ndarray, "B L"], k: int
) -> float:
    """Fraction of examples with a true class among the k highest scores.

    Among equal scores the lower class index comes first, as in `np.argmax`; NaN comes last.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # [B, k]
    hits = np.take_along_axis(multi_hot(labels, scores.shape[1]), best, axis=1)
    return float(hits.any(axis=1).mean())


def average_precision(scores: Float[np.ndarray, " B"], targets: Shaped[np.ndarray, " B"]) -> float:
    """Area under the precision-recall curve by steps, `sum_n (R_n - R_{n-1}) P_n`.

    The thresholds n are the distinct scores, so that ties enter together and the order of the
    examples has no influence. NaN if no target is positive.
    """
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], targets[order] > 0
    if not hits.any():
        return float("nan")
    last_of_tie = np.append(np.flatnonzero(np.diff(sorted_scores)), len(scores) - 1)
    true_positives = np.cumsum(hits)[last_of_tie]
    precision = true_positives / (last_of_tie + 1)
    recall = true_positives / true_positives[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def average_precision_per_class(
    scores: Float[np.ndarray, "B L"], labels: Num[np.ndarray, " B"] | Num[np.ndarray, "B L"]
) -> Float[np.ndarray, " L"]:
    """Average precision of each class; NaN for a class that never occurs."""
    targets = multi_hot(labels, scores.shape[1])
    return np.array([average_precision(s, t) for s, t in zip(scores.T, targets.T, strict=True)])


def mean_average_precision(
    scores: Float[np.ndarray, "B L"], labels: Num[np.ndarray, " B"] | Num[np.ndarray, "B L"]
) -> float:
    """Average precision averaged over the classes that occur (mAP); NaN if none does."""
    per_class = average_precision_per_class(scores, labels)
    occurs = ~np.isnan(per_class)
    return float(per_class[occurs].mean()) if occurs.any() else float("nan")


def roc_auc(scores: Float[np.ndarray, " B"], targets: Shaped[np.ndarray, " B"]) -> float:
    """Area under the curve of true over false positives, as the statistic of Mann and Whitney.

    It is how often a positive example scores higher than a negative one; ties count a half. NaN
    unless there are both.
    """
    hits = targets > 0
    num_hits = int(hits.sum())
    pairs = num_hits * (len(hits) - num_hits)
    if not pairs:
        return float("nan")
    import scipy.stats  # Here, for it takes a while.

    ranks = scipy.stats.rankdata(scores)
    return float((ranks[hits].sum() - num_hits * (num_hits + 1) / 2) / pairs)


def mean_roc_auc(
    scores: Float[np.ndarray, "B L"], labels: Num[np.ndarray, " B"] | Num[np.ndarray, "B L"]
) -> float:
    """`roc_auc` averaged over the classes that some examples have and others don't."""
    targets = multi_hot(labels, scores.shape[1])
    per_class = np.array([roc_auc(s, t) for s, t in zip(scores.T, targets.T, strict=True)])
    known = ~np.isnan(per_class)
    return float(per_class[known].mean()) if known.any() else float("nan")


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


def accuracy_per_class(
    scores: Float[np.ndarray, "B L"], labels: Int[np.ndarray, " B"]
) -> Float[np.ndarray, " L"]:
    """Fraction of each class's examples that are recognised; NaN for a class without examples."""
    confusion = confusion_matrix(scores, labels)
    counts = confusion.sum(axis=1)
    return np.where(counts > 0, np.diag(confusion) / np.maximum(counts, 1), np.nan)


def mean_class_accuracy(scores: Float[np.ndarray, "B L"], labels: Int[np.ndarray, " B"]) -> float:
    """Averages `accuracy_per_class` over the classes that occur ("balanced accuracy")."""
    return float(np.nanmean(accuracy_per_class(scores, labels)))


def multi_hot(
    labels: Num[np.ndarray, " B"] | Num[np.ndarray, "B L"], num_classes: int
) -> Shaped[np.ndarray, "B L"]:
    """Returns boolean multi-hot labels [B, L] for labels of either kind."""
    if labels.ndim == 2:
        return labels > 0
    return labels[:, None] == np.arange(num_classes)
