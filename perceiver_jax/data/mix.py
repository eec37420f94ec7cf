"""MixUp (Zhang et al. 2018) and CutMix (Yun et al. 2019) of a batch of images."""

from collections.abc import Mapping
import math
from typing import Any

from jaxtyping import Float, UInt8
import numpy as np

from perceiver_jax.data import augment
from perceiver_jax.data.fields import label

_STREAM = 1  # Sets the randomness of batches apart from that of examples.


def mix(
    inputs: list[str],
    num_classes: Mapping[str, int],
    mixup_alpha: augment.Number,
    cutmix_alpha: augment.Number,
    seed: int,
    process_count: int,
    number: int,
    batch: dict[str, Any],
) -> dict[str, Any]:
    """Mixes each image with its neighbour's, and their labels alike.

    Example i of the global batch is mixed with example i + 1 if i is even, and with i - 1 if it is
    odd, by random numbers that depend on (seed, step, i) alone. So it makes no difference how many
    processes share the batch, as long as each has an even share. Masked examples and their
    neighbours stay as they are.

    Args:
        inputs: names of the inputs, all of them images.
        num_classes: of each label, by name.
        mixup_alpha: fractions come from Beta(alpha, alpha); 0 is off.
        cutmix_alpha: as mixup_alpha; with both on, each example takes one of the two.
        seed: of the run.
        process_count: how many shares a global batch has.
        number: of the share, counted over all batches.
        batch: the share, with an even number of examples.

    Returns:
        The share with other images, and with all labels float32 [B, L].
    """
    size = len(batch["mask"])
    step, process = divmod(number, process_count)
    first = process * size  # Place of the share's first example in the global batch.
    neighbours = np.arange(size) ^ 1
    both = batch["mask"] & batch["mask"][neighbours]
    labels = {name: label.one_hot(batch[name], count) for name, count in num_classes.items()}
    mixed = batch | {name: x.copy() for name, x in labels.items()}
    mixed |= {name: batch[name].copy() for name in inputs}
    for i in np.flatnonzero(both):
        # Which of the two, the fraction and the place are drawn in this order in any case, so that
        # what is drawn for an example depends on nothing else; runs are resumed by it.
        rng = np.random.default_rng([seed, step, first + int(i), 0, _STREAM])
        is_cutmix = bool(rng.integers(2)) if mixup_alpha and cutmix_alpha else bool(cutmix_alpha)
        alpha = cutmix_alpha if is_cutmix else mixup_alpha
        own = float(rng.beta(alpha, alpha))
        place = rng.random(2)
        other = neighbours[i]
        for name in inputs:
            images = batch[name]
            if is_cutmix:
                mixed[name][i], kept = cut_mix(images[i], images[other], own, place)
            else:
                mixed[name][i], kept = mix_up(images[i], images[other], own), own
        for name, weights in labels.items():
            mixed[name][i] = kept * weights[i] + (1 - kept) * weights[other]
    return mixed


def mix_up(
    image: UInt8[np.ndarray, "H W channels"], other: UInt8[np.ndarray, "H W channels"], own: float
) -> UInt8[np.ndarray, "H W channels"]:
    """Returns `own` of one image plus the rest of another, rounded."""
    mixed = np.float32(own) * image + np.float32(1 - own) * other
    return np.rint(mixed).astype(np.uint8)


def cut_mix(
    image: UInt8[np.ndarray, "H W channels"],
    other: UInt8[np.ndarray, "H W channels"],
    own: float,
    place: Float[np.ndarray, "2"],
) -> tuple[UInt8[np.ndarray, "H W channels"], float]:
    """Returns an image with a box of another, and which fraction of it is its own.

    Args:
        image: the one.
        other: the other, of the same size.
        own: fraction of the area that the box, before it is cut at the border, leaves.
        place: of the box's centre, as fractions of height and width.
    """
    height, width = image.shape[:2]
    side = math.sqrt(1 - own) / 2
    spans = [
        (max(0, round((centre - side) * length)), min(length, round((centre + side) * length)))
        for centre, length in zip(place, (height, width), strict=True)
    ]
    rows, columns = (slice(*span) for span in spans)
    mixed = image.copy()
    mixed[rows, columns] = other[rows, columns]
    cut = math.prod(stop - start for start, stop in spans)
    return mixed, 1 - cut / (height * width)
