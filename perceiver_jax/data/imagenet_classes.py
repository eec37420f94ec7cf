"""The names of ImageNet's 1,000 classes, in the order of the released models' outputs."""

import functools
import pathlib

_FILE = pathlib.Path(__file__).with_suffix(".txt")


@functools.cache
def names() -> tuple[str, ...]:
    """Returns the words of each class, with commas between them, as WordNet has them.

    Two classes are called 'crane': 134 is the bird, 517 the machine.
    """
    return tuple(name for _, name in _rows())


@functools.cache
def synsets() -> tuple[str, ...]:
    """Returns WordNet's number of each class, such as n01440764; they are sorted."""
    return tuple(synset for synset, _ in _rows())


def _rows() -> list[list[str]]:
    lines = _FILE.read_text().splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]
