"""What some latents look at in one example, layer by layer, in little memory.

A map has H * N * M numbers. Of chosen latents it is small; to choose them, all are looked at, so
many at once as fit `_MOST_NUMBERS`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from perceiver_jax import baselines
from perceiver_jax import config as config_lib
from perceiver_jax import layers as layers_lib

DIFFERENT, MOST, ALL = "different", "most", "all"
MEAN = "mean"  # Of the heads.
CROSS, SELF = "cross", "self"
_MOST_NUMBERS = 2**26  # Of a map that is computed at once; 256 MB.
_CELLS = 1024  # Of an input, drawn at random, by which maps are compared.


class Chosen(NamedTuple):
    """Latents of which maps are shown.

    Attributes:
      latents: their numbers.
      alike: of how many latents each is the one that resembles them most, itself included; None if
        they were not chosen by that.
    """

    latents: tuple[int, ...]
    alike: tuple[int, ...] | None = None


class Look(NamedTuple):
    """What a layer attends to in one example.

    Attributes:
      index: of the layer in `config.model.encoder.layers`.
      weights: the name of its weights.
      reads: what it reads: 'all', 'video', 'all[2]'; '' of a latent Transformer.
      heads: the rows of the maps: numbers of heads, or 'mean'.
      num_heads: that there are.
      num_inputs: that it reads and that are not masked.
      chosen: by name of the input; latents N of a latent Transformer's maps are all of them.
      maps: by name of the input, or 'self_attend_0' and so on, `scores` and `weights`, numpy
        float32 [heads, latents, *X], X the input's own grid.
    """

    index: int
    weights: str
    reads: str
    heads: tuple[int | str, ...]
    num_heads: int
    num_inputs: int
    chosen: Mapping[str, Chosen]
    maps: Mapping[str, Mapping[str, np.ndarray]]

    @property
    def name(self) -> str:
        """The layer for people: its weights, its place, and what it reads if that is not all."""
        part = f", reads {self.reads}" if self.reads not in ("", layers_lib.ALL) else ""
        return f"layer {self.index}: {self.weights}{part}"


def look(
    run: Any,
    batch: Mapping[str, np.ndarray],
    *,
    layers: Sequence[int] | None = None,
    latents: str | Sequence[int] = DIFFERENT,
    num_latents: int = 5,
    heads: str | Sequence[int] = MEAN,
) -> Iterator[Look]:
    """Computes maps of one example, of one layer after the other.

    Args:
      run: what `perceiver_jax.load_run` or `load_pretrained` returned.
      batch: as of `Run.prepare`, of one example.
      layers: places in `config.model.encoder.layers`, see `find_layers`; None: the first, second
        and last cross-attend.
      latents: whose maps, the same ones in all layers. 'different': few that stand for all, each
        other one resembles one of them; those of an input stand for the latents that look at it.
        'most': those that give most of their weight to the input, or if all of it is its own, to a
        single place of it. 'all', or their numbers.
      num_latents: how many of 'different' and 'most'.
      heads: 'mean' of all, 'all', or their numbers.

    Yields:
      What each layer attends to, in the order of the layers.

    Raises:
      UserError: for a layer, latent or head that there is not, or another number of examples.
    """
    encoder = run.config.model.encoder
    baselines.check_perceiver(encoder, "Attention")
    resolved = layers_lib.of_encoder(encoder)
    wanted = _default_layers(resolved) if layers is None else sorted(set(layers))
    _check_numbers("layers", wanted, len(resolved))
    batch = _one_example(run, batch)
    cross = [i for i in wanted if resolved[i].is_cross_attend]
    chosen = _choose(run, batch, cross, latents, num_latents) if cross else {}
    union = sorted({i for each in chosen.values() for i in each.latents})
    # Of few latents all layers are computed at once.
    groups = [[i] for i in cross] if len(union) > encoder.num_latents // 2 else [cross]
    computed: dict[int, Any] = {}
    for index in wanted:
        layer = resolved[index]
        if not layer.is_cross_attend:
            (maps,) = _program(run.model.attention_maps, (index,))(run.params, batch, None)
            yield _look(index, layer, maps, heads, encoder.num_self_attend_heads, {}, None)
            continue
        if index not in computed:
            group = tuple(next(group for group in groups if index in group))
            found = _program(run.model.attention_maps, group)(
                run.params, batch, np.array(union, np.int32)
            )
            computed.update(zip(group, found, strict=True))
        num_heads = encoder.num_cross_attend_heads
        yield _look(index, layer, computed.pop(index), heads, num_heads, chosen, union)


def find_layers(run: Any, words: Sequence[str]) -> list[int]:
    """Returns places in `config.model.encoder.layers` of what a user names.

    Args:
      run: the model.
      words: each a place, the name of weights ('cross_attend_1': everywhere they are used),
        'cross' or 'self' (all cross-attends, all latent Transformers), or 'all'.

    Raises:
      UserError: for what is none of these.
    """
    baselines.check_perceiver(run.config.model.encoder, "Attention")
    names = list(run.config.model.encoder.layers)
    kinds = {CROSS: layers_lib.CROSS_ATTEND, SELF: layers_lib.LATENT_TRANSFORMER, ALL: ""}
    found = set()
    for word in words:
        if word.isdecimal() and int(word) < len(names):
            found.add(int(word))
            continue
        known = [*map(str, range(len(names))), *dict.fromkeys(names), *kinds]
        config_lib.check_known("layer", word, known)
        found |= {
            i
            for i, name in enumerate(names)
            if name == word or (word in kinds and name.startswith(kinds[word]))
        }
    return sorted(found)


def inputs_of(run: Any, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the model's inputs of a batch of one example, without their axis of examples."""
    return {name: np.asarray(batch[name])[0] for name in run.config.model.inputs}


def _default_layers(resolved: Sequence[layers_lib.Layer]) -> list[int]:
    cross = [i for i, layer in enumerate(resolved) if layer.is_cross_attend]
    return sorted({cross[0], cross[min(1, len(cross) - 1)], cross[-1]})


def _one_example(run: Any, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
    names = [key for name in run.config.model.inputs for key in (name, f"{name}_mask")]
    taken = {name: np.asarray(batch[name]) for name in names if name in batch}
    sizes = {name: len(x) for name, x in taken.items()}
    if set(sizes.values()) != {1}:
        raise config_lib.UserError(
            f"Got a batch of {sizes} examples; expected one, of each of "
            f"{sorted(run.config.model.inputs)}. Take x[i : i + 1] of each array."
        )
    return taken


@functools.lru_cache(maxsize=16)
def _program(attention_maps: Callable, indices: tuple[int, ...]) -> Callable:
    """Maps of layers; compiled once for all examples."""
    return jax.jit(lambda params, batch, latents: attention_maps(params, batch, indices, latents))


@functools.lru_cache(maxsize=16)
def _summary_program(attention_maps: Callable, indices: tuple[int, ...]) -> Callable:
    """What latents are chosen by, by layer and input: the maps themselves don't leave XLA."""

    def summarise(x):
        scores, weights = (y.reshape(*y.shape[:3], -1)[0] for y in (x["scores"], x["weights"]))
        size = scores.shape[-1]
        cells = np.arange(size)
        if size > _CELLS:
            cells = np.sort(np.random.default_rng(0).choice(size, _CELLS, replace=False))
        return {
            "cells": scores[..., cells],  # [H, N, cells]
            "share": weights.sum(axis=-1).mean(axis=0),  # [N]
            "peak": weights.max(axis=(0, 2)),
        }

    def program(params, batch, latents):
        found = attention_maps(params, batch, indices, latents)
        return [{name: summarise(x) for name, x in maps.items()} for maps in found]

    return jax.jit(program)


def _choose(
    run: Any,
    batch: Mapping[str, np.ndarray],
    cross: Sequence[int],
    latents: str | Sequence[int],
    count: int,
) -> dict[str, Chosen]:
    """Chooses latents, for each input by all layers that read it."""
    num_latents = run.config.model.encoder.num_latents
    config_lib.AT_LEAST_ONE.check("num_latents", count, count)
    if isinstance(latents, str):
        config_lib.check_known("choice of latents", latents, [DIFFERENT, MOST, ALL])
    if latents == ALL or not isinstance(latents, str):
        given = range(num_latents) if latents == ALL else latents
        _check_numbers("latents", given, num_latents)
        return dict.fromkeys(run.config.model.inputs, Chosen(tuple(map(int, given))))
    choose = _representatives if latents == DIFFERENT else _most
    found: dict[str, list] = {}
    for maps in _summaries(run, batch, tuple(cross)):
        for name, summary in maps.items():
            found.setdefault(name, []).append(summary)
    return {
        name: choose(
            np.concatenate([_standardised(x["cells"]) for x in each], axis=1),
            np.mean([x["share"] for x in each], axis=0),
            np.max([x["peak"] for x in each], axis=0),
            min(count, num_latents),
        )
        for name, each in found.items()
    }


def _summaries(
    run: Any, batch: Mapping[str, np.ndarray], cross: tuple[int, ...]
) -> list[dict[str, dict[str, np.ndarray]]]:
    """What all latents are chosen by, computed some latents after others if maps are large."""
    encoder = run.config.model.encoder
    program = _summary_program(run.model.attention_maps, cross)
    shapes = jax.eval_shape(_program(run.model.attention_maps, cross), run.params, batch, None)
    largest = max(
        sum(int(np.prod(x["scores"].shape)) for x in maps.values()) // encoder.num_latents
        for maps in shapes
    )
    size = max(1, min(encoder.num_latents, _MOST_NUMBERS // largest))
    parts = []
    for start in range(0, encoder.num_latents, size):
        # All of one size, for which it is compiled; the last ones are counted once.
        begin = min(start, encoder.num_latents - size)
        chunk = np.arange(begin, begin + size, dtype=np.int32)
        part = jax.device_get(program(run.params, batch, chunk))
        parts.append(jax.tree.map(lambda x, skip=start - begin: _rows(x, skip), part))
    return jax.tree.map(lambda *xs: np.concatenate(xs, axis=xs[0].ndim // 3), *parts)


def _rows(x: np.ndarray, skip: int) -> np.ndarray:
    return x[:, skip:] if x.ndim == 3 else x[skip:]


def _standardised(cells: np.ndarray) -> np.ndarray:
    """Scores [H, N, cells] as rows [N, H * cells] of which products are correlations."""
    there = np.isfinite(cells)
    count = np.maximum(there.sum(axis=2, keepdims=True), 1)
    mean = np.where(there, cells, 0).sum(axis=2, keepdims=True) / count
    centred = np.where(there, cells - np.where(there, mean, 0), 0)
    rows = centred.swapaxes(0, 1).reshape(cells.shape[1], -1)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _representatives(rows: np.ndarray, share: np.ndarray, peak: np.ndarray, count: int) -> Chosen:
    """Few latents that resemble all, those with more weight on the input counting more.

    One after the other, that by which the sum of each latent's likeness to the most similar one
    grows most.
    """
    del peak
    num_layers = np.linalg.norm(rows[share.argmax()]) ** 2 or 1
    likeness = np.maximum(rows @ rows.T / num_layers, 0)
    looks = share >= share.mean() / 2  # Only what looks at the input stands for others.
    best, latents = np.zeros(len(rows)), []
    for _ in range(count):
        gains = (share[:, None] * np.maximum(likeness - best[:, None], 0)).sum(axis=0)
        gains[~looks] -= 1e6
        gains[latents] = -np.inf
        latents.append(int(gains.argmax()))
        best = np.maximum(best, likeness[:, latents[-1]])
    nearest = np.array(latents)[likeness[:, latents].argmax(axis=1)]
    nearest[latents] = latents
    return Chosen(tuple(latents), tuple(int((nearest == i).sum()) for i in latents))


def _most(rows: np.ndarray, share: np.ndarray, peak: np.ndarray, count: int) -> Chosen:
    del rows
    order = np.lexsort((-peak, -share.round(3)))
    return Chosen(tuple(int(i) for i in order[:count]))


def _look(
    index: int,
    layer: layers_lib.Layer,
    maps: Mapping[str, Any],
    heads: str | Sequence[int],
    num_heads: int,
    chosen: Mapping[str, Chosen],
    union: Sequence[int] | None,
) -> Look:
    """Takes heads, and of each input's latents those that were chosen."""
    wanted: Collection[Any] = range(num_heads) if heads == ALL else heads
    if isinstance(heads, str):
        config_lib.check_known("choice of heads", heads, [MEAN, ALL])
    else:
        _check_numbers("heads", wanted, num_heads)
    taken = {}
    for name, each in maps.items():
        rows = slice(None)
        if union is not None:
            places = {latent: place for place, latent in enumerate(union)}
            rows = [places[latent] for latent in chosen[name].latents]
        values = {kind: np.asarray(x[0], np.float32)[:, rows] for kind, x in each.items()}
        if heads == MEAN:
            taken[name] = {kind: x.mean(axis=0, keepdims=True) for kind, x in values.items()}
        else:
            taken[name] = {kind: x[list(wanted)] for kind, x in values.items()}
    there = [np.isfinite(np.asarray(x["scores"][0, 0, 0])).sum() for x in maps.values()]
    return Look(
        index,
        layer.weights,
        layer.reads or "",
        (MEAN,) if heads == MEAN else tuple(int(i) for i in wanted),
        num_heads,
        int(sum(there)) if layer.is_cross_attend else int(there[0]),
        {name: chosen[name] for name in taken if name in chosen},
        taken,
    )


def _check_numbers(what: str, given: Sequence[int], size: int) -> None:
    numbers = list(given)
    if not numbers or not all(0 <= i < size for i in numbers) or len(set(numbers)) < len(numbers):
        raise config_lib.UserError(
            f"{what} is {numbers}; expected different numbers from 0 to {size - 1}. Correct it."
        )
