"""Random access to the records of a prepared data set, images and sound still encoded."""

from collections.abc import Iterable
import dataclasses
import functools
from typing import Any
import zlib

import tensorflow_datasets as tfds

from perceiver_jax.data import errors


@dataclasses.dataclass(frozen=True)
class Source:
    """The records of a split, read with `tfds`'s ArrayRecord data source.

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
        features = tfds.builder_from_directory(self.directory).info.features
        texts = [
            name
            for name, feature in features.items()
            if isinstance(feature, tfds.features.Text) and not feature.shape
        ]
        if not texts:
            return f"record {index}"
        try:
            text = Source(self.directory, self.split, (texts[0],))[index][texts[0]].decode()
        except Exception as error:  # The record itself is damaged, not only what it holds.
            if errors.means_broken_program(error):
                raise
            return f"record {index}"
        return f"record {index} ({texts[0]} {text})"

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the opened files."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


class _KeepEncoded(tfds.decode.SkipDecoding):
    """TFDS's own, of sequences too."""

    def decode_batch_example_np(self, example: Any) -> Any:
        return example
