"""Windows of clips by PyAV and librosa, for `benchmark_data_peers`."""

from collections.abc import Callable
import io
import itertools
import pathlib

import numpy as np

from experiments import benchmark_peer_pictures as pictures


def make_pyav(modalities: dict, files: list[pathlib.Path]) -> Callable:
    """PyAV reads an mp4 (H.264, a key frame every 2 s, AAC); Pillow crops, librosa makes mel.

    It seeks to the key frame before the window and decodes from there, and the sound likewise.
    """
    import av
    import librosa
    import PIL.Image
    import PIL.ImageEnhance

    video = modalities["video"]
    sound = modalities["audio"]
    size, num_frames = video["image_size"], video["num_frames"]
    rng = np.random.default_rng(0)

    def read(value):
        with av.open(io.BytesIO(value)) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            duration = container.duration / av.time_base
            length = num_frames / video["frames_per_second"]
            start = rng.uniform(0, max(0, duration - length - 0.1))
            frames = _window_frames(container, start, num_frames)
            samples = _window_samples(container, start, sound["num_samples"])
        clip = _augment_frames(frames)
        if sound["kind"] == "audio":
            return clip, samples
        mel = librosa.feature.melspectrogram(
            y=samples,
            sr=sound["sample_rate"],
            n_fft=sound["window"],
            hop_length=sound["hop"],
            n_mels=sound["num_bins"],
            htk=True,
        )
        mel = np.log(mel + 1e-4)
        for axis, kind in enumerate(("frequency", "time")):
            for _ in range(sound[f"{kind}_masks"]):
                width = rng.integers(sound[f"{kind}_mask_width"] + 1)
                begin = rng.integers(mel.shape[axis] - width + 1)
                mel[(slice(None),) * axis + (slice(begin, begin + width),)] = 0
        return clip, mel

    def _augment_frames(frames):
        box = pictures.random_box(rng, frames[0].size, video)
        bright, contrasted, saturated = (
            rng.uniform(1 - video[name], 1 + video[name])
            for name in ("brightness", "contrast", "saturation")
        )
        mirrored = video["flip"] and rng.integers(2)
        clip = np.empty((num_frames, size, size, 3), np.uint8)
        for i, frame in enumerate(frames):
            frame = frame.resize((size, size), PIL.Image.Resampling.BILINEAR, box)
            if mirrored:
                frame = frame.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
            frame = PIL.ImageEnhance.Brightness(frame).enhance(bright)
            frame = PIL.ImageEnhance.Color(frame).enhance(saturated)
            clip[i] = PIL.ImageEnhance.Contrast(frame).enhance(contrasted)
        return clip

    return pictures.cycle(read, files)


def _window_frames(container, start, num_frames):
    stream = container.streams.video[0]
    container.seek(int(start / stream.time_base), stream=stream)
    later = (frame for frame in container.decode(stream) if frame.time >= start)
    return [frame.to_image() for frame in itertools.islice(later, num_frames)]


def _window_samples(container, start, num_samples):
    stream = container.streams.audio[0]
    container.seek(int(start / stream.time_base), stream=stream)
    chunks, count = [], 0
    for frame in container.decode(stream):
        if frame.time + frame.samples / frame.sample_rate <= start:
            continue
        chunks.append(frame.to_ndarray().mean(axis=0))
        count += len(chunks[-1])
        if count >= num_samples:
            break
    return np.concatenate(chunks)[:num_samples]
