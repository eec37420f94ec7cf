"""Video and audio -> a file that every player shows."""

import fractions
import os

import numpy as np

from perceiver_jax import config


def write_clip(
    path: str | os.PathLike[str],
    video: np.ndarray,
    audio: np.ndarray | None = None,
    frame_rate: int | fractions.Fraction = 25,
    sample_rate: int = 48_000,
) -> None:
    """Writes a clip with H.264 and AAC; a file of that name is overwritten.

    Args:
        path: a name that ends in `.mp4`, `.mkv` or `.mov`.
        video: uint8 [T, H, W, 3]. Odd rows or columns are doubled at the edge, for the format has
            none.
        audio: samples [S] in [-1, 1]; louder ones are cut.
        frame_rate: frames a second.
        sample_rate: samples a second, in Hz.

    Raises:
        UserError: if the arrays are no video and no audio, or the file can't be written.
    """
    try:
        import av  # An extra: only those who read or write clips need it.
    except ImportError as error:
        raise config.MissingPackageError(
            "Clips are written by the package av, which is not installed. Install it: "
            "pip install perceiver-haiku[av]"
        ) from error
    video, sound = np.asarray(video), None if audio is None else np.asarray(audio)
    if video.ndim != 4 or video.shape[3] != 3 or video.dtype != np.uint8 or not video.size:
        raise config.UserError(
            f"video is {video.dtype} {list(video.shape)}; expected uint8 [T, H, W, 3]. Convert it."
        )
    if sound is not None and (sound.ndim != 1 or sound.dtype.kind != "f"):
        raise config.UserError(
            f"audio is {sound.dtype} {list(sound.shape)}; expected floats [S]. Convert it."
        )
    odd = [(0, n % 2) for n in video.shape[1:3]]
    video = np.pad(video, [(0, 0), *odd, (0, 0)], mode="edge")
    try:
        with av.open(os.fspath(path), "w") as container:
            pictures = container.add_stream("libx264", rate=frame_rate)
            pictures.height, pictures.width = video.shape[1:3]
            pictures.pix_fmt = "yuv420p"
            pictures.options = {"crf": "15"}  # Hardly any loss, for this is to be looked at.
            samples = None if sound is None else container.add_stream("aac", rate=sample_rate)
            if samples is not None:
                samples.layout = "mono"
            for frame in video:
                packets = pictures.encode(av.VideoFrame.from_ndarray(frame, format="rgb24"))
                container.mux(packets)
            container.mux(pictures.encode(None))
            if samples is not None and sound is not None:
                levels = np.clip(np.nan_to_num(sound), -1, 1).astype(np.float32)
                block = av.AudioFrame.from_ndarray(levels[None], format="fltp", layout="mono")
                block.sample_rate = sample_rate
                block.pts, block.time_base = 0, fractions.Fraction(1, sample_rate)
                container.mux(samples.encode(block))
                container.mux(samples.encode(None))
    except (OSError, ValueError) as error:  # PyAV's errors are both.
        raise config.UserError(
            f"Can't write {os.fspath(path)}: {config.said(error)}. Expected a name that ends in "
            ".mp4, .mkv or .mov, in a folder that is there. Change it."
        ) from error
