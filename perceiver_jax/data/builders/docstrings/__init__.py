"""docstrings: texts of five packages that are installed in any case; the package is the class.

They are read where they are installed, so that they change with the packages' versions; nothing of
them is copied here.
"""

import ast
from collections.abc import Iterator
import functools
import hashlib
import importlib.util
import itertools
import pathlib

import tensorflow_datasets as tfds

from perceiver_jax.data.builders import base

CLASSES = ("jax", "matplotlib", "numpy", "scipy", "sklearn")
SIZES = {"train": 4_000, "test": 1_000}

_SHORTEST, _LONGEST = 60, 1_000  # Letters; what is longer is cut.


class Docstrings(base.EmbeddedBuilder):
    """1,000 texts of functions and classes of each package; every fifth is a test example."""

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples of each split."""
        return SIZES

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Texts of functions and classes of five Python packages.",
            features=tfds.features.FeaturesDict(
                {
                    "file_name": tfds.features.Text(),
                    "text": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                }
            ),
        )

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        for package in CLASSES:
            for i, (name, text) in enumerate(_chosen(package)):
                if (i % 5 == 4) == (split == "test"):
                    yield (
                        f"{package}_{i:04d}",
                        {"file_name": name, "text": text, "label": package},
                    )


@functools.cache  # Both splits need it, and it takes seconds.
def _chosen(package: str) -> list[tuple[str, str]]:
    return list(itertools.islice(_texts(package), sum(SIZES.values()) // len(CLASSES)))


def _texts(package: str) -> Iterator[tuple[str, str]]:
    """Yields the files of a package, in an order that has nothing to do with names, and texts."""
    # Where it lies; it need not be imported.
    root = pathlib.Path(importlib.util.find_spec(package).origin).parent
    files = sorted(root.rglob("*.py"), key=lambda path: _hash(path.relative_to(root).as_posix()))
    seen = set()
    for path in files:
        name = path.relative_to(root.parent).as_posix()
        if "/tests/" in name:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except SyntaxError:  # Some packages have files for other versions of Python.
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                text = (ast.get_docstring(node) or "")[:_LONGEST].strip()
                if len(text) >= _SHORTEST and text not in seen:
                    seen.add(text)
                    yield name, text


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
