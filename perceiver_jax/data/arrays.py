"""Arrays in memory as a `Data`, in a call."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import ClassVar

import numpy as np

from perceiver_jax.data import pipeline, stores

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Array:
    """An input that is an array already.

    Attributes:
        shape: of one example.
        dtype: float32 or uint8.
        augment: changes one example in training; None changes nothing.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    augment: Augment | None = None

    feature: ClassVar[str] = "array"
    has_windows: ClassVar[bool] = False

    def spec(self) -> np.ndarray:
        """Returns zeros of the array's shape and type."""
        return np.zeros(self.shape, self.dtype)

    def read(
        self, value: np.ndarray, position: float, rng: np.random.Generator | None
    ) -> np.ndarray:
        """Returns the array, augmented if `rng` is given (training)."""
        del position
        if rng is not None and self.augment is not None:
            value = np.asarray(self.augment(value, rng), self.dtype)
        return value


def from_arrays(
    inputs: Mapping[str, np.ndarray],
    labels: Sequence[int] | np.ndarray,
    test_inputs: Mapping[str, np.ndarray],
    test_labels: Sequence[int] | np.ndarray,
    *,
    batch_size: int,
    class_names: Sequence[str] | None = None,
    augment: Mapping[str, Augment] | None = None,
    num_workers: int = 0,
) -> pipeline.Data:
    """Makes a `Data`, as the trainer takes it, of arrays in memory.

    Args:
        inputs: to train on, by the names that `config.model.inputs` has: float [E, ...], which
            becomes float32, or uint8 [E, ...].
        labels: classes, integers [E], or several labels an example, zeros and ones [E, L].
        test_inputs: as `inputs`, to evaluate on.
        test_labels: as `labels`.
        batch_size: number of examples of a training batch, over all processes.
        class_names: names of the classes; without, their numbers.
        augment: for some inputs a function of (one example's array, random generator) that returns
            an array of the same shape; in training only.
        num_workers: number of processes that augment; with 0, threads of this one do.

    Raises:
        ValueError: the arrays do not fit each other.
    """
    splits = {"train": _split(inputs, labels), "test": _split(test_inputs, test_labels)}
    train, test = (split.arrays for split in splits.values())
    for name in train.keys() | test.keys():
        forms = [
            f"{split[name].dtype} [E, {', '.join(map(str, split[name].shape[1:]))}]"
            if name in split
            else "nothing"
            for split in (train, test)
        ]
        if forms[0] != forms[1]:
            raise ValueError(
                f"Got {name!r} as {forms[0]} to train on and {forms[1]} to test on; expected the "
                "same. Make them alike."
            )
    multi_label = train["label"].ndim == 2
    if multi_label:
        num_classes = train["label"].shape[1]
    else:
        num_classes = 1 + int(max(train["label"].max(), test["label"].max()))
    names = tuple(map(str, class_names or range(num_classes)))
    if len(names) < num_classes or (multi_label and len(names) > num_classes):
        raise ValueError(
            f"Got {len(names)} class names for {num_classes} classes; expected one for each."
        )
    augment = dict(augment or {})
    modalities = {
        name: Array(array.shape[1:], array.dtype, augment.pop(name, None))
        for name, array in train.items()
        if name != "label"
    }
    if augment:
        raise ValueError(
            f"Got augment for {sorted(augment)}; expected some of {sorted(modalities)}."
        )
    store = stores.InMemory("arrays", splits, names, multi_label)
    return pipeline.Data(store, "train", "test", batch_size, num_workers, modalities)


def _split(inputs: Mapping[str, np.ndarray], labels: Sequence[int] | np.ndarray) -> stores.Arrays:
    labels = np.asarray(labels)
    if not (labels.ndim == 2 or (labels.ndim == 1 and labels.dtype.kind in "iu")):
        raise ValueError(
            f"Got labels {labels.dtype} {list(labels.shape)}; expected integers [E], or zeros and "
            "ones [E, L]."
        )
    arrays = {"label": labels.astype(np.float32 if labels.ndim == 2 else np.int32)}
    for name, array in inputs.items():
        array = np.asarray(array)
        if array.dtype.kind != "f" and array.dtype != np.uint8:
            raise ValueError(
                f"Got input {name!r} as {array.dtype}; expected floats or uint8. Convert it."
            )
        if len(array) != len(labels) or not len(labels):
            raise ValueError(
                f"Got {len(array)} examples of {name!r} and {len(labels)} labels; expected as many "
                "of the one as of the other, and at least one."
            )
        arrays[name] = array if array.dtype == np.uint8 else array.astype(np.float32)
    if len(arrays) == 1:
        raise ValueError("Got no inputs; expected at least one array. Give inputs={'name': array}.")
    return stores.Arrays(arrays)
