"""Where the examples of a `Data` come from: a data set on disk, or arrays in memory."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any, ClassVar
import zlib

import numpy as np

from perceiver_jax.data import datasets, prepared, source
from perceiver_jax.data import fields as fields_lib

Fields = Mapping[str, fields_lib.Field]

_NUM_SPREAD = 32


@dataclasses.dataclass(frozen=True)
class OnDisk:
    """A data set that TFDS has prepared, or that is built when it is first needed.

    Attributes:
        name: a key of `datasets.DATASETS`, or the name of a set on disk.
        data_dir: where TFDS keeps data sets; '' is TFDS's default.
        feature_names: the set's names of the features of those fields for which they are not
            found by our names or by their types.
    """

    name: str
    data_dir: str
    feature_names: Mapping[str, str]

    def __post_init__(self):
        """Refuses a data set that nobody knows."""
        datasets.lookup(self.name, self.data_dir)

    @functools.cached_property
    def _known(self) -> datasets.Dataset:
        return datasets.lookup(self.name, self.data_dir)

    @property
    def may_lack(self) -> tuple[str, ...]:
        """Features that a record may lack."""
        return self._known.may_lack

    def defaults(self, name: str, kind: str) -> dict[str, Any]:
        """Returns the settings of a field that follow from the data set.

        Args:
            name: of the field.
            kind: of the field.
        """
        if kind == "image":
            return {"upright": self._known.upright}
        if kind not in ("label", "number"):
            return {}
        if self._known.features is None:
            planned = {"num_classes": self._known.num_classes}
            planned["multi_label"] = self._known.multi_label
            return planned if kind == "label" else {}
        feature = self._known.features[self._feature(self._known.features, name, kind)]
        if kind == "number":
            return {"size": prepared.num_values(feature)}
        classes = prepared.class_label(feature).num_classes
        return {"num_classes": classes, "multi_label": prepared.is_multi_label(feature)}

    def class_names(self, name: str) -> tuple[str, ...]:
        """Returns the names of the classes of a label. Needs the data set on disk."""
        features = datasets.prepared_builder(self.name, self.data_dir).info.features
        feature = features[self._feature(features, name, "label")]
        return tuple(prepared.class_label(feature).names)

    def num_examples(self, split: str) -> int:
        """Returns the size of a split in TFDS's notation; builds nothing."""
        return datasets.num_examples(self.name, self.data_dir, split)

    def fingerprint(self, split: str) -> dict[str, Any]:
        """Returns what tells a split from one that is prepared otherwise, as JSON values."""
        known = {"examples": self.num_examples(split)}
        if self._known.builder is not None:
            return known  # Comes with the package: libraries may encode it with other bytes.
        builder = datasets.prepared_builder(self.name, self.data_dir)
        records = source.Source(str(builder.data_dir), split, ())
        return known | {
            "bytes": prepared.num_bytes(builder, split),
            "checksum": records.checksum(spread(len(records))),
        }

    def open(self, split: str, fields: Fields) -> tuple[source.Source, dict[str, str]]:
        """Returns the records of a split, and which of their features each field is made of."""
        self.num_examples(split)  # Refuses a split that there isn't.
        builder = datasets.prepared_builder(self.name, self.data_dir)
        stored = builder.info.features
        features = {
            name: self._feature(stored, name, field.feature) for name, field in fields.items()
        }
        names = tuple(sorted(set(features.values())))
        return source.Source(str(builder.data_dir), split, names), features

    def _feature(self, stored: prepared.Features, name: str, usual: str) -> str:
        return prepared.find_feature(stored, name, usual, self.feature_names.get(name, ""))


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory:
    """Arrays, one for each field, whose first axis counts the examples.

    Attributes:
        name: for messages.
        splits: by name of the split its arrays.
        names: of the classes, by name of the label.
    """

    name: str
    splits: Mapping[str, "Arrays"]
    names: Mapping[str, tuple[str, ...]]

    may_lack: ClassVar[tuple[str, ...]] = ()

    def class_names(self, name: str) -> tuple[str, ...]:
        """Returns the names of the classes of a label."""
        return self.names[name]

    def num_examples(self, split: str) -> int:
        """Returns the size of a split."""
        return len(self.splits[split])

    def fingerprint(self, split: str) -> dict[str, Any]:
        """Returns what tells a split from another one, or the same in another order.

        Not the inputs: they may be computed anew, with other last bits.
        """
        arrays, crc = self.splits[split], 0
        for name in sorted(arrays.targets):  # In an order of their own: runs have saved the sum.
            crc = zlib.crc32(arrays.arrays[name].tobytes(), crc)
        return {"examples": len(arrays), "labels": f"{crc:08x}"}

    def describe(self) -> dict[str, dict[str, str]]:
        """Returns the types and shapes of all arrays."""
        return {
            split: {name: f"{x.dtype} {list(x.shape)}" for name, x in part.arrays.items()}
            for split, part in self.splits.items()
        }

    def open(self, split: str, fields: Fields) -> tuple["Arrays", dict[str, str]]:
        """Returns the records of a split, and which of their features each field is made of."""
        return self.splits[split], {name: name for name in fields}


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """The examples of a split as records.

    Attributes:
        arrays: by name of the field, all of one length.
        targets: names of those that are targets.
    """

    arrays: Mapping[str, np.ndarray]
    targets: tuple[str, ...]

    def __len__(self) -> int:
        """Returns the number of records."""
        return len(self.arrays[self.targets[0]])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns a record."""
        return {name: array[index] for name, array in self.arrays.items()}

    def describe(self, index: int) -> str:
        """Names a record for messages."""
        return f"example {index}"


def spread(size: int) -> list[int]:
    """Returns the indices of a few of `size` records, the first and the last among them."""
    return sorted(set(np.linspace(0, size - 1, _NUM_SPREAD).astype(int).tolist())) if size else []


Store = OnDisk | InMemory
