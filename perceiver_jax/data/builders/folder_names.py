"""Which folders are splits and which are classes, told by their names and by what is in them."""

import collections
from collections.abc import Collection, Iterable, Mapping, Sequence
import dataclasses
import pathlib
import re
from typing import NoReturn

from perceiver_jax import config

Parts = tuple[str, ...]

# What folders of splits are called. `eval` is for testing, or for validation beside a `test`.
_WORDS = {
    "train": "train|training|trn|trainval|trainvalid|trainvalidation",
    "validation": "val|valid|validation|validate|dev|devel|development",
    "test": "test|testing|tst|holdout|heldout",
    "eval": "eval|evaluation",
}
# What stands beside these words and says nothing, numbers too: test_set, train_images, val2017.
_FILLERS = (
    "audios?|clips?|data|dataset|examples|files?|folder|images?|imgs?|meshes|photos|pics|pictures"
    "|set|sounds?|splits?|subset|the|videos?|wavs?"
)
_FILLED = rf"(?:{_FILLERS}|\d)*"
_MEANINGS = {word: re.compile(f"{_FILLED}(?:{names}){_FILLED}") for word, names in _WORDS.items()}
_NOTHING = re.compile(_FILLED)
_KIND = re.compile(
    rf"(?:{_FILLERS}|annotations?|bbox(?:es)?|gt|groundtruth|ground|truth|image|jpe?g|labels?|masks?"
    "|mp3|mp4|picture|png|recordings?|frames?|segmentations?|trimaps?|wav|xmls?)+"
)
_FOLD = re.compile(r"(?:cv|folds?|cross.?validation)[\W_]*\d+")
# Stands beside splits, and is left out.
_LEFT_OVER = re.compile("unlabell?ed|extra|additional|pred|predict|predictions?|samples?")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the folders below a source are to be read.

    Attributes:
        roots: the split of each folder that has folders of classes in it.
        has_splits: whether folders say which file is of which split; else all are for training.
        class_is_above: whether a class has folders of splits in it, and not the other way round.
    """

    roots: Mapping[Parts, str]
    has_splits: bool = True
    class_is_above: bool = False

    def place(self, file: Parts) -> tuple[str, str]:
        """Returns split and class of a file; '' where it is in no folder of one."""
        for depth in range(len(file)):
            split = self.roots.get(file[:depth], "")
            if split:
                if self.class_is_above:
                    return split, file[depth - 2]
                return split, file[depth] if len(file) > depth + 1 else ""
        return "", ""

    def describe(self, splits: Collection[str]) -> str:
        """Says which folders were taken for some splits."""
        roots = {root: split for root, split in self.roots.items() if split in splits}
        taken = ["/".join(root) + f" for {split}" for root, split in roots.items()]
        return f"Taken for splits: {listed(taken)}."


def understand(source: pathlib.Path, files: Sequence[Parts], folders: Iterable[Parts]) -> Layout:
    """Finds out which folders are splits and which are classes.

    Folders named as splits are (in any case, with or without `set` and the like, or with a prefix
    that they share) if there are folders in them, and files only there; `train`, full of files
    beside `car` and `bus`, is a class. Folders that hold nothing but one other are passed.

    Args:
        source: for messages.
        files: those of the wanted kind, below the source.
        folders: all, below the source.

    Raises:
        UserError: what there is could be read in several ways, or in none.
    """
    below = collections.defaultdict(list)
    for folder in sorted(folders):
        if folder:
            below[folder[:-1]].append(folder[-1])
    root: Parts = ()
    while True:
        inside: dict[str, list[Parts]] = collections.defaultdict(list)
        for file in files:
            if len(file) > len(root) + 1 and file[: len(root)] == root:
                inside[file[len(root)]].append(file[len(root) + 1 :])
        layout = _splits_above(source, root, inside, below[root]) or _classes_above(
            source, root, inside
        )
        if layout:
            return layout
        inner = _only_folder(root, inside)
        if inner is None:
            if len(inside) > 1 and all(_FOLD.fullmatch(name.lower()) for name in inside):
                refuse(source, root, f"{listed(inside)}: called as folds, which are no classes")
            return Layout({root: "train"}, has_splits=False)
        root = inner


def meaning(name: str) -> tuple[str, Parts]:
    """Returns which split a folder's name means, '' if none, and what else is in the name.

    So `Test_set` is ('test', ()), and `seg_train` is ('train', ('seg',)).
    """
    words = re.split(r"[\W_]+", re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower())
    if split := _split_of("".join(words)):
        return split, ()
    splits = [split for split in map(_split_of, words) if split]
    if len(splits) != 1:
        return "", ()
    rest = (word for word in words if not _split_of(word) and not _NOTHING.fullmatch(word))
    return splits[0], tuple(rest)


def _split_of(word: str) -> str:
    return next((split for split, names in _MEANINGS.items() if names.fullmatch(word)), "")


def refuse(source: pathlib.Path, root: Parts, what: str) -> NoReturn:
    """Raises the UserError of folders that can't be understood."""
    raise config.UserError(
        f"The folders in {source.joinpath(*root)} can't be understood: {what}. Expected a folder "
        "for each class with files in it, or such folders in train/ and test/ (or validation/). "
        "Rename or move folders, or name another one with --source."
    )


def listed(names: Iterable[str]) -> str:
    """Returns the first names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _splits_above(
    source: pathlib.Path, root: Parts, inside: Mapping[str, list[Parts]], names: Collection[str]
) -> Layout | None:
    """Reads SPLIT/CLASS/file; None if the folders are no splits."""
    named = _named(source, root, names, inside)
    inner = {name: _enter(name, inside.get(name, [])) for name in named}
    deep = [name for name in named if any(len(file) > 1 for file in inner[name][1])]
    others = [name for name in inside if name not in named]
    if not deep:
        full = {named[name] for name in named if name in inside}
        if len(full) > 1 or (full and not others):
            names = listed(name for name in named if name in inside)
            refuse(source, root, f"{names}: called as splits, but without folders of classes")
        return None
    if {named[name] for name in deep} == {"train"} and others:
        files = inner[deep[0]][1]
        if sum(len(file) == 1 for file in files) > len(files) / 2:
            return None  # A class that has other folders in it.
        rivals = [name for name in others if not _LEFT_OVER.fullmatch(name.lower())]
        if len(rivals) > 1:
            both = f"{listed(deep)} could be the training split, or a class as {listed(rivals)}"
            refuse(source, root, both)
    if "train" not in (named[name] for name in deep):
        beside = listed(name for name in inside if name not in deep)
        refuse(
            source,
            root,
            f"{listed(deep)} is the {named[deep[0]]} split by its name, and nothing is for "
            f"training, but beside it there is {beside or 'nothing'}",
        )
    chosen = _choose(source, root, named, deep)
    return Layout({(*root, *inner[name][0]): split for name, split in sorted(chosen.items())})


def _classes_above(
    source: pathlib.Path, root: Parts, inside: Mapping[str, list[Parts]]
) -> Layout | None:
    """Reads CLASS/SPLIT/file, as ModelNet40 has it; None if there are no splits in classes."""
    within = {
        name: _plain({file[0] for file in files if len(file) > 1}) for name, files in inside.items()
    }
    both = [name for name, named in within.items() if len(set(named.values())) > 1]
    both = [name for name in both if "train" in within[name].values()]
    if not both or len(inside) == 1:
        return None
    files = [file for name in both for file in inside[name] if file[0] in within[name]]
    without = [name for name in inside if not within[name]]
    if without:
        refuse(source, root, f"{listed(both)} has splits in it, and {listed(without)} has not")
    if all(len(file) > 2 for file in files):
        refuse(source, root, f"each of {listed(both)} has folders of splits; name one of them")
    roots = {}
    for name, named in within.items():
        for folder, split in sorted(_choose(source, (*root, name), named, list(named)).items()):
            roots[(*root, name, folder)] = split
    return Layout(roots, class_is_above=True)


def _only_folder(root: Parts, inside: Mapping[str, list[Parts]]) -> Parts | None:
    """Returns the folder that holds all folders of classes; None if it is the root itself."""
    while len(inside) == 1:
        ((name, files),) = inside.items()
        root = (*root, name)
        if any(len(file) == 1 for file in files):
            return None  # It is a class.
        inside = collections.defaultdict(list)
        for file in files:
            inside[file[0]].append(file[1:])
        if len(inside) > 1:
            return root
    return None


def _named(
    source: pathlib.Path, root: Parts, names: Iterable[str], inside: Mapping[str, list[Parts]]
) -> dict[str, str]:
    """Returns which folders are called as splits, alone or with something that they share."""
    plain = _plain(names)
    if any(split == "train" and name in inside for name, split in plain.items()):
        return plain
    shared: dict[Parts, dict[str, str]] = collections.defaultdict(dict)
    for name in inside:
        split, rest = meaning(name)
        if split:
            shared[rest][name] = split
    pairs = [named for named in shared.values() if len({"train", *named.values()}) > 1]
    pairs = [named for named in pairs if "train" in named.values()]
    if len(pairs) > 1:
        folders = listed(name for named in pairs for name in named)
        refuse(source, root, f"{folders}: the names are of classes and of splits at once")
    return pairs[0] if pairs else plain


def says_nothing(name: str) -> bool:
    """Whether a folder's name tells what kind of files are in it, and not what they show."""
    words = re.split(r"[\W_]+", re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return all(_KIND.fullmatch(word) for word in words)


def _plain(names: Iterable[str]) -> dict[str, str]:
    meanings = {name: meaning(name) for name in sorted(names)}
    return {name: split for name, (split, rest) in meanings.items() if split and not rest}


def _enter(name: str, files: list[Parts]) -> tuple[Parts, list[Parts]]:
    """Goes into a folder, and where it holds but one of no meaning (train/images), into that."""
    path = (name,)
    while len(within := {file[0] for file in files if len(file) > 1}) == 1:
        (only,) = within
        says_nothing = only == name or _NOTHING.fullmatch(only.lower()) or meaning(only)[0]
        if not says_nothing or only.isdigit() or any(len(file) == 1 for file in files):
            break
        path, files = (*path, only), [file[1:] for file in files]
    return path, files


def _choose(
    source: pathlib.Path, root: Parts, named: Mapping[str, str], full: Sequence[str]
) -> dict[str, str]:
    """Returns the split of each folder that is one, those without classes where no other is."""
    chosen: dict[str, str] = {}
    for word in _WORDS:
        called = [name for name in named if named[name] == word]
        called = [name for name in called if name in full] or called
        if len([name for name in called if name in full]) > 1:
            refuse(source, root, f"each of {listed(called)} would be the {word} split")
        splits = [word] if word != "eval" else ["test", "validation"]
        free = [split for split in splits if split not in chosen.values()]
        if called and free:
            chosen[called[0]] = free[0]
    return chosen
