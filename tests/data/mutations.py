"""Damaged and hostile forms of a file."""

from collections.abc import Iterator
import random

# What sizes, counts and durations are made to claim.
_CLAIMS = (
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\0\0",
    b"\xff\xff\xff\x7f",
)


def mutate(contents: bytes, number: int, seed: int) -> Iterator[bytes]:
    """Yields so many mutations: bits turned over, bytes drawn, parts cut, doubled or made huge."""
    rng = random.Random(seed)
    kinds = (_flip, _randomise, _claim, _cut, _end, _double)
    for i in range(number):
        damaged = bytearray(contents)
        for _ in range(rng.choice((1, 1, 3, 20))):
            kinds[i % len(kinds)](rng, damaged)
        yield bytes(damaged)


def _somewhere(rng: random.Random, contents: bytearray) -> int:
    """Mostly in the first or last part, where headers and indices are."""
    size = max(len(contents), 1)
    near = rng.randrange(min(size, 600))
    return rng.choice((near, size - 1 - near, rng.randrange(size)))


def _flip(rng: random.Random, contents: bytearray) -> None:
    if contents:
        contents[_somewhere(rng, contents)] ^= 1 << rng.randrange(8)


def _randomise(rng: random.Random, contents: bytearray) -> None:
    at = _somewhere(rng, contents)
    contents[at : at + 4] = rng.randbytes(4)


def _claim(rng: random.Random, contents: bytearray) -> None:
    at = _somewhere(rng, contents)
    contents[at : at + 4] = rng.choice(_CLAIMS)


def _cut(rng: random.Random, contents: bytearray) -> None:
    at = _somewhere(rng, contents)
    del contents[at : at + rng.randrange(1, 200)]


def _end(rng: random.Random, contents: bytearray) -> None:
    del contents[_somewhere(rng, contents) :]


def _double(rng: random.Random, contents: bytearray) -> None:
    at = _somewhere(rng, contents)
    contents[at:at] = contents[at : at + rng.randrange(1, 200)]
