"""Media files as FFmpeg's containers: which kind one is, how long it is, its frames in time."""

from collections.abc import Iterable, Iterator
import math
import os
import re
import struct

import av
import av.error

# Only these demuxers, which open no other file, and only local files: a playlist in a clip's
# clothes could name any address.
OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,asf,"
    "wav,w64,aiff,au,caf,nistsphere,flac,wv,ogg,mp3,aac,amr",
    "protocol_whitelist": "file",
}
# How files begin; the others FFmpeg guesses. Its guesses go wrong: regular audio in a WAV file can
# look as packets of MPEG-TS do.
_BEGINNINGS = (
    (rb"(RIFF|RF64|BW64)....WAVE", "wav"),
    (rb"RIFF....AVI ", "avi"),
    (rb"riff\x2e\x91\xcf\x11", "w64"),
    (rb"FORM....AIF[FC]", "aiff"),
    (rb"\.snd", "au"),
    (rb"caff", "caf"),
    (rb"NIST_1A", "nistsphere"),
    (rb"fLaC", "flac"),
    (rb"wvpk", "wv"),
    (rb"OggS", "ogg"),
    (rb"#!AMR", "amr"),
    (rb"\x1aE\xdf\xa3", "matroska"),
    (rb"....ftyp", "mov"),
    (rb"FLV\x01", "flv"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (rb"\0\0\x01\xba", "mpeg"),
)
# These don't say how long they are; FFmpeg estimates it.
ENDLESS = frozenset(("mpeg", "mpegvideo", "mpegts", "mp3", "aac", "amr"))
# These have the order of frames, not their times.
WITHOUT_TIMES = frozenset(("avi", "mpegvideo"))
_BACK = 0.5  # Seconds by which times go back where another recording begins.
# Seconds by which they go ahead there, in formats that have joins, not gaps.
_AHEAD = {"mpeg": 10.0, "mpegts": 10.0}
# Tags may be in any encoding; PyAV 19 keeps what is not UTF-8, and has no such argument.
_TAGS = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}


def open_file(path: str) -> av.container.InputContainer:
    """Opens a file for reading; one that is none of what we take is an error of FFmpeg's."""
    with open(path, "rb") as file:
        head = file.read(16)
    if head[:4] == b"RIFX":
        raise ValueError("WAV of big-endian samples (RIFX), which FFmpeg takes for little-endian")
    kinds = [kind for begin, kind in _BEGINNINGS if re.match(begin, head, re.DOTALL)]
    return av.open(path, format=kinds[0] if kinds else None, options=OPTIONS, **_TAGS)


def claimed(
    path: str, container: av.container.InputContainer, streams: list[av.stream.Stream]
) -> float | None:
    """What the file claims to last, in seconds; None if it says nothing of it."""
    if container.format.name == "mp3":
        return _claimed_by_mp3(path, streams[0].codec_context.sample_rate)
    if container.format.name in ENDLESS:
        return None
    seconds = (container.duration or 0) / av.time_base or max(
        (float(s.duration * s.time_base) for s in streams if s.duration), default=0.0
    )
    if container.format.name in ("wav", "w64", "caf", "avi"):  # Then it is what is there.
        seconds *= _claimed_share(path)
    return seconds or None


def origin(container: av.container.InputContainer) -> float:
    """The file's time at its beginning, in seconds."""
    begin = (container.start_time or 0) / av.time_base
    # Below 0 a codec warms up; but in these the clock may have gone round, which FFmpeg undoes.
    return begin if container.format.name in ("mpeg", "mpegts") else max(0.0, begin)


def finds_times(container: av.container.InputContainer, streams: list[av.stream.Stream]) -> bool:
    """Whether FFmpeg finds exactly a time in the file, other than by reading all before it."""
    if container.format.name in ("wav", "w64", "aiff", "au", "caf"):  # It counts bytes in them.
        return streams[0].codec_context.name.startswith("pcm_")
    return container.format.name not in ENDLESS | WITHOUT_TIMES


def _claimed_by_mp3(path: str, rate: int) -> float | None:
    """By the header of a variable bit rate, behind an ID3 tag."""
    with open(path, "rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3":
            file.seek(10 + sum((byte & 127) << 7 * i for i, byte in enumerate(head[:5:-1])))
        found = re.search(
            rb"(?:Xing|Info)\0\0\0[\1\3\5\7\t\x0b\r\x0f](.{4})", file.read(8_192), re.DOTALL
        )
    if not found or not rate:
        return None
    return int.from_bytes(found[1]) * (1_152 if rate >= 32_000 else 576) / rate


def _claimed_share(path: str) -> float:
    """How many times the data that is there the header of a file of chunks claims; 1 if whole."""
    with open(path, "rb") as file:
        head = file.read(40)
        # Where chunks begin, how their name and size are written, what the size counts too, and of
        # how many bytes they are multiples.
        at, form, too, unit = {
            b"caff": (8, ">4sq", 0, 1),
            b"riff": (40, "<16sq", 24, 8),
        }.get(head[:4], (12, "<4sI", 0, 2))
        size_of_header = struct.calcsize(form)
        for _ in range(1_000):
            file.seek(at)
            chunk = file.read(size_of_header)
            if len(chunk) < size_of_header:
                break
            name, size = struct.unpack(form, chunk)
            if name[:4] == b"data" or (name == b"LIST" and file.read(4) == b"movi"):
                if head[:4] in (b"RF64", b"BW64"):
                    size = int.from_bytes(head[28:36], "little")
                there = os.fstat(file.fileno()).st_size - at - size_of_header
                # A program that could not know wrote 0, -1, or about 2 or 4 GiB.
                unknown = size <= 0 or size >> 16 in (0x7FFF, 0x8000, 0xFFFF)
                return 1.0 if unknown else max(1.0, (size - too) / max(there, 1))
            at += max(size - too, 0) + size_of_header
            at += -at % unit
    return 1.0


def measure(path: str, streams: list[av.stream.Stream]) -> float:
    """Reads all of a file that does not say how long it is; returns its end, in seconds."""
    return max((time + length for _, time, length in _read(path, streams)), default=0.0)


def count_before(path: str, streams: list[av.stream.Stream], target: float) -> dict[int, int]:
    """Returns how many packets of each stream, by its index, come before those of `target`.

    They begin with the last one, until then, that decoding can begin with.
    """
    counts = dict.fromkeys((stream.index for stream in streams), 0)
    before = dict(counts)
    for packet, time, _ in _read(path, streams):
        if packet.is_keyframe and time <= target:
            before[packet.stream.index] = counts[packet.stream.index]
        counts[packet.stream.index] += 1
    return before


def _read(path: str, streams: list[av.stream.Stream]) -> Iterator[tuple[av.Packet, float, float]]:
    """Yields packets, each with its time and length in seconds; without a time, it is 0."""
    with open_file(path) as container:
        for packet in _packets(container, [container.streams[x.index] for x in streams]):
            time = packet.dts if packet.pts is None else packet.pts
            length, tick = packet.duration or 0, packet.stream.time_base
            yield packet, float((time or 0) * tick), float(length * tick)


def _packets(
    container: av.container.InputContainer, streams: list[av.stream.Stream]
) -> Iterator[av.Packet]:
    """Yields packets; where recordings were joined, times continue instead of beginning anew."""
    ahead = _AHEAD.get(container.format.name, math.inf)
    ends: dict[int, float] = {}  # Where streams, by their index, are to continue.
    shifts = dict.fromkeys((stream.index for stream in streams), 0.0)
    for packet in container.demux(streams):
        stream, tick = packet.stream.index, packet.time_base
        if packet.dts is not None:
            if packet.pts is not None and not -_BACK < (packet.pts - packet.dts) * tick < ahead:
                packet.pts = packet.dts  # FFmpeg gives the first of a join a time of before it.
            time = float(packet.dts * tick)
            end = ends.get(stream, time)
            if not end - _BACK < time + shifts[stream] < end + ahead:
                # That of another stream, if it fits, keeps them in step.
                fitting = [x for x in shifts.values() if abs(time + x - end) < _BACK]
                shifts[stream] = fitting[0] if fitting else end - time
            ends[stream] = time + shifts[stream] + float((packet.duration or 0) * tick)
        if shift := round(shifts[stream] / tick):
            packet.pts = None if packet.pts is None else packet.pts + shift
            packet.dts = None if packet.dts is None else packet.dts + shift
        yield packet


def frames(
    container: av.container.InputContainer,
    streams: list[av.stream.Stream],
    skipped: dict[int, int],
    end: float,
) -> Iterator[tuple[av.stream.Stream, list | None]]:
    """Yields decoded frames by stream until `end` (of the file's time); None for a bad packet."""
    finished, skipped = set(), dict(skipped)
    in_order = _Order() if container.format.name in WITHOUT_TIMES else None
    try:
        for packet in _packets(container, streams):
            if skipped.get(packet.stream.index):
                skipped[packet.stream.index] -= 1
                continue
            if packet.dts is not None and packet.dts * packet.time_base > end + 2:
                return  # Frames come at most a second or so after their packets.
            if packet.stream in finished:
                continue
            if in_order and packet.stream.type == "video":
                in_order.start(packet)
            try:
                decoded = packet.decode()
            except av.error.EOFError:
                continue
            except av.error.InvalidDataError:
                decoded = None
            if in_order and packet.stream.type == "video":
                in_order.set_times(decoded or ())
            yield packet.stream, decoded
            time = decoded[-1].time if decoded else None
            if time is not None and time >= end:
                finished.add(packet.stream)
                if len(finished) == len(streams):
                    return
    except av.error.InvalidDataError:  # Of the container.
        yield streams[0], None


class _Order:
    """Times of frames where a file has only their order: the first comes out when it goes in.

    FFmpeg's own times are later, by as many frames as it thinks the decoder waits for.
    """

    def __init__(self):
        self._first: int | None = None
        self._late: int | None = None

    def start(self, packet: av.Packet) -> None:
        self._first = packet.dts if self._first is None else self._first

    def set_times(self, frames: Iterable[av.VideoFrame]) -> None:
        for frame in frames:
            if frame.dts is not None and self._late is None:
                self._late = frame.dts - (self._first or 0)
            frame.pts = None if frame.dts is None else frame.dts - self._late
