"""From records on disk to batches: order, sharding, decoding in the background, evaluation."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import math
import multiprocessing
import os
import pathlib
import signal
import sys
import threading
from typing import Any

from absl import flags
from grain import python as grain
import ml_collections
import numpy as np

from perceiver_jax import config
from perceiver_jax.data import errors, examples, features, mix, sources
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.data.fields import image, indices, label

Batch = examples.Batch

WORKERS = config.Range(0, 1024, whole=True)  # More are a slip.
_NUM_THREADS = min(os.cpu_count() or 1, 8)


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set as a model sees it. Nothing is read, or built, before the first batch.

    A batch has the arrays of each field, `example_id` (int32 [B], its place in its split) and
    `mask` (bool [B]: False for padding). Labels are int32 [B], or float32 [B, L] of zeros and ones
    if there may be several, or of fractions if images are mixed.

    Where the data set may lack an input (a clip without audio), there is also `<input>_mask` (bool
    [B]: whether it is there); an example that lacks all of the inputs is masked.

    Attributes:
        store: where the examples come from.
        train_split: name of the training split; of data on disk also a part, in TFDS's notation.
        test_split: name of the split to evaluate on.
        batch_size: number of examples of a training batch, over all processes.
        num_workers: number of processes that decode; with 0, threads of this one do.
        fields: what is decoded from a record, inputs and targets, by name.
        mixup_alpha: images of a training batch are mixed by fractions from Beta(alpha, alpha),
            see `mix.mix`; 0 is off.
        cutmix_alpha: as mixup_alpha, for boxes.
        max_bad_records: how many records of a split may be left out, in each process, because they
            can't be decoded; with more, iteration ends with an error.
    """

    store: sources.OnDisk | sources.InMemory
    train_split: str
    test_split: str
    batch_size: int
    num_workers: int
    fields: dict[str, fields_lib.Field]
    mixup_alpha: int | float = 0.0
    cutmix_alpha: int | float = 0.0
    max_bad_records: int = 0

    def __post_init__(self):
        """Checks the numbers, and that what is to be mixed can be."""
        config.check(
            vars(self),
            batch_size=config.AT_LEAST_ONE,
            num_workers=WORKERS,
            mixup_alpha=config.NOT_NEGATIVE,
            cutmix_alpha=config.NOT_NEGATIVE,
            max_bad_records=config.COUNT,
        )
        for name, field in self.fields.items():
            if self._mixes and not isinstance(field, image.Image | label.Label):
                what = "target" if field.is_target else "input"
                is_none = "no label" if field.is_target else "no image"
                raise config.UserError(
                    f"mixup_alpha is {self.mixup_alpha} and cutmix_alpha {self.cutmix_alpha}, but "
                    f"{what} {name!r} is {is_none}; expected 0. Set both to 0."
                )

    @property
    def name(self) -> str:
        """Of the data set, for messages."""
        return self.store.name

    @property
    def inputs(self) -> dict[str, fields_lib.Field]:
        """Those of the fields that are no targets."""
        return {name: field for name, field in self.fields.items() if not field.is_target}

    @property
    def may_lack(self) -> frozenset[str]:
        """Names of the inputs that an example may lack; batches have masks of them."""
        return frozenset(n for n, x in self.inputs.items() if x.feature in self.store.may_lack)

    @property
    def labels(self) -> dict[str, label.Label]:
        """Those of the fields that are labels."""
        return {name: x for name, x in self.fields.items() if isinstance(x, label.Label)}

    def class_names(self, name: str) -> tuple[str, ...]:
        """Returns the names of a field's classes; none if it is no label.

        Needs the data set on disk.
        """
        return self.store.class_names(name) if name in self.labels else ()

    def describe(self) -> dict[str, Any]:
        """Returns what a run on arrays in memory keeps of them, as JSON values.

        Raises:
            config.UserError: the data are on disk, and so described by a config.
        """
        if not isinstance(self.store, sources.InMemory):
            raise config.UserError(
                f"Got data set {self.name!r}, which is on disk; expected arrays in memory. Name "
                "the data set in config.data instead."
            )
        return {"arrays": self.store.describe(), "batch_size": self.batch_size}

    def fingerprint(self) -> dict[str, Any]:
        """Returns what tells these data from others of the same name, as JSON values.

        Needs the data set on disk.
        """
        # Kept in data.json of each run, and compared when it is resumed: another form of it, or
        # other bytes under a sum, would refuse all runs of before.
        splits = {"train": self.train_split, "test": self.test_split}
        parts = {name: self.store.fingerprint(split) for name, split in splits.items()}
        return {"classes": [x for name in self.labels for x in self.class_names(name)], **parts}

    def check_labels(self) -> None:
        """Looks at some labels of each split, so that hidden ones are not found after hours.

        All are looked at when they are read. Needs the data set on disk.

        Raises:
            config.UserError: a label is none of the classes.
        """
        for key in ("train_split", "test_split") if self.labels else ():
            split = getattr(self, key)
            records, chosen = self.store.open(split, self.labels)
            labels = examples.Reader(records, self.labels, chosen)
            for index in sources.spread(len(records)):
                try:
                    labels.read(index, 0.0, None)
                except errors.BadDataError as error:
                    if error.cause != label.WRONG_LABEL:
                        continue  # Is counted where it is read.
                    raise config.UserError(
                        f"{records.describe(index)} of {self.name}, split {split}, has a "
                        f"{error}. Sets whose labels are hidden have -1: set config.data.{key} to "
                        "a split, or a part of one such as 'train[90%:]', that has labels."
                    ) from error

    @functools.cached_property
    def num_train(self) -> int:
        """Number of examples of the training split."""
        return self.store.num_examples(self.train_split)

    @functools.cached_property
    def num_test(self) -> int:
        """Number of examples of the test split."""
        return self.store.num_examples(self.test_split)

    def train_batches(
        self, seed: int, process_index: int = 0, process_count: int = 1
    ) -> examples.Batches:
        """Returns endless batches, in a new order in every epoch.

        Order and augmentation depend on (seed, epoch, index of the example) alone, and so does
        which example takes the place of one that can't be decoded. The batches of all processes,
        in their order, make up the global batch.

        Args:
            seed: decides order and augmentation.
            process_index: which share of each batch to give.
            process_count: number of shares.

        Returns:
            An iterator with Grain's `get_state` and `set_state`; its state is a few numbers.
        """
        reader = self._reader(self.train_split)
        # Grain adds the epoch to the seed: hashed, so that seed 0 does not become seed 1. All that
        # Grain saves is how many batches were given: a run is resumed in the same order only if
        # the order is made by these very steps. Maps may be added after them, filters never.
        order_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        dataset = grain.MapDataset.range(len(reader.records)).shuffle(order_seed).repeat()
        dataset = dataset.map_with_index(functools.partial(reader.read_to_train, seed))
        share = _share(self.batch_size, process_count)
        dataset = dataset.batch(share, drop_remainder=True, batch_fn=examples.stack)
        if self._mixes:
            if share % 2:
                raise config.UserError(
                    f"Got {share} examples of a batch for each process; expected an even number, "
                    "for images are mixed in pairs. Change config.data.batch_size."
                )
            num_classes = {name: field.num_classes for name, field in self.labels.items()}
            alphas = self.mixup_alpha, self.cutmix_alpha
            mixed = functools.partial(mix.mix, list(self.inputs), num_classes, *alphas)
            dataset = dataset.map_with_index(functools.partial(mixed, seed, process_count))
        return self._iterate(dataset, self.train_split, process_index, process_count)

    def test_batches(
        self, batch_size: int, num_windows: int, process_index: int = 0, process_count: int = 1
    ) -> examples.Batches:
        """Returns batches that hold every pair of a test example and a window exactly once.

        What can't be decoded is masked.

        Args:
            batch_size: number of pairs in a batch, over all processes.
            num_windows: windows of a clip, evenly spaced from its begin to its end; 1: the middle.
                Of a cloud: subsets of its points.
            process_index: which share of each batch to give.
            process_count: number of shares.

        Returns:
            A finite iterator; the last batches are padded with masked examples.

        Raises:
            config.UserError: several windows are wanted of inputs that have but one.
        """
        config.check(locals(), batch_size=config.AT_LEAST_ONE)
        fields_lib.check_windows(num_windows, self.fields, "config.eval.num_windows")
        reader = self._reader(self.test_split, training=False)
        num_batches = math.ceil(len(reader.records) * num_windows / batch_size)
        dataset = grain.MapDataset.range(num_batches * batch_size)
        dataset = dataset.map(functools.partial(reader.read_to_test, num_windows))
        share = _share(batch_size, process_count)
        dataset = dataset.batch(share, drop_remainder=True, batch_fn=examples.stack)
        return self._iterate(dataset, self.test_split, process_index, process_count)

    def read_train(self, indices: Sequence[int] | np.ndarray, seed: int, augmented: bool) -> Batch:
        """Reads training examples by index, as the first epoch has them.

        Args:
            indices: of the examples in the training split.
            seed: as of `train_batches`.
            augmented: whether as the model gets them, or the same windows as in evaluation.

        Returns:
            A batch of these examples, in this order.
        """
        reader = self._reader(self.train_split, training=augmented)
        read = []
        for index in map(int, indices):
            rng = examples.example_rng(seed, 0, index)
            read.append(reader.read(index, rng.random(), rng if augmented else None))
        return {name: np.stack([example[name] for example in read]) for name in read[0]}

    def read_test(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Reads test examples by index, as evaluation has their middle windows.

        Args:
            indices: of the examples in the test split.

        Returns:
            A batch of these examples, in this order.

        Raises:
            errors.BadDataError: one of them can't be decoded.
        """
        reader = self._reader(self.test_split, training=False)
        (middle,) = fields_lib.windows(1)
        read = [reader.read(int(index), middle, None) for index in indices]
        return {name: np.stack([example[name] for example in read]) for name in read[0]}

    def zero_batch(self, process_count: int = 1) -> Batch:
        """Returns a training batch of zeros of one process; needs no data set on disk."""
        share = _share(self.batch_size, process_count)
        example = self._reader(None).empty()
        if self._mixes:
            example |= {n: np.zeros(x.num_classes, np.float32) for n, x in self.labels.items()}
        # np.zeros takes memory only when it is touched: a full video batch is 5 GB.
        return {name: np.zeros((share, *v.shape), v.dtype) for name, v in example.items()}

    @property
    def _mixes(self) -> bool:
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0

    def _reader(self, split: str | None, training: bool = True) -> examples.Reader:
        fields = {
            name: field
            for name, field in self.fields.items()
            if training or not isinstance(field, indices.Indices)
        }
        records, chosen = (None, {}) if split is None else self.store.open(split, fields)
        return examples.Reader(records, fields, chosen, self.may_lack)

    def _iterate(
        self, shares: grain.MapDataset, split: str, process_index: int, process_count: int
    ) -> examples.Batches:
        shares = shares[process_index::process_count]  # Shares of a batch follow each other.
        threads = 1 if self.num_workers else _NUM_THREADS
        dataset = shares.to_iter_dataset(grain.ReadOptions(threads, threads + 1))
        if self.num_workers:
            _check_main_module(self.num_workers)
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # Grain reads its flags, also without absl.app.
            options = grain.MultiprocessingOptions(self.num_workers, per_worker_buffer_size=2)
            dataset = dataset.mp_prefetch(options, _begin_worker)
        name = f"{self.name}, split {split}"
        return examples.Batches(iter(dataset), name, self.max_bad_records)


def build_data(
    *,
    dataset: str = "",
    data_dir: str = "",
    feature_names: str = "",
    fields: Mapping[str, Mapping[str, Any]] | ml_collections.ConfigDict | None = None,
    **settings: Any,
) -> Data:
    """Builds the input pipeline from `config.data`.

    Args:
        dataset: name of the data set.
        data_dir: where TFDS keeps data sets; '' is TFDS's default.
        feature_names: what the set calls our fields, where that isn't plain from names and types,
            such as 'image=photo,label=species'; '' if it is.
        fields: for each its `kind` and that kind's settings; those that are not set of a label, or
            of a number, follow from the data set.
        **settings: the other attributes of `Data`.

    Raises:
        config.UserError: unknown data set, kind, setting or name.
    """
    if not fields:
        raise config.UserError(
            "config.data.fields is empty; expected what is to be decoded from a record, by name: "
            "{'image': {'kind': 'image', ...}, 'label': {'kind': 'label'}}. Add it."
        )
    if not dataset:
        raise config.UserError(
            "config.data.dataset is empty; expected a name such as 'mnist5k'. Set it."
        )
    names = features.parse_names(feature_names, list(fields))
    store = sources.OnDisk(dataset, data_dir, names)
    built = {}
    for name, keys in fields.items():
        keys = store.defaults(name, keys.get("kind")) | dict(keys)
        where = f"config.data.fields.{name}"
        built[name] = config.build_from_table(fields_lib.FIELDS, keys, where)
    return config.build(Data, settings, "config.data", store=store, fields=built)


def _share(batch_size: int, process_count: int) -> int:
    if batch_size % process_count:
        raise config.UserError(
            f"Got a batch of {batch_size} examples for {process_count} processes; expected a "
            "multiple of the number of processes. Change the batch size."
        )
    return batch_size // process_count


def _check_main_module(num_workers: int) -> None:
    """Refuses a script that each worker, which imports it, would run from its beginning.

    Raises:
        config.UserError: the program is a file that doesn't tell whether it is imported.
    """
    path = getattr(sys.modules["__main__"], "__file__", None)
    if path is None or not path.endswith(".py"):
        return  # A notebook, say: nothing is imported.
    try:
        source = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    if "__main__" not in source:
        raise config.UserError(
            f"Got num_workers={num_workers} in {path}, which each of these processes would run "
            'from the beginning; expected that what it does is below `if __name__ == "__main__":`. '
            "Put it there, or set num_workers to 0."
        )


def _begin_worker(worker_index: int, worker_count: int) -> None:
    """Prepares a worker process; Grain calls it there.

    Signals that end a run go to all processes of a terminal or a job, but only the one that trains
    may answer them: it still needs batches for its last step. And if that one is killed, nobody
    else would end its workers: they would wait, with their memory, for as long as the machine runs.

    Args:
        worker_index: which worker this is.
        worker_count: how many there are.
    """
    del worker_index, worker_count
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
