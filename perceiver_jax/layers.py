"""Which weights an encoder's layers use and what they read, as names; and which share a scan.

Recipes name layers, so this imports nothing that takes time.
"""

from collections.abc import Callable, Mapping, Sequence
import re
from typing import Any, NamedTuple

from perceiver_jax import config

CROSS_ATTEND = "cross_attend"
LATENT_TRANSFORMER = "latent_transformer"
ALL = "all"  # Reads all inputs, fused.
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


class Layer(NamedTuple):
    """A cross-attend or a latent Transformer in its place.

    Attributes:
      weights: their name; equal names share weights.
      source: what a cross-attend reads: 'all' inputs fused, or one by its name; with '[]' its parts
        are read one at a time. '' for a latent Transformer.
      part: which part of the source; 0 if it is read whole.
    """

    weights: str
    source: str = ""
    part: int = 0

    @property
    def reads(self) -> str | None:
        """What `resolve` got for it: 'all', 'video', 'all[2]'; None of a latent Transformer."""
        if self.source.endswith("[]"):
            return f"{self.source[:-1]}{self.part}]"
        return self.source or None

    @property
    def is_cross_attend(self) -> bool:
        """Whether it reads anything."""
        return bool(self.source)


def parse_reads(reads: str) -> tuple[str, int]:
    """Returns source and part of what a cross-attend reads: 'video[2]' is part 2 of 'video[]'.

    Raises:
      config.UserError: for what is of neither form.
    """
    form = r"(\w+)(?:\[(0|[1-9][0-9]*)\])?"
    match = re.fullmatch(form, reads) if isinstance(reads, str) else None
    if match is None:
        raise config.UserError(
            f"reads names {reads!r}; expected 'all', the name of an input, or a part of one of "
            "them counted from 0, such as 'all[0]'. Change it."
        )
    name, part = match.groups()
    return (name, 0) if part is None else (f"{name}[]", int(part))


def resolve(layers: Sequence[str], reads: Sequence[str] = ()) -> tuple[Layer, ...]:
    """Puts together which weights layers use and what their cross-attends read.

    Args:
      layers: names of the weights, see `make_layers`.
      reads: of each cross-attend 'all', the name of an input, or a part such as 'all[0]'; if there
        are none, all cross-attends read 'all'.

    Returns:
      The layers, in the order of their use.

    Raises:
      config.UserError: for names of another form, another number of reads than of cross-attends,
        parts that are not counted from 0, or weights that read different inputs.
    """
    count = sum(kind(name) == CROSS_ATTEND for name in layers)
    if reads and len(reads) != count:
        raise config.UserError(
            f"reads has {len(reads)} names for {count} cross-attends; expected one for each, or "
            f"none if they all read {ALL!r}. Correct it."
        )
    rest = iter(reads or (ALL,) * count)
    resolved = tuple(
        Layer(name, *parse_reads(next(rest))) if kind(name) == CROSS_ATTEND else Layer(name)
        for name in layers
    )
    sources = {}
    for layer in resolved:
        first = sources.setdefault(layer.weights, layer.source)
        if first.removesuffix("[]") != layer.source.removesuffix("[]"):
            raise config.UserError(
                f"reads lets {layer.weights!r} read {first!r} and {layer.source!r}; expected the "
                "same input wherever the same weights are used. Give one of them another name in "
                "layers."
            )
    parts = {layer.part for layer in resolved if layer.source.endswith("[]")}
    if parts and parts != set(range(len(parts))):
        raise config.UserError(
            f"reads has the parts {sorted(parts)}; expected each from 0 to {max(parts)}. Add the "
            "others, or count anew."
        )
    return resolved


def of_encoder(encoder: Mapping[str, Any]) -> tuple[Layer, ...]:
    """Returns the layers of `config.model.encoder`; of a baseline none."""
    if "kind" in encoder:
        return ()
    return resolve(encoder["layers"], encoder.get("reads", ()))


def distance_to_outputs(layers: Sequence[str], num_self_attends: int) -> Callable[[str], int]:
    """Returns a function that counts layers from a parameter, by its path, to the outputs.

    Layers count in the order in which their weights are first used. Outputs have 0; what inputs,
    their positions and the latents are made of has one more than the first layer.

    Args:
      layers: names of the weights, see `make_layers`.
      num_self_attends: of a latent Transformer; each is a layer.
    """
    prefixes = []
    for name in dict.fromkeys(layers):
        each = [f"encoder/{name}/self_attend_{i}/" for i in range(num_self_attends)]
        prefixes += [f"encoder/{name}/"] if kind(name) == CROSS_ATTEND else each

    def distance(path: str) -> int:
        if path.startswith("decoder"):  # Its positions are `decoder_position_encoding`.
            return 0
        found = (len(prefixes) - i for i, prefix in enumerate(prefixes) if path.startswith(prefix))
        return next(found, len(prefixes) + 1)

    return distance


def num_parts(layers: Sequence[Layer]) -> int:
    """How many parts inputs are cut into; 0 if none is read in parts."""
    return max((layer.part + 1 for layer in layers if layer.source.endswith("[]")), default=0)


def find_step(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Returns the layers that read part 0, if those of every other part are the same.

    Raises:
      config.UserError: if they are not, so that there is no step to repeat for parts to come.
    """
    parts = num_parts(layers)
    step = tuple(layers[: len(layers) // max(parts, 1)])
    unrolled = [
        layer._replace(part=t if layer.is_cross_attend else 0)
        for t in range(parts)
        for layer in step
    ]
    reads_whole = any(x.is_cross_attend and not x.source.endswith("[]") for x in step)
    if not parts or reads_whole or unrolled != list(layers):
        raise config.UserError(
            "The encoder has no step: its layers are not the same for one part of the inputs "
            "after the other. Expected layers such as ('cross_attend_0', 'latent_transformer_0', "
            "'cross_attend_0', 'latent_transformer_0') with reads ('all[0]', 'all[1]'). Train such "
            "a model, or use apply."
        )
    return step


class Run(NamedTuple):
    """Consecutive layers that one scan can compute.

    Attributes:
      pattern: the layers of one repeat. Each position is a tuple of layers, one a repeat. Their
        weights are all the same (used again and again) or all different (stacked), and so are the
        parts that they read.
      repeats: length of the scan.
    """

    pattern: tuple[tuple[Layer, ...], ...]
    repeats: int

    @property
    def num_layers(self) -> int:
        """Cross-attends and latent Transformers in all repeats."""
        return self.repeats * len(self.pattern)


def find_runs(layers: Sequence[Layer]) -> list[Run]:
    """Splits a sequence of layers into runs, so that as few layers as possible are compiled."""
    layers = tuple(layers)
    best = {len(layers): (0, ())}  # By start: (layers to compile, runs) of what follows.
    for start in reversed(range(len(layers))):
        least, length, period = 1 + best[start + 1][0], 1, 1  # A layer on its own.
        for trial in range(1, (len(layers) - start) // 2 + 1):
            if trial >= least:
                break  # It would cost as much at least.
            # A run of one repeat is as many runs of a single layer.
            for repeats in range(2, _most_repeats(layers[start:], trial) + 1):
                cost = trial + best[start + trial * repeats][0]
                if cost < least:
                    least, length, period = cost, trial * repeats, trial
        stop = start + length
        pattern = tuple(layers[start + i : stop : period] for i in range(period))
        best[start] = least, (Run(pattern, length // period), *best[stop][1])
    return list(best[0][1])


def _most_repeats(layers, period):
    """How often the first layers repeat: with weights and parts that are all equal or all other."""
    for position, layer in enumerate(layers[period:], period):
        earlier = layers[position % period : position : period]
        if (kind(layer.weights), layer.source) != (kind(earlier[0].weights), earlier[0].source):
            return position // period
        for one, others in (
            (layer.weights, [x.weights for x in earlier]),
            (layer.part, [x.part for x in earlier]),
        ):
            is_equal = len(others) == others.count(one)
            is_other = one not in others and (len(others) == 1 or others[0] != others[1])
            if not is_equal and not is_other:
                return position // period
    return len(layers) // period


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
