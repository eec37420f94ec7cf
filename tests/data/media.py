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
}
_OPTIONS = {
    "libx264": {"preset": "ultrafast", "g": "10", "threads": "1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "b": "400k", "threads": "1"},
}


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
) -> pathlib.Path:
    """Writes a clip in the format that the suffix says."""
    video_codec, audio_codec = _CODECS[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=muxer_options or {}) as container:
        container.metadata.update({"title": title} if title else {})
        packets = []
        if picture and video_codec:
            video = container.add_stream(video_codec, rate=fps, options=_OPTIONS[video_codec])
            video.width, video.height = size
            video.pix_fmt = "yuv420p"
            video.codec_context.time_base = fractions.Fraction(1, 1_000)
        if sound:
            audio = container.add_stream(audio_codec, rate=rate, layout="stereo")
        if picture and video_codec:
            times = times or [i / fps for i in range(round(seconds * fps))]
            for i, time in enumerate(times):
                frame = av.VideoFrame.from_ndarray(numbered(i, size), "rgb24")
                frame.pts, frame.time_base = round(time * 1_000), fractions.Fraction(1, 1_000)
                packets += video.encode(frame)
            packets += video.encode()
        if sound:
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
