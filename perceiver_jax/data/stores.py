"""Where the examples of a `Data` come from: a data set on disk, or arrays in memory."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any, ClassVar
import zlib

import numpy as np

from perceiver_jax.data import datasets, prepared, source
from perceiver_jax.data import fields as fields_lib

Inputs = Mapping[str, fields_lib.Field]

_NUM_SPREAD = 32


@dataclasses.dataclass(frozen=True)
class OnDisk:
    """A data set that TFDS has prepared, or that is built when it is first needed.

    Attributes:
        name: a key of `datasets.DATASETS`, or the name of a set on disk.
        data_dir: where TFDS keeps data sets; '' is TFDS's default.
        feature_names: the set's names of the features of inputs, or of 'label', that are not
            found by our names or by their types.
    """

    name: str
    data_dir: str
    feature_names: Mapping[str, str]

    def __post_init__(self):
        """Refuses a data set that nobody knows."""
        datasets.lookup(self.name, self.data_dir, self._label_name)

    @functools.cached_property
    def _known(self) -> datasets.Dataset:
        return datasets.lookup(self.name, self.data_dir, self._label_name)

    @property
    def num_classes(self) -> int:
        """Number of classes L."""
        return self._known.num_classes

    @property
    def multi_label(self) -> bool:
        """Whether an example may have several labels."""
        return self._known.multi_label

    @property
    def may_lack(self) -> tuple[str, ...]:
        """Features that a record may lack."""
        return self._known.may_lack

    @property
    def upright(self) -> bool:
        """Whether pictures are turned as their EXIF says."""
        return self._known.upright

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes. Needs the data set on disk."""
        features = datasets.prepared_builder(self.name, self.data_dir).info.features
        label = prepared.label_feature(features, self._label_name)
        return tuple(prepared.class_label(features[label]).names)

    def num_examples(self, split: str) -> int:
        """Returns the size of a split in TFDS's notation; builds nothing."""
        return datasets.num_examples(self.name, self.data_dir, split)

    def fingerprint(self, split: str) -> dict[str, Any]:
        """Returns what tells a split from one that is prepared otherwise, as JSON values."""
        known = {"examples": self.num_examples(split)}
        if self._known.builder is not None:
            return known  # Comes with the package: libraries may encode it with other bytes.
        builder = datasets.prepared_builder(self.name, self.data_dir)
        label = prepared.label_feature(builder.info.features, self._label_name)
        records = source.Source(str(builder.data_dir), split, (label,))
        return known | {
            "bytes": prepared.num_bytes(builder, split),
            "checksum": records.checksum(spread(len(records))),
        }

    def open(self, split: str, inputs: Inputs) -> tuple[source.Source, dict[str, str]]:
        """Returns the records of a split, and which of their features each input is."""
        self.num_examples(split)  # Refuses a split that there isn't.
        builder = datasets.prepared_builder(self.name, self.data_dir)
        stored = builder.info.features
        features = {
            name: prepared.input_feature(
                stored, name, field.feature, self.feature_names.get(name, "")
            )
            for name, field in inputs.items()
        }
        features["label"] = prepared.label_feature(stored, self._label_name)
        names = tuple(sorted(set(features.values())))
        return source.Source(str(builder.data_dir), split, names), features

    @property
    def _label_name(self) -> str:
        return self.feature_names.get("label", "")


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory:
    """Arrays, one for each input, whose first axis counts the examples.

    Attributes:
        name: for messages.
        splits: by name of the split the arrays by name of the input, and 'label'.
        class_names: names of the classes.
        multi_label: whether labels are [E, L] of zeros and ones instead of classes [E].
    """

    name: str
    splits: Mapping[str, "Arrays"]
    class_names: tuple[str, ...]
    multi_label: bool

    may_lack: ClassVar[tuple[str, ...]] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes L."""
        return len(self.class_names)

    def num_examples(self, split: str) -> int:
        """Returns the size of a split."""
        return len(self.splits[split])

    def fingerprint(self, split: str) -> dict[str, Any]:
        """Returns what tells a split from another one, or the same in another order.

        Not the inputs: they may be computed anew, with other last bits.
        """
        labels = self.splits[split].arrays["label"]
        return {"examples": len(labels), "labels": f"{zlib.crc32(labels.tobytes()):08x}"}

    def describe(self) -> dict[str, dict[str, str]]:
        """Returns the types and shapes of all arrays."""
        return {
            split: {name: f"{x.dtype} {list(x.shape)}" for name, x in part.arrays.items()}
            for split, part in self.splits.items()
        }

    def open(self, split: str, inputs: Inputs) -> tuple["Arrays", dict[str, str]]:
        """Returns the records of a split, and which of their features each input is."""
        return self.splits[split], {name: name for name in (*inputs, "label")}


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """The examples of a split as records.

    Attributes:
        arrays: by name of the input, and 'label': all of one length.
    """

    arrays: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        """Returns the number of records."""
        return len(self.arrays["label"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns a record."""
        record = {name: array[index] for name, array in self.arrays.items()}
        if record["label"].ndim:
            record["label"] = np.flatnonzero(record["label"])
        return record

    def describe(self, index: int) -> str:
        """Names a record for messages."""
        return f"example {index}"


def spread(size: int) -> list[int]:
    """Returns the indices of a few of `size` records, the first and the last among them."""
    return sorted(set(np.linspace(0, size - 1, _NUM_SPREAD).astype(int).tolist())) if size else []


Store = OnDisk | InMemory
