"""Plain texts, which have no classes: each line an example, or files cut into pieces."""

import argparse
from collections.abc import Iterator
import pathlib

from perceiver_jax import config
from perceiver_jax.data.builders import class_folders, report, texts

SUFFIXES = (".txt", ".text", ".md", ".rst", ".tex")
_MANY_FILES = 10  # With so many, all of a file is to train or to test on.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this kind."""
    texts.add_arguments(parser, "a text file, or a folder of them")
    parser.add_argument("--lines", action="store_true", help="each line is an example")
    parser.add_argument(
        "--max_length", type=int, default=2048, help="most bytes of an example (default: 2048)"
    )


def from_flags(flags: argparse.Namespace, data_dir: pathlib.Path) -> tuple[texts.TextBuilder, None]:
    """Returns the builder, and nothing that TFDS has to download.

    Raises:
        UserError: a file can't be read, or there is nothing in any.
    """
    config.AT_LEAST_ONE.check("--max_length", flags.max_length, flags.max_length)
    name = class_folders.choose_name(flags)
    files, skipped = texts.find(flags.source, SUFFIXES), []
    splits = {
        split: [text for path in paths for text in _read(path, flags, skipped)]
        for split, paths in files.items()
    }
    for split, found in splits.items():
        report.check_any(len(found), "files", f"the files of {split or flags.source}", skipped)
    by_file = sum(map(len, files.values())) >= _MANY_FILES
    splits = texts.divide(splits, flags.test_fraction, by_file)
    return texts.TextBuilder(name, data_dir, splits, skipped), None


def _read(
    path: pathlib.Path, flags: argparse.Namespace, skipped: list[report.Row]
) -> Iterator[texts.Text]:
    """Yields the texts of a file."""
    content = texts.read(path, flags.encoding)
    shown = texts.shown(path, flags.source)
    if not content.strip():
        skipped.append(report.left_out(shown, "empty text"))
        return
    lines = content.splitlines() if flags.lines else [content]
    for number, line in enumerate(lines, start=1):
        for part, piece in enumerate(pieces(line, flags.max_length), start=1):
            place = f"line {number}" if flags.lines else f"part {part}"
            more = f" part {part}" if flags.lines and part > 1 else ""
            yield texts.Text(f"{shown}, {place}{more}", piece)


def pieces(text: str, max_length: int) -> Iterator[str]:
    """Cuts a text into pieces of at most so many bytes, between words where there are any."""
    rest = text.strip().encode()
    while rest:
        end = len(rest)
        if end > max_length:
            space = max(rest.rfind(mark, 0, max_length + 1) for mark in (b" ", b"\n", b"\t"))
            end = space if space > 0 else max_length
            while end < len(rest) and end > 1 and rest[end] & 0xC0 == 0x80:
                end -= 1  # Within a letter.
        piece = rest[:end].decode(errors="ignore").strip()
        if piece:
            yield piece
        rest = rest[end:].lstrip()
