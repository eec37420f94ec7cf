"""Which weights each layer of an encoder uses, as names; and which layers can share a scan.

Recipes name layers, so this imports nothing that takes time.
"""

from collections.abc import Sequence
import functools
from typing import NamedTuple

from perceiver_jax import config

CROSS_ATTEND = "cross_attend"
LATENT_TRANSFORMER = "latent_transformer"
PLACEMENTS = ("interleaved", "start")
SHARINGS = ("all_but_first", "all", "none")


def make_layers(
    num_cross_attends: int,
    num_latent_transformers: int,
    placement: str = "interleaved",
    sharing: str = "all_but_first",
) -> tuple[str, ...]:
    """Names the weights of every cross-attend and latent Transformer, in the order of their use.

    Equal names share weights. `PerceiverEncoder.layers` takes any such sequence; this function
    gives those of the paper (tables 5, 6 and 7).

    Args:
      num_cross_attends: cross-attends.
      num_latent_transformers: latent Transformers; 0 for a stack of cross-attends only.
      placement: 'interleaved' spaces the cross-attends evenly among the latent Transformers,
        'start' puts all of them first.
      sharing: 'all_but_first' shares all weights except those of the first cross-attend,
        'all' shares these as well, 'none' gives each its own.

    Returns:
      Names such as ('cross_attend_0', 'latent_transformer_0', 'cross_attend_1', ...).

    Raises:
      ValueError: for an unknown placement or sharing, or cross-attends that can't be spaced evenly.
    """
    config.check_known("placement", placement, PLACEMENTS)
    config.check_known("sharing", sharing, SHARINGS)
    config.check(locals(), num_cross_attends=config.AT_LEAST_ONE)
    config.check(locals(), num_latent_transformers=config.COUNT)
    last_cross = {"all_but_first": 1, "all": 0, "none": num_cross_attends}[sharing]
    last_latent = num_latent_transformers if sharing == "none" else 0
    cross = [f"{CROSS_ATTEND}_{min(i, last_cross)}" for i in range(num_cross_attends)]
    latent = [f"{LATENT_TRANSFORMER}_{min(i, last_latent)}" for i in range(num_latent_transformers)]
    if placement == "start" or not latent:
        return (*cross, *latent)
    if num_latent_transformers % num_cross_attends:
        raise config.UserError(
            f"{num_cross_attends} cross-attends can't be spaced evenly among "
            f"{num_latent_transformers} latent Transformers; the first number must divide the "
            "second. Change one of them, or set placement='start'."
        )
    spacing = num_latent_transformers // num_cross_attends
    return tuple(
        name for i, c in enumerate(cross) for name in (c, *latent[i * spacing : (i + 1) * spacing])
    )


class Run(NamedTuple):
    """Consecutive layers that one scan can compute.

    Attributes:
      pattern: the layers of one repeat. Each position is a tuple of names, one a repeat: all the
        same (weights used again and again) or all different (weights that are stacked).
      repeats: length of the scan.
    """

    pattern: tuple[tuple[str, ...], ...]
    repeats: int

    @property
    def num_layers(self) -> int:
        """Cross-attends and latent Transformers in all repeats."""
        return self.repeats * len(self.pattern)


def find_runs(layers: Sequence[str]) -> list[Run]:
    """Splits a sequence of layers into runs, so that as few layers as possible are compiled."""
    layers = tuple(layers)

    @functools.cache
    def best(start):  # (layers to compile, runs) of what follows `start`
        if start == len(layers):
            return 0, ()
        options = []
        for period in range(1, len(layers) - start + 1):
            for repeats in range(1, (len(layers) - start) // period + 1):
                stop = start + period * repeats
                pattern = tuple(layers[start + i : stop : period] for i in range(period))
                if all(_repeats(names) for names in pattern):
                    cost, runs = best(stop)
                    options.append((period + cost, (Run(pattern, repeats), *runs)))
        return min(options, key=lambda option: option[0])

    return list(best(0)[1])


def _repeats(names):
    return len({kind(name) for name in names}) == 1 and len(set(names)) in (1, len(names))


def kind(name: str) -> str:
    """The kind of layer that a name is of.

    Raises:
      ValueError: if it is none.
    """
    for known in (CROSS_ATTEND, LATENT_TRANSFORMER):
        if str(name).startswith(known):
            return known
    raise config.UserError(
        f"layers names {name!r}; a layer's name begins with {CROSS_ATTEND!r} or "
        f"{LATENT_TRANSFORMER!r}, such as {CROSS_ATTEND + '_0'!r}."
    )
