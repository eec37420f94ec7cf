"""Pictures of any size, through a model for one size: in tiles that overlap, blended again."""

from collections.abc import Callable, Sequence
import itertools
import math

import numpy as np

from perceiver_jax import config

OVERLAP = 20  # Pixels; that of Perceiver IO's authors for optical flow.


def blend(
    function: Callable[[np.ndarray], np.ndarray],
    pictures: np.ndarray,
    tile: Sequence[int],
    overlap: int = OVERLAP,
) -> np.ndarray:
    """Computes an image of pictures tile by tile.

    Where tiles overlap, what is computed is weighted by the distance to the nearest edge of its
    tile (Perceiver IO, section 4.2), for the surroundings of a pixel at an edge are not seen.
    Pictures that are smaller than a tile are continued on all sides by the pixels of their edges,
    which the result is without.

    Args:
      function: pictures of one tile [..., *tile, C] -> an image [*tile, F].
      pictures: [..., H, W, C].
      tile: rows and columns of a tile.
      overlap: of neighbours, in pixels, at least.

    Returns:
      [H, W, F].

    Raises:
      UserError: if a tile is not larger than the overlap.
    """
    if not 0 <= overlap < min(tile):
        raise config.UserError(
            f"overlap is {overlap} and a tile {tile[0]} x {tile[1]} pixels; expected an overlap of "
            "0 or more that is less than both. Change one of them."
        )
    size = pictures.shape[-3:-1]
    lacking = [max(0, wanted - there) for wanted, there in zip(tile, size, strict=True)]
    around = [(x // 2, x - x // 2) for x in lacking]
    others = [(0, 0)] * (pictures.ndim - 3)
    pictures = np.pad(pictures, [*others, *around, (0, 0)], mode="edge")
    weights = _weights(tile)[..., None]
    total, sum_of_weights = 0.0, np.zeros((*pictures.shape[-3:-1], 1), np.float32)
    for place in _places(pictures.shape[-3:-1], tile, overlap):
        rows, columns = (slice(a, a + n) for a, n in zip(place, tile, strict=True))
        image = np.asarray(function(pictures[..., rows, columns, :]))
        if np.ndim(total) == 0:
            total = np.zeros((*sum_of_weights.shape[:2], image.shape[-1]), np.float32)
        total[rows, columns] += weights * image
        sum_of_weights[rows, columns] += weights
    (above, _), (left, _) = around
    return (total / sum_of_weights)[above : above + size[0], left : left + size[1]]


def count(size: Sequence[int], tile: Sequence[int], overlap: int = OVERLAP) -> int:
    """Returns how many tiles pictures of a size [H, W] have."""
    size = [max(*pair) for pair in zip(size, tile, strict=True)]
    return len(_places(size, tile, overlap))


def _places(size: Sequence[int], tile: Sequence[int], overlap: int) -> list[tuple[int, ...]]:
    """Rows and columns where tiles begin; the last ones end where the picture does."""
    axes = []
    for length, one in zip(size, tile, strict=True):
        number = math.ceil((length - overlap) / (one - overlap))
        begins = [i * (one - overlap) for i in range(number)]
        axes.append([min(begin, length - one) for begin in begins])
    return list(itertools.product(*axes))


def _weights(tile: Sequence[int]) -> np.ndarray:
    """The distance of each pixel to the nearest edge: 1 at it."""
    rows, columns = (np.minimum(np.arange(n) + 1, n - np.arange(n)) for n in tile)
    return np.minimum(rows[:, None], columns[None]).astype(np.float32)
