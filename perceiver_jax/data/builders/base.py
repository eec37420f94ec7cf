"""What the builders of the embedded data sets share: sizes known in advance, and progress."""

import abc
from collections.abc import Iterator, Mapping
from typing import Any

import rich.console
import rich.progress
import tensorflow_datasets as tfds


class EmbeddedBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set made from what is installed, so that its sizes are known before it is built."""

    VERSION = tfds.core.Version("1.0.0")

    @property
    @abc.abstractmethod
    def sizes(self) -> Mapping[str, int]:
        """Number of examples of each split."""

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict]]]:
        del dl_manager  # Nothing is downloaded.
        return {split: self._with_progress(split) for split in self.sizes}

    def _with_progress(self, split: str) -> Iterator[tuple[str, dict]]:
        yield from rich.progress.track(
            self._generate_examples(split),
            description=f"Building {self.name}, {split} split",
            total=self.sizes[split],
            console=rich.console.Console(stderr=True),
        )
