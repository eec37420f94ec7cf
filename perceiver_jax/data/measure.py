"""What a prepared data set holds, measured: what a recipe for one's own data is sized by."""

from collections.abc import Sequence
import dataclasses
import io
from typing import Any

import numpy as np
import soundfile

from perceiver_jax import config
from perceiver_jax.data import datasets, errors, examples, features, sources
from perceiver_jax.data.fields import image, label, video

_NUM_RECORDS = 256  # That are looked into.
_TRAINED = 85  # Per cent of a training split of which the rest validates.
_FULL = 0.95  # Of the clips and texts are no longer than the length that is given.
_SIDE = 64  # To which pictures are brought, to look at their colours.
_RATES = (8_000, 16_000, 24_000, 32_000, 48_000)  # Of sounds, in Hz.
_SILENT = 1e-4  # Of a sound's power, that nobody hears.
_COLOUR = 0.1  # Channels that are no further apart, of 0 to 1, make grey.


@dataclasses.dataclass(frozen=True)
class Measured:
    """A data set of classes.

    Attributes:
        num_train: examples to train on.
        class_counts: how many of them are of each class.
        multi_label: whether an example may be of several.
        inputs: by the feature that they are made from ('image', 'audio', 'video', 'points', 'text')
            what is known of it:

            - image: `side` (median of the shorter sides, in pixels), `channels` (1 if they have no
              colour), `mean` and `std` of each channel, of pixels in 0 to 1.
            - audio: `seconds` (95 of 100 clips are no longer), `sample_rate` (in Hz, the lowest
              that keeps what is heard: they may be stored at a higher rate than recorded).
            - video: `seconds`, `side`.
            - points: `num_points` of the smallest shape.
            - text: `length` in bytes (95 of 100 texts are no longer).
    """

    num_train: int
    class_counts: tuple[int, ...]
    multi_label: bool
    inputs: dict[str, dict[str, Any]]


def measure(name: str, data_dir: str = "", split: str = "train") -> Measured:
    """Measures a split, by all its labels and up to 256 records evenly spread over it.

    Args:
        name: of the data set, in TFDS's notation.
        data_dir: where TFDS keeps data sets; '' is TFDS's default.
        split: to train on.

    Raises:
        config.UserError: there is no such set, or no classes in it, or nothing that a model reads.
    """
    store = sources.OnDisk(name, data_dir, {})
    builder = datasets.prepared_builder(name, data_dir)
    classes = label.Label(**store.defaults("label", "label"))
    counts = _count(store, split, classes)
    found = _find(builder.info.features)
    records = sources.TfdsRecords(str(builder.data_dir), split, tuple(found.values()))
    some = [records[index] for index in sources.spread(len(records), _NUM_RECORDS)]
    seen = {
        name: _look(name, [record[chosen] for record in some]) for name, chosen in found.items()
    }
    inputs = {name: described for name, described in seen.items() if described}
    if not inputs:
        raise config.UserError(
            f"Data set {name!r} has the features {sorted(builder.info.features)}; expected one "
            f"that can be read as one of {', '.join(_LOOKS)}. Prepare the files as one of the "
            "kinds of python -m experiments.prepare_data --help"
        )
    return Measured(store.num_examples(split), counts, classes.multi_label, inputs)


def choose_splits(name: str, data_dir: str = "", validation: bool = False) -> tuple[str, str]:
    """Returns the splits to train and to test on.

    Args:
        name: of the data set, in TFDS's notation.
        data_dir: where TFDS keeps data sets; '' is TFDS's default.
        validation: leave the test split alone: the set's own validation split is tested on, or else
            15 % of the training split, whose records are in random order.

    Raises:
        config.UserError: there is no such set, or it lacks a split.
    """
    sizes = datasets.lookup(name, data_dir).sizes
    cuts = validation and "validation" not in sizes
    order = ("validation", "test") if validation else ("test", "validation")
    test_split = next((split for split in order if split in sizes), "")
    if "train" not in sizes or not (cuts or test_split):
        raise config.UserError(
            f"Data set {name!r} has the splits {sorted(sizes)}; expected train, and test or "
            "validation. Prepare it with another one, or add the argument 'validation'."
        )
    if cuts:
        return f"train[:{_TRAINED}%]", f"train[{_TRAINED}%:]"
    return "train", test_split


def _count(store: sources.OnDisk, split: str, field: label.Label) -> tuple[int, ...]:
    """How many examples there are of each class."""
    records, chosen = store.open(split, {"label": field})
    reader = examples.Reader(records, {"label": field}, chosen)
    counts = np.zeros(field.num_classes, int)
    for index in range(len(records)):
        try:
            found = reader.read(index, 0.0, None)["label"]
        except errors.BadDataError:
            continue  # Is said where it is read to be trained on.
        counts += label.one_hot(np.asarray(found)[None], field.num_classes)[0].astype(int)
    return tuple(counts.tolist())


def _find(stored: features.Features) -> dict[str, str]:
    """The features that a model can read, ours -> the set's; texts if they are the only one."""
    found = {}
    for feature in _LOOKS:
        try:
            found[feature] = features.find(stored, feature, feature)
        except config.UserError:  # None, or it can't be told which.
            continue
    if len(found) > 1:
        found.pop("text", None)  # The names of files.
    return found


def _look(feature: str, values: Sequence[Any]) -> dict[str, Any]:
    """Looks at what is there of a feature, and can be decoded; nothing if nothing can."""
    look, sum_up = _LOOKS[feature]
    seen = []
    for value in values:
        try:
            if len(value):  # A clip may lack its sound.
                seen.append(look(value))
        except (errors.BadDataError, soundfile.LibsndfileError):
            continue  # Is said where it is read to be trained on.
    return sum_up(np.array(seen)) if seen else {}


def _look_at_image(value: bytes) -> list[Any]:
    """Side; whether there is colour; and of each of three channels mean and mean square."""
    picture = image.decode(value)
    small = np.asarray(picture.resize((_SIDE, _SIDE))) / 255
    coloured = np.ptp(small, axis=2).max() > _COLOUR
    return [min(picture.size), coloured, *small.mean((0, 1)), *(small**2).mean((0, 1))]


def _sum_up_images(seen: np.ndarray) -> dict[str, Any]:
    side, coloured, means, squares = np.split(seen, [1, 2, 5], axis=1)
    mean = means.mean(axis=0)
    std = np.sqrt(np.maximum(squares.mean(axis=0) - mean**2, 1e-4))  # Of one colour alone, say.
    channels = 3 if coloured.any() else 1
    return {
        "side": int(np.median(side)),
        "channels": channels,
        "mean": tuple(mean.round(4).tolist()[:channels]),
        "std": tuple(std.round(4).tolist()[:channels]),
    }


def _look_at_audio(value: bytes) -> list[Any]:
    """Seconds, and the lowest sample rate that keeps all that is heard."""
    samples, rate = soundfile.read(io.BytesIO(value), dtype="float32", always_2d=True)
    power = np.abs(np.fft.rfft(samples.mean(axis=1))) ** 2
    frequency = np.linspace(0, rate / 2, len(power))
    heard = [low for low in _RATES if power[frequency > low / 2].sum() <= _SILENT * power.sum()]
    return [len(samples) / rate, min([*heard, rate])]


def _sum_up_audio(seen: np.ndarray) -> dict[str, Any]:
    seconds, rates = seen.T
    rate = np.quantile(rates, _FULL, method="nearest")  # Of a few with a click, say.
    return {"seconds": float(np.quantile(seconds, _FULL)), "sample_rate": int(rate)}


def _look_at_video(value: Sequence[bytes] | np.ndarray) -> list[Any]:
    return [len(value) / video.STORED_FRAME_RATE, min(image.decode(value[0]).size)]


def _sum_up_video(seen: np.ndarray) -> dict[str, Any]:
    seconds = float(np.quantile(seen[:, 0], _FULL))
    return {"seconds": seconds, "side": int(np.median(seen[:, 1]))}


# By feature: what is seen of one value, and what is said of all.
_LOOKS = {
    "image": (_look_at_image, _sum_up_images),
    "audio": (_look_at_audio, _sum_up_audio),
    "video": (_look_at_video, _sum_up_video),
    "points": (lambda value: [len(value)], lambda seen: {"num_points": int(seen.min())}),
    "text": (
        lambda value: [len(value)],
        lambda seen: {"length": int(np.quantile(seen, _FULL, method="higher"))},
    ),
}
