"""A folder per class: which files are of which class and which split."""

import argparse
import collections
from collections.abc import Collection, Sequence
import dataclasses
import hashlib
import os
import pathlib
import re
import unicodedata

from perceiver_jax import config
from perceiver_jax.data.builders import folder_names, report, tree

_LOOSE = "not in the folder of a class"
_SPLITS = [(split, ()) for split in ("train", "validation", "test", "eval")]


@dataclasses.dataclass(frozen=True)
class Files:
    """The files below a folder.

    Attributes:
        classes: names of the classes, sorted.
        splits: for each split its files, as (name relative to the source, class).
        skipped: files that are not of the wanted kind, or in no place that tells their class.
        note: what the user should know of how the folders were understood; may be empty.
    """

    classes: tuple[str, ...]
    splits: dict[str, list[tuple[str, str]]]
    skipped: list[report.Row]
    note: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that all kinds of such folders have."""
    parser.add_argument("--source", required=True, help="has a folder for each class, or split")
    parser.add_argument("--name", help="of the data set; default: the source's own name")
    parser.add_argument(
        "--test_fraction",
        type=float,
        default=0.1,
        help="part of the files to test on if there are no folders train and test (default: 0.1)",
    )


def choose_name(flags: argparse.Namespace) -> str:
    """Returns `--name`, or else the name of the source without what TFDS does not allow in one.

    Raises:
        UserError: TFDS allows no such name.
    """
    source = pathlib.Path(os.path.abspath(flags.source))  # A link has a name of its own.
    own = (source.stem if source.is_file() else source.name).lower()
    name = flags.name or re.sub("[^a-z0-9]+", "_", own).strip("_")
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise config.UserError(
            f"{name!r} can't be the name of a data set; expected a letter, then letters, digits "
            "and '_', all lower-case. Set --name."
        )
    return name


def find(
    source: pathlib.Path, suffixes: Collection[str], test_fraction: float, what: str = "files"
) -> Files:
    """Finds the files of each class in `source`, or in `source/train`, `source/test` and so on.

    `folder_names.understand` says which folders are splits, and which are classes. Without folders
    of splits, or with `train` alone, a part of the files becomes the test split: those whose name
    has a small hash, so that a file stays where it is when others are added. There is at least one
    to test on, and one of each class to train on.
    Folders in the folder of a class belong to that class. Links are followed. Hidden files, and
    those that systems leave there (`Thumbs.db`, `__MACOSX`), are passed over.

    Args:
        source: has a folder for each class, or for each split.
        suffixes: what the names of wanted files end in, in lower case, such as '.jpg'.
        test_fraction: how much of the files is for testing, where the folders don't say.
        what: the files are, for messages.

    Raises:
        UserError: there are no such files, or the folders can't be understood, or nothing is left
            to test on, or a class occurs in testing only.
    """
    check_test_fraction(test_fraction)
    found = tree.walk(source, suffixes)
    wanted, skipped = found.files, list(found.skipped)
    layout = folder_names.understand(source, wanted, found.folders)
    splits = _sort(source, _once(wanted, found, skipped), layout, skipped)
    if not splits["train"]:
        raise config.UserError(_explain_nothing(source, suffixes, skipped))
    splits = _without_empty(source, splits, layout)
    if list(splits) == ["train"]:
        splits = divide(splits["train"], test_fraction)
        if not splits["test"]:
            raise config.UserError(
                f"None of the {what} in {source} is for the test split, for there are "
                f"{len(splits['train'])}, and one of each class is to train on (--test_fraction="
                f"{test_fraction:g}); expected one or more. Add {what}, or change --test_fraction, "
                "or make folders train and test."
            )
    classes = sorted({label for _, label in splits["train"]})
    for split, files in splits.items():
        unknown = sorted({label for _, label in files} - set(classes))
        if unknown:
            raise config.UserError(
                f"Classes {unknown} have files in the {split} split only; expected some to train "
                f"on. Add them, or take these classes out. {layout.describe(splits)}"
            )
    if all(folder_names.says_nothing(label) for label in classes):
        folder_names.refuse(
            source,
            (),
            f"{folder_names.listed(classes)}: says what kind of files there are, not what they "
            "show",
        )
    _refuse_copies(source, set(classes), wanted, layout)
    note = _note(classes, wanted, layout, splits)
    kinds = sorted(filter(folder_names.says_nothing, {f[-2] for f in wanted if len(f) > 2}))
    if len(kinds) > 1:
        note += (
            f" The {what} in the folders {folder_names.listed(kinds)} are all taken; move away "
            "what is no example of its class, such as masks."
        )
    return Files(tuple(classes), splits, skipped, f"{note} {_note_empty(found, layout)}".strip())


def check_test_fraction(test_fraction: float) -> None:
    """Refuses what is no part of the files."""
    if not 0 <= test_fraction < 1:
        raise config.UserError(
            f"Got --test_fraction={test_fraction:g}; expected a number between 0 and 1, the part "
            "of the files to test on, such as 0.1."
        )


def _once(files: list[tree.Parts], found: tree.Tree, skipped: list[report.Row]) -> list[tree.Parts]:
    """Leaves out files that links lead to from a second place."""
    if not found.has_links:
        return files
    own = found.folders[()]
    real = {file: found.real_path(file) for file in files}
    first: dict[str, tree.Parts] = {}
    # A file below the source itself keeps its name, whatever links lead to it.
    for file in sorted(files, key=lambda f: (real[f] != os.path.join(own, *f), f)):
        first.setdefault(real[file], file)
    for file in files:
        if first[real[file]] != file:
            same = f"the same file as {'/'.join(first[real[file]])}"
            skipped.append(report.left_out("/".join(file), "there twice", same))
    return [file for file in files if first[real[file]] == file]


def _sort(
    source: pathlib.Path,
    files: list[tree.Parts],
    layout: folder_names.Layout,
    skipped: list[report.Row],
) -> dict[str, list[tuple[str, str]]]:
    """Returns the files of each split with their classes."""
    splits: dict[str, list[tuple[str, str]]] = {split: [] for split in layout.roots.values()}
    folders: dict[tuple[str, str], str] = {}
    for file in files:
        name = "/".join(file)
        split, folder = layout.place(file)
        if not folder:
            of = "a class" if split or not layout.has_splits else "a split"
            skipped.append(report.left_out(name, f"not in the folder of {of}"))
            continue
        # TFDS keeps labels so, each on a line. Archives made on a Mac spell letters in parts.
        label = unicodedata.normalize("NFC", report.printable(folder).strip())
        if not label or (first := folders.setdefault((split, label), folder)) != folder:
            raise config.UserError(
                f"The names of the folders of classes {sorted({folder, first if label else ''})} "
                f"in {source} differ in white space or spelling of accents alone; expected others. "
                "Rename them."
            )
        splits[split].append((name, label))
    return splits


def _without_empty(
    source: pathlib.Path, splits: dict[str, list[tuple[str, str]]], layout: folder_names.Layout
) -> dict[str, list[tuple[str, str]]]:
    """Leaves out folders of splits that hold no folders of classes, if another is to test on."""
    full = {split: files for split, files in splits.items() if files}
    empty = [split for split in splits if split not in full]
    if empty and list(full) == ["train"]:
        folders = ", ".join("/".join(root) for root, s in layout.roots.items() if s in empty)
        raise config.UserError(
            f"The folder {folders} in {source}, taken for the {empty[0]} split, has no files in "
            "folders of classes, so nothing tells what they show; expected the same folders as "
            f"for training. Sort its files into such, or move it away: then a part of the others "
            "is for testing (--test_fraction)."
        )
    return full


def divide(files: list[tuple[str, str]], test_fraction: float) -> dict[str, list[tuple[str, str]]]:
    """Divides pairs of a name and a class into a `train` and a `test` split, by names' hashes."""
    by_hash = sorted(files, key=lambda pair: _hash(pair[0]))
    kept = {label: (name, label) for name, label in by_hash}  # Of each class the last.
    test = {pair for pair in by_hash if _hash(pair[0]) < test_fraction} - set(kept.values())
    if not test and test_fraction > 0:
        test = set([pair for pair in by_hash if kept[pair[1]] != pair][:1])
    return {
        "train": [pair for pair in files if pair not in test],
        "test": [pair for pair in files if pair in test],
    }


def _explain_nothing(
    source: pathlib.Path, suffixes: Collection[str], skipped: Sequence[report.Row]
) -> str:
    """Says what there is instead of files of classes."""
    counts = collections.Counter(
        one.detail if one.cause == report.OTHER_KIND else one.cause for one in skipped
    )
    found = ", ".join(f"{number:,} x {what}" for what, number in counts.most_common(9))
    advice = "Correct --source, or convert the files."
    if any(one.cause == _LOOSE for one in skipped):
        advice = (
            f"If {source.name} is one class, give the folder above it: --source={source.parent}"
        )
    return (
        f"There are no files {', '.join(sorted(suffixes))} in folders of classes in {source}; "
        "expected a folder for each class with files in it, or such folders in train/ and test/. "
        f"Found {found or 'no files'}. {advice}"
    )


def _refuse_copies(
    source: pathlib.Path,
    classes: Collection[str],
    files: list[tree.Parts],
    layout: folder_names.Layout,
) -> None:
    """Refuses a folder with the same classes in it as there are beside it: a second copy, say."""
    within = collections.defaultdict(set)
    for root in () if layout.class_is_above else layout.roots:
        for file in files:
            if file[: len(root)] == root and len(file) > len(root) + 2:
                within[file[: len(root) + 1]].add(file[len(root) + 1])
    for folder, inner in within.items():
        same = sorted(inner & (set(classes) - {folder[-1]}))
        if len(same) > 1:
            folder_names.refuse(
                source,
                folder[:-1],
                f"{folder[-1]} has in it what is beside it, too: {', '.join(same)}",
            )


def _note(
    classes: Sequence[str],
    files: list[tree.Parts],
    layout: folder_names.Layout,
    splits: Collection[str],
) -> str:
    if len(classes) == 1:
        return f"There is one class, {classes[0]}: a model has nothing to tell apart."
    if layout.has_splits:
        return layout.describe(splits)
    (root,) = layout.roots
    within = collections.defaultdict(set)
    for file in files:
        if len(file) > len(root) + 1:
            below = [
                part for part in file[len(root) + 1 : -1] if not folder_names.says_nothing(part)
            ]
            within[file[len(root)]].add(below[-1] if below else "")
    asked = [label for label in classes if folder_names.meaning(label) in _SPLITS]
    if asked:
        return (
            f"Taken for a class like the others: {folder_names.listed(asked)}, for there are files "
            "and no folders in it. If it is no class, move it away."
        )
    inner = next(iter(within.values()))
    if len(inner) > 1 and "" not in inner and all(names == inner for names in within.values()):
        return (
            f"Taken for classes: {folder_names.listed(classes)}; each of them has the folders "
            f"{folder_names.listed(sorted(inner))}. If these are the classes, rename those above "
            "them to train and test."
        )
    return ""


def _note_empty(found: tree.Tree, layout: folder_names.Layout) -> str:
    """Names folders that are where those of classes are, and have nothing to use in them."""
    if layout.class_is_above:
        return ""
    there = [*found.files, *((*one.name.split("/"), "") for one in found.skipped)]
    full = {file[:depth] for file in there for depth in range(1, len(file))}
    empty = sorted(
        "/".join(folder)
        for folder in found.folders
        if folder and folder[:-1] in layout.roots and folder not in full
    )
    return f"Empty, and so no classes: {folder_names.listed(empty)}." if empty else ""


def _hash(name: str) -> float:
    """A number in [0, 1) that depends on the name alone, and so does what is tested on."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8]) / 2**64
