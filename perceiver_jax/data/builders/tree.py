"""What lies below a folder: links are followed, and what can't be used is told."""

import collections
from collections.abc import Collection, Iterable
import dataclasses
import os
import pathlib

from perceiver_jax.data.builders import report

Parts = tuple[str, ...]  # Of a path below the source: names of folders, and that of a file.

# What systems leave among one's files, in lower case; archives made on a Mac have `__MACOSX`.
_JUNK = frozenset(
    {
        *("__macosx", "$recycle.bin", "#recycle", "@eadir", "lost+found", "__pycache__"),
        *("system volume information", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db"),
        *("desktop.ini", "icon\r"),
    }
)
_PREFIX = 3  # Within a folder of so many parts, such as dataset/train/cat, a folder counts once.


@dataclasses.dataclass
class Tree:
    """What was found.

    Attributes:
        files: all that can be named, sorted.
        folders: all of them, empty ones too; of the source itself `()`. With their real paths.
        links: the real paths of files that are links.
        has_links: whether there are any.
        skipped: what is there, and neither a file that can be named nor a folder.
    """

    files: list[Parts] = dataclasses.field(default_factory=list)
    folders: dict[Parts, str] = dataclasses.field(default_factory=dict)
    links: dict[Parts, str] = dataclasses.field(default_factory=dict)
    has_links: bool = False
    skipped: list[report.Row] = dataclasses.field(default_factory=list)

    def real_path(self, file: Parts) -> str:
        """Returns where a file really is, wherever links lead to it from."""
        return self.links.get(file) or os.path.join(self.folders[file[:-1]], file[-1])


def walk(source: pathlib.Path, suffixes: Collection[str] | None = None) -> Tree:
    """Looks for all files below a folder, but hidden ones and those that systems leave there.

    Of those whose suffix is not among `suffixes`, if these are given, it is told that they are of
    another kind.

    Folders that are links are entered last, so that what is below the source itself keeps its own
    name; a link to a folder above it, or to one that was entered nearby, is not.
    """
    found = Tree()
    entered: set[tuple[Parts, str]] = set()
    links: collections.deque[Parts] = collections.deque([()])
    while links:
        folders = [links.popleft()]
        while folders:
            folder = folders.pop()
            problem = _enter(source, folder, found, entered)
            if problem:
                found.skipped.append(report.left_out("/".join(folder), *problem))
                continue
            try:
                with os.scandir(source.joinpath(*folder)) as entries:
                    inside = sorted(entries, key=lambda entry: entry.name, reverse=True)
            except OSError as error:
                if not folder:
                    raise
                found.skipped.append(
                    report.left_out("/".join(folder), "can't be read", str(error.strerror))
                )
                continue
            linked = []
            for entry in inside:
                if not entry.name.startswith(".") and entry.name.lower() not in _JUNK:
                    _sort(entry, (*folder, entry.name), found, folders, linked)
            links += reversed(linked)
    files, found.files = sorted(found.files), []
    for file in files:
        if suffixes is None or suffix(file) in suffixes:
            found.files.append(file)
        else:
            other = suffix(file) or "(no suffix)"
            found.skipped.append(report.left_out("/".join(file), report.OTHER_KIND, other))
    return found


def suffix(file: Parts) -> str:
    """Returns what a file's name ends in, in lower case, such as '.jpg'."""
    return pathlib.PurePath(file[-1]).suffix.lower()


def count_suffixes(files: Iterable[Parts]) -> str:
    """Returns which suffixes there are, the most frequent first, such as '3 x .txt, 1 x .csv'."""
    counts = collections.Counter(suffix(file) or "(no suffix)" for file in files)
    return ", ".join(f"{n:,} x {report.printable(end)}" for end, n in counts.most_common(9))


def _enter(
    source: pathlib.Path, folder: Parts, found: Tree, entered: set[tuple[Parts, str]]
) -> tuple[str, str] | None:
    """Notes a folder; or returns why it is not entered."""
    real = os.path.realpath(source.joinpath(*folder))
    above = (found.folders[folder[:i]] for i in range(len(folder)))
    if any(path == real or path.startswith(real.rstrip("/") + "/") for path in above):
        return "a link to a folder above it", real
    if (folder[:_PREFIX], real) in entered:
        return "there twice", real
    entered.add((folder[:_PREFIX], real))
    found.folders[folder] = real
    return None


def _sort(
    entry: os.DirEntry, parts: Parts, found: Tree, folders: list[Parts], links: list[Parts]
) -> None:
    name = "/".join(parts)
    found.has_links |= entry.is_symlink()
    try:
        if entry.is_dir():
            (links if entry.is_symlink() else folders).append(parts)
        elif not entry.is_file():
            cause = (
                "not a file" if os.path.lexists(os.path.realpath(entry.path)) else "a broken link"
            )
            found.skipped.append(report.left_out(name, cause))
        elif not report.is_utf8(name):
            found.skipped.append(report.left_out(name, "name is not UTF-8"))
        else:
            found.files.append(parts)
            if entry.is_symlink():
                found.links[parts] = os.path.realpath(entry.path)
    except OSError as error:  # A link to itself, say.
        cause = "a broken link" if entry.is_symlink() else "can't be read"
        found.skipped.append(report.left_out(name, cause, str(error.strerror)))
