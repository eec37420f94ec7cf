"""From records on disk to batches: order, sharding, decoding in the background, evaluation."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import math
import os
from typing import Any

from absl import flags
from grain import python as grain
import ml_collections
import numpy as np
import tensorflow_datasets as tfds

from perceiver_jax.data import datasets, prepared, source
from perceiver_jax.data import modalities as modality_kinds

Batch = dict[str, np.ndarray]
Example = dict[str, np.ndarray | np.generic]

_NUM_THREADS = min(os.cpu_count() or 1, 8)
_PADDING_INDEX = -1


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set as a model sees it. Nothing is read, or built, before the first batch.

    A batch has one array for each modality, `label` (int32 [B], or float32 [B, L] of zeros and
    ones if there may be several), `index` (int32 [B], of the example in its split) and `weight`
    (float32 [B]: 1, or 0 for padding).

    Where the data set may lack an input (a clip without sound), there is also `<input>_mask` (bool
    [B]: whether it is there); an example that lacks all of a model's inputs has weight 0.

    Attributes:
        dataset: name, a key of `datasets.DATASETS` or of a set that TFDS has prepared on disk.
        data_dir: where TFDS keeps data sets; '' is TFDS's default.
        train_split: TFDS's notation of the training split.
        test_split: TFDS's notation of the split to evaluate on.
        batch_size: number of examples of a training batch, over all processes.
        num_workers: number of processes that decode; with 0, threads of this one do.
        inputs: the modalities by name.
        feature_names: the set's names of the features of inputs, or of 'label', that are not
            found by our names or by their types.
    """

    dataset: str
    data_dir: str
    train_split: str
    test_split: str
    batch_size: int
    num_workers: int
    inputs: dict[str, modality_kinds.Modality]
    feature_names: dict[str, str] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def _known(self) -> datasets.Dataset:
        label = self.feature_names.get("label", "")
        return datasets.lookup(self.dataset, self.data_dir, label)

    @property
    def num_classes(self) -> int:
        """Number of classes L."""
        return self._known.num_classes

    @property
    def multi_label(self) -> bool:
        """Whether an example may have several labels."""
        return self._known.multi_label

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes. Needs the data set on disk."""
        builder = datasets.prepared_builder(self.dataset, self.data_dir)
        features = builder.info.features
        return tuple(prepared.class_label(features[self._label_feature(features)]).names)

    @functools.cached_property
    def num_train(self) -> int:
        """Number of examples of the training split."""
        return datasets.num_examples(self.dataset, self.data_dir, self.train_split)

    @functools.cached_property
    def num_test(self) -> int:
        """Number of examples of the test split."""
        return datasets.num_examples(self.dataset, self.data_dir, self.test_split)

    def train_batches(
        self, seed: int, process_index: int = 0, process_count: int = 1
    ) -> grain.DatasetIterator:
        """Returns endless batches, in a new order in every epoch.

        Order and augmentation depend on (seed, epoch, index of the example) alone. The batches of
        all processes, in their order, make up the global batch.

        Args:
            seed: decides order and augmentation.
            process_index: which share of each batch to give.
            process_count: number of shares.

        Returns:
            An iterator with Grain's `get_state` and `set_state`; its state is a few numbers.
        """
        reader = self._reader(self.train_split)
        # Grain adds the epoch to the seed: hashed, so that seed 0 does not become seed 1.
        order_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        dataset = grain.MapDataset.range(len(reader.records)).shuffle(order_seed).repeat()
        dataset = dataset.map_with_index(functools.partial(_train_example, reader, seed))
        return self._iterate(dataset, self.batch_size, process_index, process_count)

    def test_batches(
        self, batch_size: int, num_windows: int, process_index: int = 0, process_count: int = 1
    ) -> grain.DatasetIterator:
        """Returns batches that hold every pair of a test example and a window exactly once.

        Args:
            batch_size: number of pairs in a batch, over all processes.
            num_windows: windows of a clip, evenly spaced from its begin to its end; 1: the middle.
                Of a cloud: subsets of its points.
            process_index: which share of each batch to give.
            process_count: number of shares.

        Returns:
            A finite iterator; the last batches are padded with examples of weight 0.

        Raises:
            ValueError: several windows are wanted of inputs that have but one.
        """
        if num_windows > 1 and not any(m.has_windows for m in self.inputs.values()):
            raise ValueError(
                f"Got num_windows={num_windows}, but none of the inputs {sorted(self.inputs)} has "
                "several windows; expected 1. Set config.eval.num_windows=1."
            )
        reader = self._reader(self.test_split)
        num_batches = math.ceil(len(reader.records) * num_windows / batch_size)
        dataset = grain.MapDataset.range(num_batches * batch_size)
        dataset = dataset.map(functools.partial(_test_example, reader, num_windows))
        return self._iterate(dataset, batch_size, process_index, process_count)

    def read_unaugmented(self, indices: Sequence[int] | np.ndarray, seed: int) -> Batch:
        """Reads examples as in evaluation, but the windows that the first epoch of training takes.

        Args:
            indices: of the examples in the training split.
            seed: as of `train_batches`.

        Returns:
            A batch of these examples, in this order.
        """
        reader = self._reader(self.train_split)
        examples = [
            reader.read(int(i), _example_rng(seed, 0, int(i)).random(), None) for i in indices
        ]
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}

    def batch_spec(self, process_count: int = 1) -> Batch:
        """Returns a training batch of zeros of one process; needs no data set on disk."""
        share = _share(self.batch_size, process_count)
        example = self._example_reader(None).empty()
        # np.zeros takes memory only when it is touched: a full video batch is 5 GB.
        return {name: np.zeros((share, *v.shape), v.dtype) for name, v in example.items()}

    def _reader(self, split: str) -> "_Reader":
        builder = datasets.prepared_builder(self.dataset, self.data_dir)
        stored = builder.info.features
        features = {
            name: prepared.input_feature(
                stored, name, modality.feature, self.feature_names.get(name, "")
            )
            for name, modality in self.inputs.items()
        }
        features["label"] = self._label_feature(stored)
        names = tuple(sorted(set(features.values())))
        return self._example_reader(source.Source(str(builder.data_dir), split, names), features)

    def _example_reader(
        self, records: source.Source | None, features: Mapping[str, str] | None = None
    ) -> "_Reader":
        classes = self.num_classes if self.multi_label else 0
        masked = frozenset(
            name for name, x in self.inputs.items() if x.feature in self._known.may_lack
        )
        return _Reader(records, self.inputs, features or {}, classes, masked)

    def _label_feature(self, features: tfds.features.FeaturesDict) -> str:
        return prepared.label_feature(features, self.feature_names.get("label", ""))

    def _iterate(
        self, examples: grain.MapDataset, batch_size: int, process_index: int, process_count: int
    ) -> grain.DatasetIterator:
        batches = examples.batch(_share(batch_size, process_count), drop_remainder=True)
        batches = batches[process_index::process_count]  # Shares of a batch follow each other.
        threads = 1 if self.num_workers else _NUM_THREADS
        dataset = batches.to_iter_dataset(grain.ReadOptions(threads, threads + 1))
        if self.num_workers:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # Grain reads its flags, also without absl.app.
            options = grain.MultiprocessingOptions(self.num_workers, per_worker_buffer_size=2)
            dataset = dataset.mp_prefetch(options)
        return iter(dataset)


def build_data(
    *,
    dataset: str,
    data_dir: str,
    train_split: str,
    test_split: str,
    batch_size: int,
    num_workers: int,
    feature_names: str,
    modalities: Mapping[str, Mapping[str, Any]] | ml_collections.ConfigDict,
) -> Data:
    """Builds the input pipeline from `config.data`; see `Data` for the arguments.

    Args:
        dataset: name of the data set.
        data_dir: where TFDS keeps data sets; '' is TFDS's default.
        train_split: TFDS's notation of the training split.
        test_split: TFDS's notation of the split to evaluate on.
        batch_size: number of examples of a training batch, over all processes.
        num_workers: number of processes that decode; with 0, threads of this one do.
        feature_names: what the set calls our inputs and 'label', where that isn't plain from names
            and types, such as 'image=photo,label=species'; '' if it is.
        modalities: for each input its `kind` and that kind's settings.

    Raises:
        ValueError: unknown data set, kind, setting or name.
    """
    names = prepared.parse_feature_names(feature_names, [*modalities, "label"])
    datasets.lookup(dataset, data_dir, names.get("label", ""))
    inputs = {
        name: modality_kinds.build_modality(name, **settings)
        for name, settings in modalities.items()
    }
    return Data(dataset, data_dir, train_split, test_split, batch_size, num_workers, inputs, names)


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Makes examples of records; goes to worker processes, so it holds no open files."""

    records: source.Source | None
    inputs: dict[str, modality_kinds.Modality]
    features: Mapping[str, str]  # Of the records, by name of the input, and of 'label'.
    num_classes: int  # With several labels an example, else 0.
    masked: frozenset[str]  # Inputs that a record may lack.

    def read(self, index: int, position: float, rng: np.random.Generator | None) -> Example:
        """Reads the window at `position` of example `index`; with `rng`, augments it."""
        record = self.records[index]
        example, there = {}, {}
        for name, modality in self.inputs.items():
            value = record[self.features[name]]
            there[name] = name not in self.masked or len(value) > 0
            example[name] = modality.read(value, position, rng) if there[name] else modality.spec()
        label = self._encode_label(record[self.features["label"]])
        example |= self._masks(there)
        weight = np.float32(any(there.values()))
        return example | {"label": label, "index": np.int32(index), "weight": weight}

    def empty(self) -> Example:
        """Returns an example of zeros with weight 0 that pads a batch."""
        example = {name: modality.spec() for name, modality in self.inputs.items()}
        label = self._encode_label([] if self.num_classes else 0)
        index = np.int32(_PADDING_INDEX)
        example |= self._masks(dict.fromkeys(self.inputs, False))
        return example | {"label": label, "index": index, "weight": np.float32(0)}

    def _masks(self, there: Mapping[str, bool]) -> Example:
        return {f"{name}_mask": np.bool_(there[name]) for name in sorted(self.masked)}

    def _encode_label(self, value: Any) -> np.ndarray | np.int32:
        if not self.num_classes:
            return np.int32(value)
        several = np.zeros(self.num_classes, np.float32)
        several[np.asarray(value, int)] = 1
        return several


def _train_example(reader: _Reader, seed: int, position: int, index: int) -> Example:
    epoch = position // len(reader.records)
    rng = _example_rng(seed, epoch, index)
    return reader.read(index, rng.random(), rng)


def _example_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The randomness of an example; its first number is the window's position."""
    return np.random.default_rng([seed, epoch, index])


def _test_example(reader: _Reader, num_windows: int, pair: int) -> Example:
    index, window = divmod(pair, num_windows)
    if index >= len(reader.records):
        return reader.empty()
    position = 0.5 if num_windows == 1 else window / (num_windows - 1)
    return reader.read(index, position, None)


def _share(batch_size: int, process_count: int) -> int:
    if batch_size % process_count:
        raise ValueError(
            f"Got a batch of {batch_size} examples for {process_count} processes; expected a "
            "multiple of the number of processes. Change the batch size."
        )
    return batch_size // process_count
