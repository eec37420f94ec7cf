"""Optical flow: a file or an array -> float32 [H, W, 2], and where it is known, bool [H, W]."""

from collections.abc import Sequence
import dataclasses
import io
from typing import ClassVar

from jaxtyping import Float32
import numpy as np

from perceiver_jax import config
from perceiver_jax.data import errors, npy
from perceiver_jax.data.fields import frames

_FLO = np.float32(202021.25).tobytes()  # What a file of Middlebury begins with.
_PNG = b"\x89PNG"
_UNKNOWN = 1e9  # Pixels; Middlebury writes more where nothing is known.


@dataclasses.dataclass(frozen=True)
class Flow:
    """How far each pixel of the first frame moves to the second, to the right and down, in pixels.

    Cut and mirrored as `frames` of the same settings. A batch has the flow by the field's name, 0
    where it is not known, and `<name>_mask`, where it is.

    Attributes:
        image_size: height and width H, W, in pixels, those of the frames.
        flip: that of the frames.
    """

    image_size: Sequence[int]
    flip: bool = False

    feature: ClassVar[str] = "flow"
    has_windows: ClassVar[bool] = False
    is_target: ClassVar[bool] = True

    def __post_init__(self):
        """Checks the size."""
        frames.check_size(self.image_size)

    def zeros(self) -> dict[str, np.ndarray]:
        """Returns no flow, known nowhere."""
        size = tuple(self.image_size)
        return {"": np.zeros((*size, 2), np.float32), "_mask": np.zeros(size, bool)}

    def read(
        self, value: bytes | np.ndarray, window: float, rng: np.random.Generator | None
    ) -> dict[str, np.ndarray]:
        """Decodes a flow; arguments as of `Frames.read`, and `value` as of `decode`.

        Raises:
            errors.BadDataError: it can't be decoded, or is too small.
        """
        flow = decode(value)
        rows, columns, mirrored = frames.place(flow.shape[:2], self, window, rng is not None)
        flow = flow[rows, columns]
        if mirrored:
            flow = flow[:, ::-1] * np.array([-1, 1], np.float32)
        known = np.isfinite(flow).all(axis=-1)
        return {"": np.where(known[..., None], flow, np.float32(0)), "_mask": known}


def decode(value: bytes | np.ndarray) -> Float32[np.ndarray, "H W 2"]:
    """Returns a flow in pixels, NaN where it is not known.

    Args:
        value: a file, Middlebury's `.flo`, KITTI's PNG of 16 bits or `.npy`, or an array: numbers
            [H, W, 2], or [H, W, 3] whose third is 0 where the flow is not known.

    Raises:
        errors.BadDataError: it is none of these, or truncated.
        ImportError: it is a PNG, and PyAV is not installed.
    """
    if isinstance(value, bytes):
        if value.startswith(_FLO):
            value = _decode_flo(value)
        elif value.startswith(_PNG):
            value = _decode_png(value)
        elif value.startswith(npy.BEGIN):
            value = npy.load(io.BytesIO(value))
        else:
            raise errors.BadDataError("not a flow", "neither .flo, nor a PNG of 16 bits, nor .npy")
    if value.ndim != 3 or value.shape[2] not in (2, 3) or value.dtype.kind not in "iuf":
        form = f"{value.dtype} {list(value.shape)}"
        raise errors.BadDataError("not a flow", f"{form}; expected numbers [H, W, 2]")
    flow = value[..., :2].astype(np.float32)
    known = np.isfinite(flow).all(axis=-1) & (np.abs(flow) < _UNKNOWN).all(axis=-1)
    if value.shape[2] == 3:
        known &= value[..., 2] != 0
    flow[~known] = np.nan
    return flow


def _decode_flo(value: bytes) -> np.ndarray:
    width, height = np.frombuffer(value[4:12], "<i4") if len(value) >= 12 else (0, 0)
    if min(width, height) < 1 or len(value) < 12 + 8 * int(width) * int(height):
        raise errors.BadDataError("truncated", f"{len(value)} bytes of {width} x {height} pixels")
    return np.frombuffer(value, "<f4", 2 * int(width) * int(height), 12).reshape(height, width, 2)


def _decode_png(value: bytes) -> np.ndarray:
    """Decodes KITTI's form: (value - 2^15) / 64 pixels, and where they are known."""
    try:
        import av
    except ImportError as error:
        raise config.MissingPackageError(
            "Got a flow in a PNG of 16 bits, of which Pillow reads 8; expected the package av. "
            "Install it: pip install perceiver-haiku[av]"
        ) from error
    with errors.of_bad_data(), av.open(io.BytesIO(value)) as container:
        frame = next(container.decode(video=0))
        if "48" not in frame.format.name:
            raise errors.BadDataError("not a flow", f"a PNG of {frame.format.name}, not of 16 bits")
        levels = frame.to_ndarray(format="rgb48le").astype(np.float32)
    return np.concatenate([(levels[..., :2] - 2**15) / 64, levels[..., 2:]], axis=-1)
