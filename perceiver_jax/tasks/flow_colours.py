"""Optical flow as colours, by the wheel that pictures of flow have had since it was published.

Baker et al. 2007, 'A Database and Evaluation Methodology for Optical Flow'.
"""

import numpy as np

from perceiver_jax import config

# Where on the wheel, of 55 steps, the corners of the colour cube are; between them it is linear.
_CORNERS = (0, 15, 21, 25, 36, 49, 55)
_RED = (1, 1, 0, 0, 0, 1, 1)
_GREEN = (0, 1, 1, 1, 0, 0, 0)
_BLUE = (0, 0, 0, 1, 1, 1, 0)
_TOO_LONG = 0.75  # Brightness of what is longer than the longest.


def flow_colours(flow: np.ndarray, longest: float) -> np.ndarray:
    """Returns the colour of each vector: its direction is the hue, no motion is white.

    Right is red, down yellow, left cyan and up violet. Vectors that are longer than `longest` are
    darker; those that are not known (NaN) are black.

    Args:
      flow: Pixels to the right and down [..., 2].
      longest: Length in pixels that has full colour.

    Returns:
      Red, green and blue [..., 3] in [0, 1].
    """
    known = np.isfinite(flow).all(axis=-1, keepdims=True)
    right, down = np.moveaxis(np.where(known, flow, 0.0), -1, 0)
    length = np.expand_dims(np.hypot(right, down) / max(longest, 1e-9), -1)
    # The published code maps a turn to 54 of the 55 steps.
    place = (np.arctan2(-down, -right) / np.pi + 1) / 2 * (_CORNERS[-1] - 1)
    hue = np.stack([np.interp(place, _CORNERS, x) for x in (_RED, _GREEN, _BLUE)], axis=-1)
    colours = np.where(length <= 1, 1 - length * (1 - hue), hue * _TOO_LONG)
    return np.where(known, colours, 0.0)


def flow_picture(flow: np.ndarray, longest: float | None = None) -> "PIL.Image.Image":
    """Draws a flow; see `flow_colours`.

    Args:
      flow: Pixels to the right and down [H, W, 2].
      longest: Length in pixels that has full colour; None: the longest there is.

    Raises:
      UserError: if it has another form.
    """
    import PIL.Image  # Here, for training draws with matplotlib.

    if np.ndim(flow) != 3 or np.shape(flow)[2] != 2 or not np.size(flow):
        raise config.UserError(
            f"The flow is of type {type(flow).__name__} and shape {np.shape(flow)}; expected "
            "numbers [H, W, 2], such as what predict returns of one pair. Give one flow."
        )
    if longest is None:
        longest = float(np.nanmax(np.hypot(flow[..., 0], flow[..., 1]), initial=0.0))
    colours = np.rint(255 * flow_colours(flow, longest)).astype(np.uint8)
    return PIL.Image.fromarray(colours)
