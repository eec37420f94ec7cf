"""A classical model of the same data, which a network has to beat to earn its keep.

A support-vector machine on simple features of each input: small pictures, statistics of pieces of a
spectrogram, counts of points in boxes; of texts the frequencies of words and pairs of them, and a
linear model. Examples are read as in evaluation, without augmentation. All of it is scikit-learn's.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import math
import time
from typing import Any

import numpy as np

from perceiver_jax import config as config_lib
from perceiver_jax import data as data_lib
from perceiver_jax.data import sources
from perceiver_jax.data.fields import array, audio, image, label, point_cloud, text, video

MAX_TRAIN = 10_000  # Examples: the time that kernels take grows with the square.
_BATCH_SIZE = 200
_COMPONENTS = 80
_STRENGTHS = (1.0, 10.0, 100.0)  # Of scikit-learn's C.
_SIDE, _PIECES, _BOXES = 32, 8, 10

Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Result:
    """What a classical model reaches.

    Attributes:
        name: which one it is, for people.
        metrics: of the test split: `top1` and `class_accuracy` (the mean of the classes'
            accuracies); `mAP` if an example may be of several classes.
        num_train: examples that it learned from.
        seconds: that reading, training and testing took.
    """

    name: str
    metrics: dict[str, float]
    num_train: int
    seconds: float


def check(data: data_lib.Data, target: str = "label") -> None:
    """Raises a UserError if there is no classical model of such data."""
    if not isinstance(data.fields.get(target), label.Label):
        raise config_lib.UserError(
            f"A classical baseline needs classes, which {target!r} has not. Leave --baseline out."
        )
    for name, field in data.inputs.items():
        if type(field) not in _FEATURES:
            known = sorted(kind.__name__ for kind in _FEATURES)
            raise config_lib.UserError(
                f"A classical baseline has no features of {name!r}, a {type(field).__name__}; "
                f"expected one of {known}. Leave --baseline out."
            )


def fit(data: data_lib.Data, target: str = "label") -> Result:
    """Trains on the training split and tests on the test split.

    How much is regularised is chosen by cross-validation on the training split.

    Args:
        data: that a network is trained on.
        target: the field of classes.

    Raises:
        UserError: if there is no classical model of such data.
    """
    import sklearn.metrics  # Takes a second.
    import sklearn.multiclass

    check(data, target)
    begin = time.perf_counter()
    chosen = sources.spread(data.num_train, MAX_TRAIN)
    parts = np.array_split(chosen, -(-len(chosen) // _BATCH_SIZE))
    train = (data.read_train(part, seed=0, augmented=False) for part in parts)
    features, labels = _gather(train, data.inputs, target)
    test_features, test_labels = _gather(data.test_batches(_BATCH_SIZE, 1), data.inputs, target)
    is_text = any(isinstance(field, text.Text) for field in data.inputs.values())
    name, model = _of_texts() if is_text else _of_numbers(features)
    if data.fields[target].multi_label:
        model = sklearn.multiclass.OneVsRestClassifier(model).fit(features, labels)
        scores = model.decision_function(test_features)
        seen = test_labels.any(axis=0)
        score = sklearn.metrics.average_precision_score(test_labels[:, seen], scores[:, seen])
        found = {"mAP": float(score)}
    else:
        guesses = _search(model, labels).fit(features, labels).predict(test_features)
        found = {
            "top1": float(sklearn.metrics.accuracy_score(test_labels, guesses)),
            "class_accuracy": float(sklearn.metrics.balanced_accuracy_score(test_labels, guesses)),
        }
    return Result(name, found, len(labels), time.perf_counter() - begin)


def describe(result: Result) -> str:
    """Says how good a classical model is."""
    found = ", ".join(f"{name} {x:.4f}" for name, x in result.metrics.items())
    return (
        f"{result.name} on simple features of {result.num_train:,} examples, "
        f"{result.seconds:.0f} s: {found}"
    )


def compare(result: Result, trained: Mapping[str, float]) -> str:
    """Says whether a network, of which the metrics of the same split are given, is better."""
    name, classical = next(iter(result.metrics.items()))
    ours = trained[name]
    points = 100 * abs(ours - classical)
    verdict = (
        f"{points:.1f} points {'better' if ours > classical else 'worse'}" if points else "equal"
    )
    return f"{name}: this model {ours:.4f}, {result.name} {classical:.4f}: {verdict}"


def _gather(batches: Iterable[Batch], inputs: Mapping[str, Any], target: str) -> tuple[Any, Any]:
    """Features and labels of the examples that could be read."""
    rows, labels = [], []
    for batch in batches:
        real = batch["mask"]
        found = [
            _FEATURES[type(field)](field, batch[name][real], batch.get(f"{name}_mask", real)[real])
            for name, field in inputs.items()
        ]
        rows += found[0] if isinstance(found[0], list) else list(np.concatenate(found, axis=1))
        labels.append(batch[target][real])
    return rows, np.concatenate(labels)


def _of_numbers(features: Any) -> tuple[str, Any]:
    import sklearn.decomposition
    import sklearn.pipeline
    import sklearn.preprocessing
    import sklearn.svm

    components = min(_COMPONENTS, len(features[0]), len(features) // 2)
    steps = (
        sklearn.preprocessing.StandardScaler(),
        sklearn.decomposition.PCA(components, random_state=0),
        sklearn.svm.SVC(),
    )
    return "SVM", sklearn.pipeline.make_pipeline(*steps)


def _of_texts() -> tuple[str, Any]:
    import sklearn.feature_extraction.text
    import sklearn.linear_model
    import sklearn.pipeline

    words = sklearn.feature_extraction.text.TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    linear = sklearn.linear_model.LogisticRegression(max_iter=1000)
    return "TF-IDF and logistic regression", sklearn.pipeline.make_pipeline(words, linear)


def _search(model: Any, labels: np.ndarray) -> Any:
    """The model with the strength that cross-validation chooses; as it is for too few examples."""
    import sklearn.model_selection

    fewest = np.unique_counts(labels).counts.min()
    if fewest < 2:
        return model
    key = f"{model.steps[-1][0]}__C"
    return sklearn.model_selection.GridSearchCV(
        model, {key: _STRENGTHS}, cv=int(min(fewest, 3)), n_jobs=1
    )


def _of_images(field: image.Image, pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Pixels of at most 32 x 32."""
    del field, mask
    step = max(pixels.shape[1] // _SIDE, 1)
    side = pixels.shape[1] // step * step
    small = pixels[:, :side, :side].reshape(len(pixels), side // step, step, side // step, step, -1)
    return (small.mean(axis=(2, 4)) / 255).reshape(len(pixels), -1)


def _of_mel(field: audio.Mel, mel: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Means of eighths of the time, and of all of it deviation and mean change."""
    del field
    mel = mel * mask[:, None, None]
    pieces = [piece.mean(axis=1) for piece in np.array_split(mel, _PIECES, axis=1) if piece.size]
    change = np.abs(np.diff(mel, axis=1)).mean(axis=1) if mel.shape[1] > 1 else mel[:, 0] * 0
    return np.concatenate([*pieces, mel.std(axis=1), change], axis=1)


def _of_audio(field: audio.Audio, samples: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Those of a spectrogram of some 60 frames."""
    hop = max(field.num_samples // 60, 128)
    samples = samples[:, : field.num_samples // hop * hop]
    bins = min(40, hop // 8)
    mel = [audio.log_mel(x, field.sample_rate, bins, hop, 3 * hop) for x in samples]
    return _of_mel(field, np.stack(mel), mask)


def _of_video(field: video.Video, frames: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Small pictures of the mean frame, and of the mean change from frame to frame."""
    frames = frames.astype(np.float32) * mask[:, None, None, None, None]
    changes = np.abs(np.diff(frames, axis=1, append=frames[:, -1:]))
    pictures = np.concatenate([frames.mean(axis=1), changes.mean(axis=1)], axis=-1)
    return _of_images(field, pictures, mask)


def _of_points(field: point_cloud.PointCloud, points: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Roots of the numbers of points in 10 x 10 x 10 boxes."""
    del field, mask
    boxes = np.clip((points + 1) / 2 * _BOXES, 0, _BOXES - 1).astype(int)
    places = np.ravel_multi_index(tuple(np.moveaxis(boxes, -1, 0)), (_BOXES,) * 3)
    return np.sqrt([np.bincount(place, minlength=_BOXES**3) for place in places])


def _of_arrays(field: array.Array, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The numbers and, of series, their spectrum; zeros where they are left out."""
    values = values.astype(np.float32)
    grid = field.shape[:-1] or field.shape
    there = mask.reshape(len(mask), *(grid if mask.size == len(mask) * math.prod(grid) else [1]))
    values = np.where(there.reshape(there.shape + (1,) * (values.ndim - there.ndim)), values, 0)
    spectrum = np.abs(np.fft.rfft(values, axis=1)) if values.ndim == 3 else values[:, :0]
    return np.concatenate([x.reshape(len(x), -1) for x in (values, spectrum)], axis=1)


def _texts(field: text.Text, ids: np.ndarray, mask: np.ndarray) -> list[str]:
    """The texts as far as they are read."""
    return [field.decode(x[real]) for x, real in zip(ids, mask, strict=True)]


# By kind of field: `(field, values [B, ...], their mask) -> [B, features]`.
_FEATURES: dict[type, Callable[..., Any]] = {
    array.Array: _of_arrays,
    audio.Audio: _of_audio,
    audio.Mel: _of_mel,
    image.Image: _of_images,
    point_cloud.PointCloud: _of_points,
    text.Text: _texts,
    video.Video: _of_video,
}
