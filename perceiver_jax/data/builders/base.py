"""What builders share: nothing is downloaded, progress is shown, what is left out is reported."""

import abc
import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
import pathlib
from typing import Any, TypeVar

import rich.console
import rich.progress
import tensorflow_datasets as tfds

from perceiver_jax.data.builders import report

_T = TypeVar("_T")


class _LocalBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set made from what is on this machine."""

    VERSION = tfds.core.Version("1.0.0")

    @property
    @abc.abstractmethod
    def sizes(self) -> Mapping[str, int]:
        """Number of examples, or of files, of each split."""

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict]]]:
        del dl_manager  # Nothing is downloaded.
        return {split: self._generate_examples(split) for split in self.sizes}

    def _track(self, items: Iterable[_T], split: str) -> Iterable[_T]:
        return rich.progress.track(
            items,
            description=f"Building {self.name}, {split} split",
            total=self.sizes[split],
            console=rich.console.Console(stderr=True),
        )


class EmbeddedBuilder(_LocalBuilder, skip_registration=True):
    """A data set made from what is installed, so that its sizes are known before it is built."""

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict]]]:
        examples = super()._split_generators(dl_manager)
        return {split: self._track(examples[split], split) for split in examples}


Result = report.Row | tuple[str, dict]  # An example, by its name, or why it is left out.


class FilesBuilder(_LocalBuilder, skip_registration=True):
    """A data set made from one's own files; those that can't be used are left out and reported.

    TFDS orders records by a hash of the examples' names, and training draws them by their place: a
    change of the names changes what every run sees.

    Attributes:
        found: number of examples of each split, those left out among them, after the build.
        skipped: what was left out.
        note: what the user should know of how the files were understood; may be empty.
    """

    WHAT = "files"  # For messages.
    note = ""

    def __init__(
        self,
        *,
        tasks: Mapping[str, Sequence[Any]],
        classes: Sequence[str],
        skipped: Sequence[report.Row],
        data_dir: pathlib.Path,
    ):
        """Sets the builder up; nothing but names has been read yet.

        Args:
            tasks: of each split, what `_read` shall read.
            classes: names of the classes in their order.
            skipped: what is left out already.
            data_dir: where TFDS keeps data sets.
        """
        self._tasks, self._classes = tasks, tuple(classes)
        self.found: collections.Counter[str] = collections.Counter()
        self.skipped = list(skipped)
        super().__init__(data_dir=data_dir)

    @abc.abstractmethod
    def _read(self, tasks: Sequence[Any]) -> Iterator[Sequence[Result]]:
        """Yields of each task what it holds."""

    @property
    def sizes(self) -> dict[str, int]:
        """Number of tasks of each split."""
        return {split: len(tasks) for split, tasks in self._tasks.items()}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        skipped = []
        for results in self._track(self._read(self._tasks[split]), split):
            for result in results:
                self.found[split] += 1
                if isinstance(result, report.Row):
                    skipped.append(result)
                else:
                    yield result
        self.skipped += skipped
        num_kept = self.found[split] - len(skipped)
        report.check_any(num_kept, self.WHAT, f"the {split} split", skipped)

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        splits = self.info.splits.items()
        counts = {split: {"kept": info.num_examples} for split, info in splits}
        report.write(pathlib.Path(self.data_path), counts, self.skipped)
