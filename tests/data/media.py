"""Real clips for tests: each frame shows its own number, the sound is a tone from some time on."""

import fractions
import io
import pathlib

import av
import numpy as np
import PIL.Image
import soundfile

WIDTH, HEIGHT = 160, 96
BARS = 8

_CODECS = {
    ".mp4": ("libx264", "aac"),
    ".mkv": ("libx264", "aac"),
    ".webm": ("libvpx", "libopus"),
    ".wav": (None, "pcm_s16le"),
    ".flac": (None, "flac"),
    ".m4a": (None, "aac"),
    ".opus": (None, "libopus"),
    ".mp3": (None, "libmp3lame"),
    ".avi": ("mpeg4", "libmp3lame"),
    ".mpg": ("mpeg1video", "mp2"),
    ".vob": ("mpeg2video", "ac3"),
    ".m2v": ("mpeg1video", None),
    ".ts": ("libx264", "aac"),
    ".m2ts": ("mpeg2video", "mp2"),
    ".flv": ("flv", "libmp3lame"),
    ".wmv": ("wmv2", "wmav2"),
    ".3gp": ("mpeg4", "aac"),
    ".mov": ("mjpeg", "pcm_s16le"),
    ".au": (None, "pcm_s16be"),
    ".aiff": (None, "pcm_s16be"),
    ".aac": (None, "aac"),
    ".wma": (None, "wmav2"),
    ".caf": (None, "pcm_s16be"),
    ".w64": (None, "pcm_s16le"),
    ".wv": (None, "wavpack"),
    ".mka": (None, "aac"),
}
_FORMATS = {".m2v": "mpeg1video", ".m2ts": "mpegts", ".mka": "matroska"}
_OPTIONS = {
    "libx264": {"preset": "ultrafast", "g": "10", "threads": "1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "b": "400k", "threads": "1"},
}
_OLD_OPTIONS = {"g": "10", "b": "800k", "threads": "1"}


def write_clip(
    path: pathlib.Path,
    seconds: float = 2.0,
    fps: int = 25,
    times: list[float] | None = None,  # Of the frames, if not even.
    rate: int = 48_000,
    picture: bool = True,
    sound: bool = True,
    level: float = 0.5,
    tone: float = 1_000,
    onset: float = 0.0,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    muxer_options: dict[str, str] | None = None,
    title: str = "",
    codecs: tuple[str | None, str | None] | None = None,  # Of picture and sound, if not usual.
    video_options: dict[str, str] | None = None,
) -> pathlib.Path:
    """Writes a clip in the format that the suffix says."""
    video_codec, audio_codec = codecs or _CODECS[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    format_ = _FORMATS.get(path.suffix)
    with av.open(str(path), "w", format_, options=muxer_options or {}) as container:
        container.metadata.update({"title": title} if title else {})
        packets = []
        if picture and video_codec:
            options = _OPTIONS.get(video_codec, _OLD_OPTIONS) | (video_options or {})
            video = container.add_stream(video_codec, rate=fps, options=options)
            video.width, video.height = size
            video.pix_fmt = "yuvj420p" if video_codec == "mjpeg" else "yuv420p"
            tick = fractions.Fraction(1, 1_000 if video_codec in _OPTIONS else fps)
            video.codec_context.time_base = tick
        if sound and audio_codec:
            audio = container.add_stream(audio_codec, rate=rate, layout="stereo")
            audio.bit_rate = 128_000
        if picture and video_codec:
            times = times or [i / fps for i in range(round(seconds * fps))]
            for i, time in enumerate(times):
                frame = av.VideoFrame.from_ndarray(numbered(i, size), "rgb24")
                frame.pts, frame.time_base = round(time / tick), tick
                packets += video.encode(frame)
            packets += video.encode()
        if sound and audio_codec:
            time = np.arange(round(seconds * rate)) / rate
            samples = level * np.sin(2 * np.pi * tone * time) * (time >= onset)
            samples = np.stack([samples, samples]).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, "fltp", "stereo")
            frame.sample_rate, frame.pts = rate, 0
            frame.time_base = fractions.Fraction(1, rate)
            packets += audio.encode(frame)
            packets += audio.encode()
        for packet in packets:
            container.mux(packet)
    return path


def numbered(number: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """A picture of a number: white bars where its bits are 1."""
    width, height = size
    bits = number >> np.arange(BARS) & 1
    row = np.repeat(bits, width // BARS) * 255
    return np.broadcast_to(row[None, :, None], (height, width, 3)).astype(np.uint8)


def read_number(picture: bytes) -> int:
    """The number that an encoded picture shows."""
    pixels = np.asarray(PIL.Image.open(io.BytesIO(picture)).convert("L"))
    centres = (np.arange(BARS) + 0.5) * pixels.shape[1] / BARS
    bits = pixels[pixels.shape[0] // 2, centres.astype(int)] > 127
    return int((bits << np.arange(BARS)).sum())


def read_sound(file: bytes) -> np.ndarray:
    """The samples of an encoded sound, which has to be 48 kHz mono."""
    samples, rate = soundfile.read(io.BytesIO(file), always_2d=True)
    assert rate == 48_000 and samples.shape[1] == 1
    return samples[:, 0]
