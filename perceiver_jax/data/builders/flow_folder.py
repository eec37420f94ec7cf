"""Optical flow of one's own: a folder of pairs of pictures and their flow."""

import argparse
import collections
from collections.abc import Iterator, Mapping, Sequence
import pathlib
import re

import numpy as np
import tensorflow_datasets as tfds

from perceiver_jax import config
from perceiver_jax.data import errors
from perceiver_jax.data.builders import (
    base,
    class_folders,
    folder_names,
    image_folder,
    report,
    tree,
)
from perceiver_jax.data.fields import flow, image

SUFFIXES = (".flo", ".npy", ".png")
_FLOW_FOLDER = re.compile(r"(?:.*[\W_])?flows?(?:[\W_].*)?", re.IGNORECASE)
# NAME_img1.ppm, NAME_img2.ppm and NAME_flow.flo, as of FlyingChairs.
_TRIPLE = re.compile(r"(.*)[\W_](img_?1|img_?2|first|second|frame_?1|frame_?2|flow)", re.IGNORECASE)
_ROLES = {"img1": "first", "frame1": "first", "img2": "second", "frame2": "second"}
_FEW_FOLDERS = 5  # With more, whole folders, which are scenes, are to train or to test on.

Pair = tuple[str, str, str]  # First and second picture, flow; below the source.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this kind."""
    parser.add_argument("--source", required=True, help="has pictures and flows, see docs")
    parser.add_argument("--name", help="of the data set; default: the source's own name")
    parser.add_argument(
        "--test_fraction",
        type=float,
        default=0.1,
        help="part of the pairs to test on if no folders are called train and test (default: 0.1)",
    )


def from_flags(flags: argparse.Namespace, data_dir: pathlib.Path) -> tuple["FlowFolder", None]:
    """Returns the builder, and nothing that TFDS has to download."""
    name = class_folders.choose_name(flags)
    return FlowFolder(flags.source, name, data_dir, flags.test_fraction), None


class FlowFolder(base.FilesBuilder, skip_registration=True):
    """Files as they are; each is decoded once, and the pair left out if that fails."""

    WHAT = "pairs"

    def __init__(
        self, source: pathlib.Path, name: str, data_dir: pathlib.Path, test_fraction: float = 0.1
    ):
        """Looks for the files.

        Args:
            source: has pictures and flows, see `find`.
            name: of the data set.
            data_dir: where TFDS keeps data sets.
            test_fraction: how much is for testing, where the folders don't say.
        """
        splits, skipped = find(source, test_fraction)
        self.name, self._source = name, source
        counts = ", ".join(f"{len(pairs):,} {split}" for split, pairs in splits.items())
        self.note = f"Pairs: {counts}."
        super().__init__(tasks=splits, classes=(), skipped=skipped, data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pairs of pictures and the flow from the first to the second.",
            features=tfds.features.FeaturesDict(
                {
                    "file_name": tfds.features.Text(),
                    "frames": tfds.features.Sequence(tfds.features.Image(), length=2),
                    "flow": tfds.features.Tensor(shape=(), dtype=np.object_),  # A file.
                }
            ),
        )

    def _read(self, tasks: Sequence[Pair]) -> Iterator[list[base.Result]]:
        for pair in tasks:
            name = pair[2]
            try:
                *frames, encoded = ((self._source / path).read_bytes() for path in pair)
                sizes = [image.decode(frame).size[::-1] for frame in frames]
                sizes.append(flow.decode(encoded).shape[:2])
                if len(set(sizes)) > 1:
                    told = ", ".join(f"{width} x {height}" for height, width in sizes)
                    raise errors.BadDataError("of several sizes", f"{told} pixels")
            except errors.BadDataError as error:
                yield [report.left_out(name, error.cause, error.detail)]
            except OSError as error:
                yield [report.left_out(name, "can't be read", str(error))]
            else:
                yield [(name, {"file_name": name, "frames": frames, "flow": encoded})]


def find(
    source: pathlib.Path, test_fraction: float
) -> tuple[dict[str, list[Pair]], list[report.Row]]:
    """Finds pairs of pictures and their flow.

    Two layouts are known, below the source or in its folders called train and test:

    - `NAME_img1.*`, `NAME_img2.*` (or `first` and `second`) and `NAME_flow.*`, beside each other;
    - folders of pictures in their order, and a folder whose name has the word flow that has the
      flow from a picture to the next by the name of the first: `frames/a/0001.png` and
      `flow/a/0001.flo`.

    Returns:
        The pairs of each split, and what is left out.

    Raises:
        UserError: there are none, or nothing to test on.
    """
    class_folders.check_test_fraction(test_fraction)
    found = tree.walk(source, {*image_folder.SUFFIXES, *SUFFIXES})
    skipped = list(found.skipped)
    flows, pictures = [], []
    for parts in found.files:
        (flows if _is_flow(parts) else pictures).append(parts)
    beside = _triples(pictures)
    following = _following(pictures)
    splits = collections.defaultdict(list)
    for parts in flows:
        pair = beside.get(_key(parts)) or _pair_of(parts, following)
        shown = "/".join(parts)
        if pair is None:
            skipped.append(report.left_out(shown, "no pictures", "of the flow's name"))
            continue
        meant = [folder_names.meaning(part) for part in parts[:-1]]
        named = [split for split, rest in meant if split and not rest]
        split = {"eval": "test"}.get(named[0], named[0]) if named else ""
        splits[split].append(("/".join(pair[0]), "/".join(pair[1]), shown))
    if not splits:
        raise config.UserError(
            f"There are no flows with their pictures in {source}: {len(flows)} flows and "
            f"{len(pictures)} pictures; expected NAME_img1.png, NAME_img2.png and NAME_flow.flo, "
            "or frames/NAME.png and flow/NAME.flo. Rename them."
        )
    if "" in splits and len(splits) > 1:
        raise config.UserError(
            f"Of the flows in {source} {len(splits[''])} are in no folder of a split, and others "
            f"are: {sorted(filter(None, splits))}; expected all or none. Move them."
        )
    if set(splits) <= {"", "train"}:
        (pairs,) = splits.values()
        splits = _divide(source, pairs, test_fraction)
    return dict(splits), skipped


def pair_up(pictures: Sequence[tree.Parts]) -> list[tuple[tree.Parts, tree.Parts]]:
    """Returns pairs of pictures whose flow is not there, or not needed.

    `NAME_img1.*` and `NAME_img2.*` (or `first` and `second`) are one; of the other pictures, each
    and the next one of its folder are. Flows are none.

    Args:
        pictures: sorted; flows may be among them.
    """
    pictures = [parts for parts in pictures if not _is_flow(parts)]
    beside = _triples(pictures)
    named = {parts for pair in beside.values() for parts in pair}
    following = _following([parts for parts in pictures if parts not in named])
    return sorted([*beside.values(), *(pair for pairs in following.values() for pair in pairs)])


def _is_flow(parts: tree.Parts) -> bool:
    """Whether a file is a flow, by its name and those of its folders."""
    suffix = pathlib.Path(parts[-1]).suffix.lower()
    triple = _TRIPLE.fullmatch(pathlib.Path(parts[-1]).stem)
    named = any(_FLOW_FOLDER.fullmatch(part) for part in parts[:-1])
    is_flow = named or bool(triple and triple[2].lower() == "flow") or suffix == ".flo"
    return is_flow and suffix in SUFFIXES


def _divide(
    source: pathlib.Path, pairs: list[Pair], test_fraction: float
) -> Mapping[str, list[Pair]]:
    """Divides pairs, or whole folders of them: pictures of one scene are alike."""
    folders = {flow_name.rpartition("/")[0] for _, _, flow_name in pairs}
    whole = len(folders) > _FEW_FOLDERS
    keys = [flow_name.rpartition("/")[0] if whole else flow_name for _, _, flow_name in pairs]
    test = class_folders.divide([(key, "") for key in dict.fromkeys(keys)], test_fraction)["test"]
    is_test = {key for key, _ in test}
    if not is_test:
        raise config.UserError(
            f"None of the {len(pairs)} pairs in {source} is to test on (--test_fraction="
            f"{test_fraction:g}); expected one or more. Add pairs, or make folders train and test."
        )
    return {
        "train": [pair for pair, key in zip(pairs, keys, strict=True) if key not in is_test],
        "test": [pair for pair, key in zip(pairs, keys, strict=True) if key in is_test],
    }


def _key(parts: tree.Parts) -> tuple[str, ...]:
    """What the three files of a triple share."""
    triple = _TRIPLE.fullmatch(pathlib.Path(parts[-1]).stem)
    return (*parts[:-1], triple[1] if triple else "")


def _triples(
    pictures: Sequence[tree.Parts],
) -> dict[tuple[str, ...], tuple[tree.Parts, tree.Parts]]:
    """Pairs whose names say which is the first, by what their names share."""
    found: dict[tuple[str, ...], dict[str, tree.Parts]] = collections.defaultdict(dict)
    for parts in pictures:
        triple = _TRIPLE.fullmatch(pathlib.Path(parts[-1]).stem)
        if triple:
            role = triple[2].lower().replace("_", "")
            found[_key(parts)][_ROLES.get(role, role)] = parts
    pairs = {key: x for key, x in found.items() if x.keys() >= {"first", "second"}}
    return {key: (x["first"], x["second"]) for key, x in pairs.items()}


def _following(pictures: Sequence[tree.Parts]) -> dict[tuple[str, ...], list]:
    """Each picture and the next one of its folder, by the end of its path, without its suffix."""
    found = collections.defaultdict(list)
    for this, after in zip(pictures[:-1], pictures[1:], strict=True):
        if this[:-1] == after[:-1]:
            stem = (*this[:-1], pathlib.Path(this[-1]).stem)
            found[stem[-1:]].append((this, after))
    return found


def _pair_of(parts: tree.Parts, following: Mapping[tuple[str, ...], list]) -> tuple | None:
    """The pair of a flow: its picture has the same path but for a folder's name."""
    stem = pathlib.Path(parts[-1]).stem
    own = [part for part in parts[:-1] if not _FLOW_FOLDER.fullmatch(part)]
    for this, after in following.get((stem,), ()):
        others = list(this[:-1])
        # The flow's folder has another name than that of the pictures, or stands beside them.
        if others == own or any(others[:i] + others[i + 1 :] == own for i in range(len(others))):
            return this, after
    return None
