"""Where the records of a `Data` come from: a data set on disk, or arrays in memory."""

from collections.abc import Iterable, Mapping
import dataclasses
import functools
import math
import textwrap
from typing import Any, ClassVar
import zlib

import numpy as np
import tensorflow_datasets as tfds

from perceiver_jax import config
from perceiver_jax.data import datasets, errors, features
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

    @property
    def may_lack(self) -> tuple[str, ...]:
        """Features that a record may lack."""
        return datasets.lookup(self.name, self.data_dir).may_lack

    def defaults(self, name: str, kind: str | None) -> dict[str, Any]:
        """Returns the settings of a field of a kind that follow from the data set."""
        known = datasets.lookup(self.name, self.data_dir)
        if kind == "image":
            return {"upright": known.upright}
        if kind == "label" and known.found is None:
            return {"num_classes": known.num_classes, "multi_label": known.multi_label}
        if kind not in ("label", "number"):
            return {}
        builder = datasets.known_builder(known, self.data_dir)
        if builder is None:
            return {}
        stored = builder.info.features
        feature = stored[self._feature(stored, name, kind)]
        if kind == "label":
            classes, multi_label = features.class_label(feature)
            return {"num_classes": classes.num_classes, "multi_label": multi_label}
        if None in feature.shape:
            raise config.UserError(
                f"Field {name!r} would be made of numbers {list(feature.shape)}; expected as many "
                "in each record. Name another feature in config.data.feature_names."
            )
        return {"size": math.prod(feature.shape)}

    def class_names(self, name: str) -> tuple[str, ...]:
        """Returns the names of the classes of a label. Needs the data set on disk."""
        stored = datasets.prepared_builder(self.name, self.data_dir).info.features
        return tuple(features.class_label(stored[self._feature(stored, name, "label")])[0].names)

    def num_examples(self, split: str) -> int:
        """Returns the size of a split in TFDS's notation; builds nothing."""
        return datasets.num_examples(self.name, self.data_dir, split)

    def fingerprint(self, split: str) -> dict[str, Any]:
        """Returns what tells a split from one that is prepared otherwise, as JSON values."""
        known = {"examples": self.num_examples(split)}
        if datasets.lookup(self.name, self.data_dir).builder is not None:
            return known  # Comes with the package: libraries may encode it with other bytes.
        builder = datasets.prepared_builder(self.name, self.data_dir)
        records = TfdsRecords(str(builder.data_dir), split, ())
        parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(builder.info.splits)
        whole = [builder.info.splits[name] for name in {part.splitname for part in parts}]
        num_bytes = sum(int(split.num_bytes) for split in whole)
        return known | {"bytes": num_bytes, "checksum": records.checksum(spread(len(records)))}

    def open(self, split: str, fields: Fields) -> tuple["TfdsRecords", dict[str, str]]:
        """Returns the records of a split, and which of their features each field is made from."""
        self.num_examples(split)  # Refuses a split that there isn't.
        builder = datasets.prepared_builder(self.name, self.data_dir)
        stored = builder.info.features
        made = {name: x.feature for name, x in fields.items() if x.feature}
        chosen = {name: self._feature(stored, name, feature) for name, feature in made.items()}
        names = tuple(sorted(set(chosen.values())))
        return TfdsRecords(str(builder.data_dir), split, names), chosen

    def _feature(self, stored: features.Features, name: str, usual: str) -> str:
        return features.find(stored, name, usual, self.feature_names.get(name, ""))


@dataclasses.dataclass(frozen=True)
class TfdsRecords:
    """The records of a split, images and audio still encoded: TFDS's ArrayRecord data source.

    Opened on first use in each process, so only names travel to worker processes.

    Attributes:
        directory: the prepared data set.
        split: TFDS's notation, such as 'train' or 'train[:90%]'.
        features: names of the features to read; the others are not even copied.
    """

    directory: str
    split: str
    features: tuple[str, ...]

    @functools.cached_property
    def _records(self) -> Any:
        builder = tfds.builder_from_directory(self.directory)
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        return builder.as_data_source(self.split, deserialize_method=raw)

    @functools.cached_property
    def _features(self) -> tfds.features.FeaturesDict:
        stored = self._records.dataset_info.features
        return tfds.features.FeaturesDict({name: stored[name] for name in self.features})

    @functools.cached_property
    def _decoders(self) -> dict[str, tfds.decode.Decoder]:
        return {
            name: _KeepEncoded()
            for name, feature in self._features.items()
            if isinstance(getattr(feature, "feature", feature), tfds.features.Image)
        }

    def __len__(self) -> int:
        """Returns the number of records."""
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Reads a record."""
        return self._features.deserialize_example_np(self._records[index], decoders=self._decoders)

    def checksum(self, indices: Iterable[int]) -> str:
        """Returns a checksum of some records as they are stored; what can't be read counts, too."""
        crc = 0
        for index in indices:
            try:
                record = self._records[index]
            except Exception as error:  # Whatever ArrayRecord says; it is said where they are read.
                if errors.means_broken_program(error):
                    raise
                record = b"damaged"
            crc = zlib.crc32(record, crc)
        return f"{crc:08x}"

    def describe(self, index: int) -> str:
        """Names a record for messages: by its number, and by its text if it has any."""
        stored = tfds.builder_from_directory(self.directory).info.features
        is_text = {
            name: isinstance(feature, tfds.features.Text) and not feature.shape
            for name, feature in stored.items()
        }
        text = next(filter(is_text.get, is_text), None)
        if text is None:
            return f"record {index}"
        try:
            record = TfdsRecords(self.directory, self.split, (text,))[index]
        except Exception as error:  # The record itself is damaged, not only what it holds.
            if errors.means_broken_program(error):
                raise
            return f"record {index}"
        shown = textwrap.shorten(record[text].decode(errors="replace"), 100, placeholder=" ...")
        return f"record {index} ({text} {shown})"

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the opened files."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


class _KeepEncoded(tfds.decode.SkipDecoding):
    """TFDS's own, of sequences too."""

    def decode_batch_example_np(self, example: Any) -> Any:
        return example


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory:
    """Arrays, one for each field, whose first axis counts the examples.

    Attributes:
        name: for messages.
        splits: by name of the split the arrays by name of the field.
        targets: names of the fields that are targets.
        names: of the classes, by name of the label.
    """

    name: str
    splits: Mapping[str, Mapping[str, np.ndarray]]
    targets: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]]

    may_lack: ClassVar[tuple[str, ...]] = ()

    def class_names(self, name: str) -> tuple[str, ...]:
        """Returns the names of the classes of a label."""
        return self.names[name]

    def num_examples(self, split: str) -> int:
        """Returns the size of a split."""
        return len(next(iter(self.splits[split].values())))

    def fingerprint(self, split: str) -> dict[str, Any]:
        """Returns what tells a split from another one, or the same in another order.

        Of the inputs texts alone: numbers may be computed anew, with other last bits.
        """
        crc, arrays = 0, self.splits[split]
        for name in sorted(self.targets):  # In an order of their own: runs have saved the sum.
            if arrays[name].dtype != object:
                crc = zlib.crc32(arrays[name].tobytes(), crc)
        for name in sorted(arrays):
            if arrays[name].dtype == object:  # Whose bytes are addresses.
                crc = zlib.crc32(repr(arrays[name].tolist()).encode(errors="replace"), crc)
        return {"examples": self.num_examples(split), "labels": f"{crc:08x}"}

    def describe(self) -> dict[str, dict[str, str]]:
        """Returns the types and shapes of all arrays."""
        return {
            split: {name: f"{x.dtype} {list(x.shape)}" for name, x in arrays.items()}
            for split, arrays in self.splits.items()
        }

    def open(self, split: str, fields: Fields) -> tuple["ArrayRecords", dict[str, str]]:
        """Returns the records of a split, and which of their features each field is made from."""
        arrays = {name: self.splits[split][name] for name, x in fields.items() if x.feature}
        return ArrayRecords(arrays), {name: name for name in arrays}


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayRecords:
    """The examples of arrays as records.

    Attributes:
        arrays: by name of the field, all of one length.
    """

    arrays: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        """Returns the number of records."""
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns a record."""
        return {name: array[index] for name, array in self.arrays.items()}

    def describe(self, index: int) -> str:
        """Names a record for messages."""
        return f"example {index}"


def spread(size: int, most: int = _NUM_SPREAD) -> list[int]:
    """Returns the indices of a few of `size` records, the first and the last among them."""
    return sorted(set(np.linspace(0, size - 1, most).astype(int).tolist())) if size else []
