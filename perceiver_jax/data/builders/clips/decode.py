"""Decodes a segment of a media file and encodes it as we store it.

`decode_all` does so in processes whose time and memory are limited: a file that crashes or hangs
FFmpeg costs one clip. They import this module: it needs neither TFDS nor JAX, which take seconds.
"""

from collections.abc import Iterable, Iterator
import io
import math
from typing import Any

import av
import av.logging
import av.video.reformatter
import numpy as np
import PIL.Image
import soundfile
import soxr

from perceiver_jax.data import errors
from perceiver_jax.data.builders import isolated
from perceiver_jax.data.builders.clips import containers

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
_SLACK = 0.5  # Seconds that may lack of what a file claims to hold.
_WHOLE = 1.0  # Seconds that a file is longer than its segment if it holds more than that.
_PADDING = 0.1  # Seconds that codecs add to fill their last block.
_PREROLL = 0.5  # Seconds of audio that codecs need before what they decode is right.
_CANCELLED = 0.02  # Of the power that unrelated channels' mean had is left: they are opposite
_OPPOSITE = 0.1  # if they are so in pieces that have as much of the power of all.
_BEYOND = 2.0  # Peak that codecs don't add to audio that was within 1.
_STEP = 0.001  # Seconds; Matroska keeps time in milliseconds.
_GAP = 0.05  # Seconds by which audio is out of place before it is moved.


def decode_all(
    requests: Iterable[dict[str, Any]], num_processes: int, **limits: Any
) -> Iterator[dict[str, Any]]:
    """Yields what `decode` returns of each request, in their order, decoded side by side.

    Args:
        requests: arguments of `decode`.
        num_processes: how many clips are decoded at once.
        **limits: those of `isolated.run_all`.
    """
    for result in isolated.run_all(_answer, requests, num_processes, _initialise, **limits):
        yield {"error": tuple(result)} if isinstance(result, isolated.Ended) else result


def _initialise() -> None:
    av.logging.set_level(None)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    return decode(**request)


def decode(path: str, start: float, length: float, cut: bool, with_video: bool = True) -> dict:
    """Decodes a segment; an error that it raises is one of this program.

    Args:
        path: the file.
        start: where the segment begins in the recording, in seconds.
        length: of the segment, in seconds; no more is decoded.
        cut: whether the file is known to begin at `start`. If not, it does so too when it is no
            longer than the segment, and holds the whole recording when it is.
        with_video: whether video is wanted; without, a clip has to have audio.

    Returns:
        `video`, JPEG files at 25 a second, `audio`, a FLAC file of 48 kHz mono, and `causes`,
        details by cause: what is odd about the clip. Audio and video are equally long; a lacking
        one is empty. A clip that can't be used has `error`, its cause and detail, instead.
    """
    try:
        return _decode(path, start, length, cut, with_video)
    except errors.BadDataError as error:
        return {"error": (error.cause, error.detail)}
    except MemoryError:
        return {"error": ("refused", f"needs more than {isolated.MAX_MEMORY >> 30} GiB of memory")}
    except (AttributeError, ImportError, NameError, TypeError):
        raise  # Of a wrong call; no file makes one.
    # What a hostile file makes of FFmpeg, PyAV and Pillow has no common type.
    except Exception as error:
        return {"error": ("undecodable", f"{type(error).__name__}: {error}"[:200])}


def _decode(
    path: str, start: float, length: float, cut: bool, with_video: bool, channel: int | None = None
) -> dict:
    """Decodes with the mean of the audio's channels, or one of them."""
    with containers.open_file(path) as container:
        videos = [s for s in container.streams.video if with_video and not _is_cover(s)]
        video = next(iter(videos), None)
        audio = next(iter(container.streams.audio), None)
        streams = [s for s in (video, audio) if s is not None and s.codec_context is not None]
        if not streams:
            wanted = "audio or video" if with_video else "audio"
            raise errors.BadDataError("undecodable", f"holds no {wanted} that FFmpeg knows")
        for stream in streams:
            _check(stream)
            stream.codec_context.thread_count = 1  # Each core has a decoder of its own.

        origin = containers.origin(container)
        target = origin + start - _PREROLL
        endless = container.format.name in containers.ENDLESS
        whole = claimed = containers.claimed(path, container, streams)
        guess = (container.duration or 0) / av.time_base
        # Most formats count lengths from time 0; which programs did so can't be told.
        late = 0.0 if container.format.name.startswith("mov") else max(0.0, origin)
        if (endless or claimed is None or late > _SLACK) and (not cut or guess > length):
            whole = containers.measure(path, streams) - origin
        begin = start if not cut and whole is not None and whole > length + _WHOLE else 0.0
        skipped = {}
        if begin and containers.finds_times(container, streams):
            container.seek(max(0, round(target * av.time_base)), backward=True)
        elif begin and container.format.name not in containers.WITHOUT_TIMES:
            skipped = containers.count_before(path, streams, target)

        video_sink = _Video(length, video)
        audio_sink = _Audio(length, channel)
        damaged = good = 0
        for stream, frames in containers.frames(
            container, streams, skipped, origin + begin + length
        ):
            if frames is None:
                damaged += 1
                continue
            sink = video_sink if stream is video else audio_sink
            for frame in frames:
                if frame.is_corrupt:
                    damaged += 1
                else:
                    good += 1
                    sink.add(frame, origin + begin)
        video_sink.finish()

        opposite = audio_sink.loudest() if channel is None else None
        if opposite is not None:
            return _decode(path, start, length, cut, with_video, opposite)
        causes = {}
        if damaged:
            causes["damaged"] = f"{damaged} packets or frames"
        if cut and whole is not None and whole > length + _WHOLE:
            causes["long"] = f"{whole:.2f} s"
        if channel is not None:
            causes["opposite_channels"] = f"channel {channel + 1} is taken"
        ends = {stream: (video_sink if stream is video else audio_sink).end for stream in streams}
        if damaged > good:
            raise errors.BadDataError(
                "undecodable", f"{damaged} of {damaged + good} packets or frames"
            )
        _check_complete(ends, claimed, begin + late, length, damaged, endless)
        seconds = max(ends.values())
        if claimed is not None and 0 < seconds - (claimed - begin) < _PADDING:
            seconds = claimed - begin
        return _encode(video_sink, audio_sink, seconds, causes, with_video)


def _is_cover(stream: av.video.stream.VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _check(stream: av.stream.Stream) -> None:
    """Refuses claims that would take the machine's memory."""
    codec = stream.codec_context
    if not stream.time_base:
        raise errors.BadDataError("undecodable", f"{stream.type} without a unit of time")
    if stream.type == "video":
        codec.options = {"max_pixels": str(MAX_PIXELS)}
        _check_size(codec.width, codec.height)
    elif codec.sample_rate:
        low, high = SAMPLE_RATES
        if not low <= codec.sample_rate <= high or codec.channels > MAX_CHANNELS:
            raise errors.BadDataError(
                "refused", f"audio of {codec.channels} channels at {codec.sample_rate} Hz"
            )


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_ASPECT * max(min(width, height), 1):
        raise errors.BadDataError("refused", f"frames of {width} x {height} pixels")


def _check_complete(
    ends: dict[av.stream.Stream, float],
    claimed: float | None,
    begin: float,
    length: float,
    damaged: int,
    endless: bool,
) -> None:
    """Refuses a clip of which much less could be decoded than its file claims to hold."""
    last = max(ends.values())
    if last == 0:
        raise errors.BadDataError(
            "undecodable", "no video and no audio of the segment could be decoded"
        )
    wanted = {None: (last, claimed)} | {
        stream: (end, float(stream.duration * stream.time_base))
        for stream, end in ends.items()
        if stream.duration and not endless
    }
    for stream, (end, duration) in wanted.items():
        expected = min(length, (duration or 0) - begin)
        if end < expected - _SLACK:
            what = stream.type if stream else "file"
            raise errors.BadDataError(
                "truncated", f"{what} ends after {end:.2f} of {expected:.2f} s"
            )
    for stream, end in ends.items():
        if end == 0 and damaged:
            raise errors.BadDataError(
                "undecodable", f"no {stream.type} of the segment could be decoded"
            )


class _Video:
    """Takes frames as they come, keeps the one that shows at each 25th of a second."""

    def __init__(self, length: float, stream: av.video.stream.VideoStream | None):
        self.files: list[bytes] = []
        self.end = 0.0  # Seconds of the segment that have video.
        self.times: list[float] = []
        self._num = round(length * FRAME_RATE)
        self._ratio = float((stream and stream.sample_aspect_ratio) or 1)
        self._rate = float((stream and stream.average_rate) or FRAME_RATE)
        self._last: av.VideoFrame | None = None
        self._scaler = av.video.reformatter.VideoReformatter()  # Keeps its tables.

    def add(self, frame: av.VideoFrame, begin: float) -> None:
        time = frame.time
        time = self._next_time() if time is None else time - begin
        self._fill(time - _STEP, self._last or frame)
        self._last = frame
        self.times.append(time)

    def finish(self) -> None:
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
        _check_size(round(width), height)
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


class _Audio:
    """Puts pieces of audio where their time says."""

    def __init__(self, length: float, channel: int | None):
        self.rate = 0
        self.samples = np.zeros(0, np.float32)
        self._length, self._position, self._last = length, 0, 0
        self._channel, self._powers, self._cancelled = channel, np.zeros(MAX_CHANNELS), 0.0

    @property
    def end(self) -> float:
        return self._last / self.rate if self.rate else 0.0

    def add(self, frame: av.AudioFrame, begin: float) -> None:
        if not self.rate:
            self.rate = frame.sample_rate
            self.samples = np.zeros(round(self._length * self.rate), np.float32)
        if frame.sample_rate != self.rate:
            raise errors.BadDataError("undecodable", "the audio's sample rate changes")
        piece = self._mix(_channels(frame))
        time = frame.time
        if time is not None:
            due = round((time - begin) * self.rate)
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


def _channels(frame: av.AudioFrame) -> np.ndarray:
    samples = frame.to_ndarray()  # [channels, samples], or [1, samples * channels] if packed.
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        samples = samples / np.float32(np.iinfo(samples.dtype).max + 1)
    return samples


def _encode(
    video: _Video, audio: _Audio, seconds: float, causes: dict[str, str], with_video: bool
) -> dict:
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
    return {"video": files[:num], "audio": _flac(samples, audio.rate, num), "causes": causes}


def _flac(samples: np.ndarray, rate: int, num_frames: int) -> bytes:
    """Returns audio as long as so many frames; nothing if there is none."""
    if not len(samples):
        return b""
    stored = np.zeros(num_frames * SAMPLE_RATE // FRAME_RATE, np.float32)
    resampled = soxr.resample(samples, rate, SAMPLE_RATE)[: len(stored)]
    stored[: len(resampled)] = np.clip(resampled, -1, 1)
    buffer = io.BytesIO()
    soundfile.write(buffer, stored, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()
