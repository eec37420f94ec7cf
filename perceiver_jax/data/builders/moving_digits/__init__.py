"""moving_digits: pairs of synthetic frames whose flow is known exactly, a small stand-in for flow.

Digits of mnist5k move over a noisy background that moves, too, each by whole pixels of its own.
"""

from collections.abc import Iterator
import io

import numpy as np
import PIL.Image
import scipy.ndimage
import tensorflow_datasets as tfds

from perceiver_jax.data.builders import base, mnist5k

SIZES = {"train": 2_000, "test": 200}
SIDE = 40  # Of the frames, in pixels.
FASTEST = 3  # Pixels along each axis.

_NUM_DIGITS = 2
_VISIBLE = 60  # Brightness from which on a pixel is the digit's and not the background's.


class MovingDigits(base.EmbeddedBuilder):
    """Two digits a pair; each split has digits of its own."""

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples of each split."""
        return SIZES

    def _info(self) -> tfds.core.DatasetInfo:
        frame = tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self,
            description="Synthetic pairs of frames: moving digits over a moving background.",
            license="CC BY-SA 3.0, as mnist5k",
            features=tfds.features.FeaturesDict(
                {
                    "frames": tfds.features.Sequence(frame, length=2),
                    "flow": tfds.features.Tensor(shape=(), dtype=np.object_),  # A .npy file.
                }
            ),
        )

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        digits = mnist5k.images(split)
        for i in range(SIZES[split]):
            # The seed makes the data set what it is.
            frames, flow = draw(np.random.default_rng([split == "test", i]), digits)
            encoded = [_encode(frame) for frame in frames]
            buffer = io.BytesIO()
            np.save(buffer, flow)
            yield f"{i:04d}", {"frames": encoded, "flow": buffer.getvalue()}


def draw(rng: np.random.Generator, digits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws a pair.

    Args:
        rng: decides everything.
        digits: to choose from, uint8 [E, 28, 28].

    Returns:
        Frames uint8 [2, H, W, 3], and flow int8 [H, W, 2], to the right and down.
    """
    margin = FASTEST
    noise = rng.normal(size=(SIDE + 2 * margin, SIDE + 2 * margin, 3))
    noise = scipy.ndimage.gaussian_filter(noise, (1.5, 1.5, 0), mode="wrap")
    background = np.clip(110 + 130 * noise / noise.std() / 3, 0, 255).astype(np.uint8)
    moves = rng.integers(-FASTEST, FASTEST + 1, (1 + _NUM_DIGITS, 2))  # Rows, columns.
    frames = np.stack([_window(background, margin, -time * moves[0]) for time in (0, 1)])
    flow = np.tile(moves[0][::-1].astype(np.int8), (SIDE, SIDE, 1))
    for move in moves[1:]:
        digit = digits[rng.integers(len(digits))]
        colour = rng.integers(100, 256, 3)
        place = rng.integers(margin, SIDE - margin - np.array(digit.shape) + 1)
        rows, columns = np.nonzero(digit >= _VISIBLE)
        painted = (digit[rows, columns, None] / 255 * colour).astype(np.uint8)
        rows, columns = rows + place[0], columns + place[1]
        frames[0, rows, columns] = painted
        frames[1, rows + move[0], columns + move[1]] = painted
        flow[rows, columns] = move[::-1]
    return frames, flow


def _window(background: np.ndarray, margin: int, shift: np.ndarray) -> np.ndarray:
    row, column = margin + shift
    return background[row : row + SIDE, column : column + SIDE]


def _encode(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()  # Given an array, TFDS would encode it with TensorFlow.
    PIL.Image.fromarray(frame).save(buffer, format="png")
    return buffer.getvalue()
