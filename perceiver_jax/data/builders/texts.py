"""Texts of one's own: what builders of them share."""

import argparse
import collections
from collections.abc import Mapping, Sequence
import pathlib
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from perceiver_jax import config
from perceiver_jax.data.builders import base, class_folders, folder_names, report

_READ = 2_048  # Bytes; as many as the released language model reads.


class Text(NamedTuple):
    """An example.

    Attributes:
        place: where it is from, for people: 'reviews.csv, line 17'.
        text: itself.
        label: name of its class; '' if there are no classes.
    """

    place: str
    text: str
    label: str = ""


def add_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds the flags that all kinds of texts have."""
    parser.add_argument("--source", required=True, help=what)
    parser.add_argument("--name", help="of the data set; default: the source's own name")
    parser.add_argument(
        "--test_fraction",
        type=float,
        default=0.1,
        help="part of the texts to test on if no files are called train and test (default: 0.1)",
    )
    parser.add_argument("--encoding", default="utf-8", help="of the files (default: utf-8)")


class TextBuilder(base.FilesBuilder, skip_registration=True):
    """Texts with or without classes."""

    WHAT = "texts"

    def __init__(
        self,
        name: str,
        data_dir: pathlib.Path,
        splits: Mapping[str, Sequence[Text]],
        skipped: Sequence[report.Row],
    ):
        """Takes texts that are read already.

        Args:
            name: of the data set.
            data_dir: where TFDS keeps data sets.
            splits: the texts of each split.
            skipped: what is left out.

        Raises:
            UserError: a class has texts in one split alone, or there are no texts.
        """
        for split, texts in splits.items():
            report.check_any(len(texts), self.WHAT, f"the {split} split", skipped)
        labels = {split: {text.label for text in texts} for split, texts in splits.items()}
        for split, there in labels.items():
            if there - labels["train"]:
                raise config.UserError(
                    f"Classes {sorted(there - labels['train'])} have texts in the {split} split "
                    "only; expected some to train on. Add them, or take these classes out."
                )
        self.name, self.note = name, _note(splits)
        super().__init__(
            tasks={split: [[text] for text in texts] for split, texts in splits.items()},
            classes=sorted(labels["train"] - {""}),
            skipped=skipped,
            data_dir=data_dir,
        )

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"file_name": tfds.features.Text(), "text": tfds.features.Text()}
        if self._classes:
            features["label"] = tfds.features.ClassLabel(names=self._classes)
        return tfds.core.DatasetInfo(
            builder=self, description="Texts.", features=tfds.features.FeaturesDict(features)
        )

    def _read(self, tasks: Sequence[Sequence[Text]]):
        for texts in tasks:
            yield [
                (x.place, {"file_name": x.place, "text": x.text} | _label(x.label)) for x in texts
            ]


def read(path: pathlib.Path, encoding: str) -> str:
    """Returns the text of a file, without the mark that some programs put before it.

    Raises:
        UserError: it has another encoding, or there is no such.
    """
    content = path.read_bytes()
    is_utf8 = encoding.lower() in ("utf-8", "utf8")
    try:
        return content.decode("utf-8-sig" if is_utf8 else encoding)
    except LookupError as error:
        raise config.UserError(
            f"Got --encoding={encoding}; expected one that Python knows, such as utf-8 or "
            "latin-1. Correct it."
        ) from error
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        line = content.count(b"\n", 0, start) + 1
        found = f"byte 0x{content[start]:02x}" if start < len(content) else "its end"
        utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        hint = "utf-16" if utf16 else "cp1252 (Windows) or latin-1"
        raise config.UserError(
            f"{path}, line {line}: {found} is not in the encoding {encoding}; expected text. Say "
            f"which it has, such as --encoding={hint}."
        ) from error


def shown(path: pathlib.Path, source: pathlib.Path) -> str:
    """Returns how a file is called in examples and reports."""
    return path.name if source.is_file() else path.relative_to(source).as_posix()


def find(source: pathlib.Path, suffixes: Sequence[str]) -> dict[str, list[pathlib.Path]]:
    """Returns the files of each split; with the split '' if their names tell none.

    Args:
        source: a file, or a folder with files called train and test, or such folders, or others.
        suffixes: of the files that are taken, in lower case.

    Raises:
        UserError: there are none, or only some of them are called as splits.
    """
    if source.is_file():
        return {"": [source]}
    files = [
        path
        for path in sorted(source.rglob("*"))
        if path.is_file()
        and path.suffix.lower() in suffixes
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
    ]
    if not files:
        raise config.UserError(
            f"There are no files {', '.join(suffixes)} in {source}; expected at least one. Correct "
            "--source, or rename the files."
        )
    splits = collections.defaultdict(list)
    for path in files:
        parts = path.relative_to(source).parts
        named = [folder_names.meaning(x) for x in (*parts[:-1], path.stem)]
        meant = [split for split, rest in named if split and not rest]
        splits[{"eval": "test"}.get(meant[0], meant[0]) if meant else ""].append(path)
    if "" in splits and len(splits) > 1:
        others = folder_names.listed(str(path.relative_to(source)) for path in splits[""])
        raise config.UserError(
            f"Of the files in {source} some are called as splits, and others are not: {others}; "
            "expected all or none. Rename them train and test, or move them away."
        )
    if "" not in splits and "train" not in splits:
        raise config.UserError(
            f"There is no file called train in {source}, only {sorted(splits)}; expected one to "
            "train on. Rename it."
        )
    return dict(splits)


def divide(
    splits: Mapping[str, Sequence[Text]], test_fraction: float, by_file: bool = False
) -> dict[str, list[Text]]:
    """Divides texts into training and testing where their files don't tell which are which.

    By a hash of the text, so that it stays where it is when others are added, and the same text is
    never in both.

    Args:
        splits: texts by split; '' or 'train' alone if nothing is to test on.
        test_fraction: part of the texts that is to test on.
        by_file: whether all texts of a file stay together.
    """
    class_folders.check_test_fraction(test_fraction)
    splits = {split or "train": list(texts) for split, texts in splits.items()}
    if list(splits) != ["train"] or not splits["train"]:
        return splits
    texts = splits["train"]
    keys = [x.place.rpartition(", ")[0] if by_file else x.text for x in texts]
    pairs = list(dict.fromkeys((key, x.label) for key, x in zip(keys, texts, strict=True)))
    test = set(class_folders.divide(pairs, test_fraction)["test"])
    is_test = [(key, x.label) in test for key, x in zip(keys, texts, strict=True)]
    divided = {
        "train": [x for x, tested in zip(texts, is_test, strict=True) if not tested],
        "test": [x for x, tested in zip(texts, is_test, strict=True) if tested],
    }
    if not divided["test"]:
        raise config.UserError(
            f"None of the {len(texts)} texts is to test on (--test_fraction={test_fraction:g}), "
            "for one of each class is to train on; expected one or more. Add texts, or "
            "give files that are called train and test."
        )
    return divided


def _label(label: str) -> dict[str, str]:
    return {"label": label} if label else {}


def _note(splits: Mapping[str, Sequence[Text]]) -> str:
    lengths = np.array([len(x.text.encode()) for texts in splits.values() for x in texts])
    longer = (lengths > _READ).mean()
    note = (
        f"The texts have {np.median(lengths):,.0f} bytes at the median and {lengths.max():,} at "
        f"most; {longer:.1%} have more than {_READ:,}. Of a text, a model reads max_length bytes, "
        "see config.data.fields.text."
    )
    classes = {x.label for x in splits["train"]} - {""}
    if len(classes) == 1:
        note += f" There is one class, {classes.pop()}: a model has nothing to tell apart."
    return note
