"""Decodes a segment of a media file, which `storage` encodes.

`decode_all` does so in processes whose time and memory are limited: a file that crashes or hangs
FFmpeg costs one clip. They import this module: it needs neither TFDS nor JAX, which take seconds.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import av
import av.logging

from perceiver_jax.data import errors
from perceiver_jax.data.builders import isolated
from perceiver_jax.data.builders.clips import containers, storage

# A clip that is a file of its own: its beginning, as long as a clip may be.
WHOLE_FILE = {"start": 0.0, "length": storage.MAX_SECONDS, "cut": True}

_SLACK = 0.5  # Seconds that may lack of what a file claims to hold.
_WHOLE = 1.0  # Seconds that a file is longer than its segment if it holds more than that.
_PADDING = 0.1  # Seconds that codecs add to fill their last block.
_PREROLL = 0.5  # Seconds of audio that codecs need before what they decode is right.


def decode_all(
    requests: Iterable[dict[str, Any]], num_processes: int, **limits: Any
) -> Iterator[dict[str, Any]]:
    """Yields what `decode` returns of each request, in their order, decoded side by side.

    Args:
        requests: arguments of `decode`.
        num_processes: how many clips are decoded at once.
        **limits: those of `isolated.run_all`.
    """
    for result in isolated.run_all(answer, requests, num_processes, initialise, **limits):
        yield {"error": tuple(result)} if isinstance(result, isolated.Ended) else result


def initialise() -> None:
    """Prepares a process in which `answer` is called."""
    av.logging.set_level(None)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Returns what `decode` does of a request, its arguments; `seconds` of one of a path alone."""
    return decode(**request) if len(request) > 1 else seconds(**request)


def seconds(path: str) -> dict:
    """Returns `seconds`, how long a file is, or `error`; one that doesn't say so is read."""
    return _or_error(_seconds, path)


def decode(
    path: str, start: float, length: float, cut: bool | None, with_video: bool = True
) -> dict:
    """Decodes a segment; an error that it raises is one of this program.

    Args:
        path: the file.
        start: where the segment begins in the recording, in seconds.
        length: of the segment, in seconds; no more is decoded.
        cut: whether the file is known to begin at `start`. If not, it does so too when it is no
            longer than the segment, and holds the whole recording when it is. None: it holds the
            whole recording, however long that is.
        with_video: whether video is wanted; without, a clip has to have audio.

    Returns:
        What `storage.encode` does, or `error`, cause and detail of a clip that can't be used.
    """
    return _or_error(_decode, path, start, length, cut, with_video)


def _or_error(function: Callable[..., dict], *args: Any) -> dict:
    try:
        return function(*args)
    except errors.BadDataError as error:
        return {"error": (error.cause, error.detail)}
    except MemoryError:
        return {"error": ("refused", f"needs more than {isolated.MAX_MEMORY >> 30} GiB of memory")}
    except (AttributeError, ImportError, NameError, TypeError):
        raise  # Of a wrong call; no file makes one.
    # What a hostile file makes of FFmpeg, PyAV and Pillow has no common type.
    except Exception as error:
        return {"error": ("undecodable", f"{type(error).__name__}: {error}"[:200])}


def _seconds(path: str) -> dict:
    with containers.open_file(path) as container:
        streams = [s for s in container.streams if s.type in ("audio", "video")]
        claimed = containers.claimed(path, container, streams) if streams else 0.0
        if claimed is None or container.format.name in containers.ENDLESS:
            claimed = containers.measure(path, streams) - containers.origin(container)
        return {"seconds": claimed}


def _decode(
    path: str,
    start: float,
    length: float,
    cut: bool | None,
    with_video: bool,
    channel: int | None = None,
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
        is_longer = whole is not None and whole > length + _WHOLE
        begin = start if cut is None or (not cut and is_longer) else 0.0
        skipped = {}
        if begin and containers.finds_times(container, streams):
            container.seek(max(0, round(target * av.time_base)), backward=True)
        elif begin and container.format.name not in containers.WITHOUT_TIMES:
            skipped = containers.count_before(path, streams, target)

        ratio, rate = (video.sample_aspect_ratio, video.average_rate) if video else (None, None)
        video_sink = storage.Video(length, float(ratio or 1), float(rate or storage.FRAME_RATE))
        audio_sink = storage.Audio(length, channel)
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
        if cut and is_longer:
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
        return storage.encode(video_sink, audio_sink, seconds, causes, with_video)


def _is_cover(stream: av.video.stream.VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _check(stream: av.stream.Stream) -> None:
    """Refuses claims that would take the machine's memory."""
    codec = stream.codec_context
    if not stream.time_base:
        raise errors.BadDataError("undecodable", f"{stream.type} without a unit of time")
    if stream.type == "video":
        codec.options = {"max_pixels": str(storage.MAX_PIXELS)}
        storage.check_size(codec.width, codec.height)
    elif codec.sample_rate:
        storage.check_sound(codec.channels, codec.sample_rate)


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
