"""Which values the keys of a config may have; others are refused before anything runs.

Constructors check what depends on other values. Here is what can be said of a key by its name,
wherever it is; a number of which nothing is said must be finite and not negative.
"""

from collections.abc import Iterator
import math
from typing import Any, NamedTuple

import ml_collections

MAX_INT = 2**31 - 1  # Steps and seeds are 32-bit integers.


class Range(NamedTuple):
    """Numbers from `low` to `high`, as far as they are included themselves."""

    low: float
    high: float
    low_included: bool = True
    high_included: bool = True

    def has(self, x: float) -> bool:
        """Whether a number is one of them."""
        above = x >= self.low if self.low_included else x > self.low
        return above and (x <= self.high if self.high_included else x < self.high)

    def text(self) -> str:
        """For messages: 'at least 0 and less than 1'."""
        low = f"{'at least' if self.low_included else 'more than'} {self.low}"
        if self.low == -math.inf:
            low = "any number"
        high = f"{'at most' if self.high_included else 'less than'} {self.high}"
        return low if self.high in (math.inf, MAX_INT) else f"{low} and {high}"


NOT_NEGATIVE = Range(0, math.inf, high_included=False)
ANY = Range(-math.inf, math.inf, False, False)
POSITIVE = Range(0, math.inf, False, False)
AT_LEAST_ONE = Range(1, MAX_INT)
FRACTION = Range(0, 1)
BELOW_ONE = Range(0, 1, high_included=False)

RANGES = {
    **dict.fromkeys(("mean",), ANY),
    **dict.fromkeys(
        (
            *("axis_scale", "crop_aspect", "eps", "frames_per_second", "latent_init_scale"),
            *("init_scale", "std"),
        ),
        POSITIVE,
    ),
    **dict.fromkeys(
        (
            *("accumulate_steps", "batch_size", "channels", "hop", "image_size"),
            *("latent_channels", "max_checkpoints", "max_resolution", "max_skipped"),
            *("modality_channels", "num_bands", "num_bins", "num_channels", "num_classes"),
            *("num_cross_attend_heads", "num_frames", "num_latents", "num_points", "num_samples"),
            *("num_self_attend_heads", "num_windows", "patch_size", "sample_rate", "steps"),
            "window",
        ),
        AT_LEAST_ONE,
    ),
    **dict.fromkeys(
        ("boundaries", "brightness", "contrast", "factor", "label_smoothing", "saturation"),
        FRACTION,
    ),
    **dict.fromkeys(
        ("b1", "b2", "dropout_rate", "dropout_rates", "ema_decay", "max_dropped"), BELOW_ONE
    ),
    "crop_area": Range(0, 1, low_included=False),
    "num_workers": Range(0, 1024),
    "permutation_seed": Range(-1, MAX_INT),
}
# Pairs of the least and the greatest.
PAIRS = ("axis_scale", "crop_area", "crop_aspect")


def check(config: ml_collections.ConfigDict) -> None:
    """Checks that a config has all sections and that its values are in range.

    Raises:
      ValueError: if not; it names the first key that is wrong.
    """
    for path, value in _leaves(config, ()):
        key = f"config.{'.'.join(path)}"
        if isinstance(value, tuple) and not value:
            raise ValueError(f"{key} is empty; expected at least one value. Add it.")
        for x in value if isinstance(value, tuple) else (value,):
            _check_number(key, path, x, value)
        if path[-1] in PAIRS and (len(value) != 2 or value[0] > value[1]):
            raise ValueError(f"{key} is {value}; expected two numbers, the lesser one first.")


def _leaves(
    config: ml_collections.ConfigDict, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _check_number(key: str, path: tuple[str, ...], x: Any, value: Any) -> None:
    if isinstance(x, bool) or not isinstance(x, int | float):
        return
    allowed = next((RANGES[name] for name in reversed(path) if name in RANGES), NOT_NEGATIVE)
    too_large = isinstance(x, int) and x > MAX_INT
    if too_large or not math.isfinite(x) or not allowed.has(x):
        most = f" and at most {MAX_INT}" if too_large else ""
        finite = "" if math.isfinite(x) else "a finite number, "
        raise ValueError(f"{key} is {value}; expected {finite}{allowed.text()}{most}. Change it.")
