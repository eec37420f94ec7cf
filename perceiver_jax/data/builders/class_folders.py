"""A folder per class: which files are of which class and which split."""

from collections.abc import Collection
import dataclasses
import hashlib
import os
import pathlib

from perceiver_jax.data.builders import report

_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "test": "test"}
_SPLITS["validation"] = "validation"


@dataclasses.dataclass(frozen=True)
class Files:
    """The files below a folder.

    Attributes:
        classes: names of the classes, sorted.
        splits: for each split its files, as (name relative to the source, class).
        skipped: files that are not of the wanted kind.
    """

    classes: tuple[str, ...]
    splits: dict[str, list[tuple[str, str]]]
    skipped: list[report.Skipped]


def find(source: pathlib.Path, suffixes: Collection[str], test_fraction: float) -> Files:
    """Finds the files of each class in `source`, or in `source/train`, `source/test` and so on.

    Without folders of splits, or with `train` alone, a part of the files becomes the test split:
    those whose name has a small hash, so that a file stays where it is when others are added. There
    is at least one to test on, and one of each class to train on.
    Folders in the folder of a class belong to that class. Hidden files are passed over.

    Args:
        source: has a folder for each class, or for each split.
        suffixes: what the names of wanted files end in, in lower case, such as '.jpg'.
        test_fraction: how much of the files is for testing, where the folders don't say.

    Raises:
        ValueError: there are no such files, or a class occurs in testing only.
    """
    folders = {
        _SPLITS[path.name.lower()]: path
        for path in sorted(source.iterdir())
        if path.is_dir() and path.name.lower() in _SPLITS
    }
    if "train" not in folders:
        folders = {"train": source}
    skipped: list[report.Skipped] = []
    splits = {split: _files(source, folder, suffixes, skipped) for split, folder in folders.items()}
    if list(splits) == ["train"]:
        splits = _split(splits["train"], test_fraction)
    classes = sorted({label for _, label in splits["train"]})
    if not classes:
        raise ValueError(
            f"There are no files {', '.join(sorted(suffixes))} for training in {source}; expected "
            "a folder for each class with files in it, or such folders in train/ and test/."
        )
    for split, files in splits.items():
        unknown = sorted({label for _, label in files} - set(classes))
        if unknown:
            raise ValueError(
                f"Classes {unknown} have files in the {split} split only; expected some to train "
                "on. Add them, or take these classes out."
            )
    return Files(tuple(classes), splits, skipped)


def _split(files: list[tuple[str, str]], test_fraction: float) -> dict[str, list[tuple[str, str]]]:
    by_hash = sorted(files, key=lambda pair: _hash(pair[0]))
    kept = {label: (name, label) for name, label in by_hash}  # Of each class the last.
    test = {pair for pair in by_hash if _hash(pair[0]) < test_fraction} - set(kept.values())
    if not test and test_fraction > 0:
        test = set([pair for pair in by_hash if kept[pair[1]] != pair][:1])
    return {
        "train": [pair for pair in files if pair not in test],
        "test": [pair for pair in files if pair in test],
    }


def _files(
    source: pathlib.Path,
    folder: pathlib.Path,
    suffixes: Collection[str],
    skipped: list[report.Skipped],
) -> list[tuple[str, str]]:
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts) or not path.is_file():
            continue
        name = path.relative_to(source).as_posix()
        if len(inside.parts) < 2:
            skipped.append(report.Skipped(name, "not in the folder of a class"))
        elif path.suffix.lower() not in suffixes:
            skipped.append(report.Skipped(name, "another kind of file"))
        else:
            found.append((name, inside.parts[0]))
    return found


def _hash(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8]) / 2**64
