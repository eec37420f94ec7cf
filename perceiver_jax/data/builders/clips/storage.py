"""What we store of a clip: frames and samples, as they come -> JPEG files and a FLAC file.

Processes that decode import this: it needs neither TFDS nor JAX, which take seconds.
"""

from collections.abc import Sequence
import fractions
import io
import math

import av
import av.video.reformatter
import numpy as np
import PIL.Image
import soundfile
import soxr

from perceiver_jax.data import errors

MAX_SECONDS = 60.0  # Of a clip that is a file of its own; more is cut off.
FRAME_RATE = 25
SAMPLE_RATE = 48_000
SHORT_SIDE = 256  # Pixels.
WINDOW_SECONDS = 1.28  # Of a training example of the paper.
SILENCE_PEAK = 1e-4  # Audio that never exceeds it, -80 dB of full scale, counts as silent.

MAX_PIXELS = 8_192 * 4_608  # Of a frame. FFmpeg refuses more before it takes memory.
MAX_ASPECT = 8  # Of a frame's sides: the longer is at most so many times the shorter.
MAX_CHANNELS = 64
SAMPLE_RATES = (1_000, 768_000)  # Range that is taken, in Hz.

_TURNS = {
    (0, 1, -1, 0): PIL.Image.Transpose.ROTATE_270,  # Counter-clockwise.
    (-1, 0, 0, -1): PIL.Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): PIL.Image.Transpose.ROTATE_90,
    (-1, 0, 0, 1): PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): PIL.Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): PIL.Image.Transpose.TRANSVERSE,
}
_USUAL_RATES = {8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000}
_JPEG_QUALITY = 85
_CANCELLED = 0.02  # Of the power that unrelated channels' mean had is left: they are opposite
_OPPOSITE = 0.1  # if they are so in pieces that have as much of the power of all.
_BEYOND = 2.0  # Peak that codecs don't add to audio that was within 1.
_STEP = 0.001  # Seconds; Matroska keeps time in milliseconds.
_GAP = 0.05  # Seconds by which audio is out of place before it is moved.
_PIECE = 1_024  # Samples of an array that are taken at a time, as codecs do.


def check_size(width: int, height: int) -> None:
    """Refuses frames that would take the machine's memory."""
    if width * height > MAX_PIXELS or max(width, height) > MAX_ASPECT * max(min(width, height), 1):
        raise errors.BadDataError("refused", f"frames of {width} x {height} pixels")


def check_sound(num_channels: int, rate: int) -> None:
    """Refuses audio that would take the machine's memory."""
    low, high = SAMPLE_RATES
    if not low <= rate <= high or num_channels > MAX_CHANNELS:
        raise errors.BadDataError("refused", f"audio of {num_channels} channels at {rate} Hz")


class Video:
    """Takes frames as they come, keeps the one that shows at each 25th of a second.

    Attributes:
        files: JPEG files.
        end: seconds of the segment that have video, after `finish`.
        times: of the frames that came, in seconds of the segment.
    """

    def __init__(self, length: float, ratio: float = 1.0, rate: int | float = FRAME_RATE):
        """Has none yet.

        Args:
            length: of the segment, in seconds.
            ratio: of a pixel's width to its height.
            rate: frames a second, where times don't tell.
        """
        self.files: list[bytes] = []
        self.end = 0.0
        self.times: list[float] = []
        self._num = round(length * FRAME_RATE)
        self._ratio, self._rate = ratio, rate
        self._last: av.VideoFrame | None = None
        self._scaler = av.video.reformatter.VideoReformatter()  # Keeps its tables.

    def add(self, frame: av.VideoFrame, begin: float) -> None:
        """Adds a frame of a file in which the segment begins at `begin` seconds."""
        time = frame.time
        time = self._next_time() if time is None else time - begin
        self._fill(time - _STEP, self._last or frame)
        self._last = frame
        self.times.append(time)

    def finish(self) -> None:
        """Shows the last frame until it ends."""
        if self._last is not None:
            self.end = min(self._next_time(), self._num / FRAME_RATE)
            self._fill(self.end - _STEP, self._last)
            self.end = max(self.end, 0.0)

    def _next_time(self) -> float:
        if not self.times:
            return 0.0
        gap = self.times[-1] - self.times[-2] if len(self.times) > 1 else 1 / self._rate
        return self.times[-1] + max(gap, 0.0)

    def _fill(self, until: float, frame: av.VideoFrame) -> None:
        """Shows a frame at each time from the last one filled to before `until`."""
        num = min(self._num, math.ceil(until * FRAME_RATE)) - len(self.files)
        if num > 0:
            self.files += [self._encode(frame)] * num

    def _encode(self, frame: av.VideoFrame) -> bytes:
        width, height = frame.width * self._ratio, frame.height
        check_size(round(width), height)
        scale = SHORT_SIDE / min(width, height)
        size = round(width * scale), round(height * scale)
        turn = _turn(frame)
        interpolation = "AREA" if scale < 1 else "BICUBIC"
        frame = self._scaler.reformat(
            frame, *size, format="rgb24", interpolation=interpolation, threads=1
        )
        image = frame.to_image() if turn is None else frame.to_image().transpose(turn)
        buffer = io.BytesIO()
        image.save(buffer, format="jpeg", quality=_JPEG_QUALITY)
        return buffer.getvalue()


def _turn(frame: av.VideoFrame) -> PIL.Image.Transpose | None:
    """How video is turned or mirrored to be shown."""
    stored = frame.side_data.get("DISPLAYMATRIX")
    if stored is None:
        return None
    a, b, _, c, d = np.frombuffer(stored, np.int32)[:5] / 2**16  # x' = a x + c y, y' = b x + d y
    return _TURNS.get((round(a), round(b), round(c), round(d)))


class Audio:
    """Puts pieces of audio where their time says.

    Attributes:
        rate: samples a second; 0 before there are any.
        samples: float32, of the whole segment.
    """

    def __init__(self, length: float, channel: int | None):
        """Has none yet.

        Args:
            length: of the segment, in seconds.
            channel: which of the channels is taken; None: their mean.
        """
        self.rate = 0
        self.samples = np.zeros(0, np.float32)
        self._length, self._position, self._last = length, 0, 0
        self._channel, self._powers, self._cancelled = channel, np.zeros(MAX_CHANNELS), 0.0

    @property
    def end(self) -> float:
        """Seconds of the segment that have audio."""
        return self._last / self.rate if self.rate else 0.0

    def add(self, frame: av.AudioFrame, begin: float) -> None:
        """Adds a piece of a file in which the segment begins at `begin` seconds."""
        samples = frame.to_ndarray()  # [channels, samples], or [1, samples * channels] if packed.
        if not frame.format.is_planar:
            samples = samples.reshape(-1, frame.layout.nb_channels).T
        time = None if frame.time is None else frame.time - begin
        self.add_samples(samples, frame.sample_rate, time)

    def add_samples(self, samples: np.ndarray, rate: int, time: float | None = None) -> None:
        """Adds numbers of any type [channels, samples]; without a time, behind those before."""
        if not self.rate:
            self.rate = rate
            self.samples = np.zeros(round(self._length * self.rate), np.float32)
        if rate != self.rate:
            raise errors.BadDataError("undecodable", "the audio's sample rate changes")
        piece = self._mix(_full_scale(samples))
        if time is not None:
            due = round(time * self.rate)
            if not self._last or abs(due - self._position) > _GAP * self.rate:
                self._position = due
        first, last = self._position, self._position + len(piece)
        self._position = last
        first_kept, last_kept = max(first, 0), min(last, len(self.samples))
        if first_kept < last_kept:
            self.samples[first_kept:last_kept] = piece[first_kept - first : last_kept - first]
            self._last = max(self._last, last_kept)

    def loudest(self) -> int | None:
        """Which channel to take instead of the mean, if the channels cancel each other in it."""
        if self._cancelled > _OPPOSITE * self._powers.sum():
            return int(np.argmax(self._powers > 0.9 * self._powers.max()))
        return None

    def _mix(self, channels: np.ndarray) -> np.ndarray:
        if len(channels) > MAX_CHANNELS:
            raise errors.BadDataError("refused", f"audio of {len(channels)} channels")
        if self._channel is not None:
            return channels[min(self._channel, len(channels) - 1)]
        mixed = channels.mean(axis=0, dtype=np.float32)
        if len(channels) > 1:
            powers = np.einsum("cn,cn->c", channels, channels, dtype=np.float64)
            powers = np.nan_to_num(powers, posinf=0)
            self._powers[: len(channels)] += powers
            unrelated = powers.sum() / len(channels) ** 2
            if np.nan_to_num(np.dot(mixed, mixed), posinf=0) < _CANCELLED * unrelated:
                self._cancelled += powers.sum()
        return mixed


def _full_scale(samples: np.ndarray) -> np.ndarray:
    """Scales whole numbers of any width to floats in [-1, 1]."""
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        samples = samples / np.float32(np.iinfo(samples.dtype).max + 1)
    return samples


def encode(
    video: Video, audio: Audio, seconds: float, causes: dict[str, str], with_video: bool
) -> dict:
    """Encodes a segment as it is stored.

    Args:
        video: its frames.
        audio: its samples.
        seconds: how much of it there is; video and audio are cut and filled up to that.
        causes: details by cause, of what is odd about it; more are added.
        with_video: whether video is wanted.

    Returns:
        `video`, JPEG files at 25 a second, `audio`, a FLAC file of 48 kHz mono, each empty if there
        is none, `seconds`, how long they are, and `causes`.

    Raises:
        errors.BadDataError: there is but silence.
    """
    samples = audio.samples[: round(audio.end * audio.rate)]
    samples = np.nan_to_num(samples, posinf=0, neginf=0)
    peak = np.abs(samples).max(initial=0)
    if peak > _BEYOND:
        causes["beyond_full_scale"] = f"peak {peak:g}"
        samples = samples / peak
    if with_video and not video.files:
        causes["no_video"] = ""
    if not len(samples):
        causes["no_audio"] = ""
    elif peak < SILENCE_PEAK:
        causes["silent"] = f"peak {peak:.1e}"
        samples = samples[:0]
        if not video.files:
            raise errors.BadDataError("silent", causes["silent"] + ", and without video")
    if len(samples) and audio.rate not in _USUAL_RATES:
        causes["unusual_sample_rate"] = f"{audio.rate} Hz"
    gaps = np.diff(np.sort(video.times))
    if len(gaps) and gaps.max() - gaps.min() > 2 * _STEP + 0.25 * np.median(gaps):
        causes["variable_frame_rate"] = f"{1 / gaps.max():.2f} to {1 / max(gaps.min(), _STEP):.0f}"
    if seconds < WINDOW_SECONDS:
        causes["short"] = f"{seconds:.2f} s"

    num = max(round(seconds * FRAME_RATE), 1)
    files = video.files + video.files[-1:] * (num - len(video.files))
    flac = b""
    if len(samples):
        flac = _flac(np.clip(soxr.resample(samples, audio.rate, SAMPLE_RATE), -1, 1), num)
    return {"video": files[:num], "audio": flac, "seconds": num / FRAME_RATE, "causes": causes}


def encode_frames(frames: np.ndarray, rate: int | float) -> dict:
    """Stores video from memory: uint8 [T, H, W, 3] at `rate` frames a second; see `encode`."""
    video = Video(MAX_SECONDS, rate=rate)
    tick = 1 / fractions.Fraction(rate).limit_denominator(1_001)  # As of NTSC, 30,000 / 1,001.
    for i, pixels in enumerate(frames[: math.ceil(MAX_SECONDS * rate)]):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
        frame.pts, frame.time_base = i, tick
        video.add(frame, 0.0)
    video.finish()
    return encode(video, Audio(MAX_SECONDS, None), video.end, _long(len(frames) / rate), True)


def encode_samples(samples: np.ndarray, rate: int, channel: int | None = None) -> dict:
    """Stores audio from memory: [channels, S] at `rate` Hz; see `encode`."""
    check_sound(len(samples), rate)
    audio = Audio(MAX_SECONDS, channel)
    for first in range(0, min(samples.shape[1], round(MAX_SECONDS * rate)), _PIECE):
        audio.add_samples(samples[:, first : first + _PIECE], rate)
    loudest = audio.loudest() if channel is None else None
    if loudest is not None:
        return encode_samples(samples, rate, loudest)
    causes = _long(samples.shape[1] / rate)
    return encode(Video(MAX_SECONDS), audio, audio.end, causes, False)


def align(tracks: Sequence[list[bytes] | bytes]) -> list[list[bytes] | bytes]:
    """Makes videos and audio of several files equally long, as those of one file are."""
    sounds = [
        None if isinstance(track, list) else soundfile.read(io.BytesIO(track), dtype="int16")[0]
        for track in tracks
    ]
    lengths = [
        len(track) if sound is None else len(sound) * FRAME_RATE // SAMPLE_RATE
        for track, sound in zip(tracks, sounds, strict=True)
    ]
    num = max(lengths)
    return [
        track + track[-1:] * (num - len(track)) if sound is None else _flac(sound, num)
        for track, sound in zip(tracks, sounds, strict=True)
    ]


def _long(seconds: float) -> dict[str, str]:
    return {"long": f"{seconds:.2f} s"} if seconds > MAX_SECONDS else {}


def _flac(samples: np.ndarray, num_frames: int) -> bytes:
    """Returns audio of 48 kHz, as long as so many frames."""
    stored = np.zeros(num_frames * SAMPLE_RATE // FRAME_RATE, samples.dtype)
    stored[: len(samples)] = samples[: len(stored)]
    buffer = io.BytesIO()
    soundfile.write(buffer, stored, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()
