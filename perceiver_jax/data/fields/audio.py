"""Audio: an encoded file -> raw float32 [samples] or a log-mel spectrogram float32 [T, bins]."""

import dataclasses
import functools
import io
import math
from typing import ClassVar

from jaxtyping import Float32
import numpy as np
import scipy.fft
import scipy.sparse
import soundfile
import soxr

from perceiver_jax import config

LOG_OFFSET = 1e-4
LOG_MEAN, LOG_STD = -0.4, 5.6  # Of log-mel values of atari_clips.


@dataclasses.dataclass(frozen=True)
class Audio:
    """A window of a clip's audio, mono, in [-1, 1]; only the window is decoded.

    Paper: section 4.2: 61,440 samples at 48 kHz (1.28 s), and no augmentation but the choice of
    the window, which is the same as the video's.

    Attributes:
        num_samples: length of the window.
        sample_rate: in Hz; audio stored at another rate is resampled.
    """

    num_samples: int
    sample_rate: int = 48_000

    feature: ClassVar[str] = "audio"
    has_windows: ClassVar[bool] = True
    is_target: ClassVar[bool] = False

    def __post_init__(self):
        """Checks the numbers."""
        config.check(vars(self), num_samples=config.AT_LEAST_ONE, sample_rate=config.AT_LEAST_ONE)

    def zeros(self) -> Float32[np.ndarray, " samples"]:
        """Returns zeros of the output's shape and type."""
        return np.zeros(self.num_samples, np.float32)

    def read(
        self, value: bytes, window: float, rng: np.random.Generator | None
    ) -> Float32[np.ndarray, " samples"]:
        """Decodes a window.

        Args:
            value: an encoded audio file; an empty one, of a clip without audio, is silence. A clip
                that is too short is followed by silence.
            window: its place in the clip: 0 is the earliest, 1 the latest.
            rng: not used, raw audio is not augmented.
        """
        del rng
        samples = self.zeros()
        if value:
            decoded = self._read_window(value, window)[: self.num_samples]
            samples[: len(decoded)] = decoded
        return samples

    def _read_window(self, value: bytes, window: float) -> np.ndarray:
        with soundfile.SoundFile(io.BytesIO(value)) as file:
            length = math.ceil(self.num_samples * file.samplerate / self.sample_rate)
            file.seek(round(window * max(0, file.frames - length)))
            decoded = file.read(length, dtype="float32", always_2d=True).mean(axis=1)
            return soxr.resample(decoded, file.samplerate, self.sample_rate)


@dataclasses.dataclass(frozen=True)
class Mel:
    """The log-mel spectrogram of a window, with SpecAugment (Park et al. 2019) in training.

    Paper: section 4.2, which gives 4,800 inputs for 61,440 samples but not the settings; 60 frames
    (a hop of 1,024) of 80 bins fit. Values are standardised by fixed numbers, masked ones are 0.

    Attributes:
        num_samples: length of the window, a multiple of `hop`.
        sample_rate: in Hz.
        num_bins: number of mel bins, between 0 Hz and half of the sample rate.
        hop: samples from a frame to the next.
        window: samples of a frame (Hann window).
        time_masks: number of runs of frames that are masked.
        time_mask_width: largest length of such a run.
        frequency_masks: number of runs of bins that are masked.
        frequency_mask_width: largest length of such a run.
    """

    num_samples: int
    sample_rate: int = 48_000
    num_bins: int = 80
    hop: int = 1_024
    window: int = 2_048
    time_masks: int = 0
    time_mask_width: int = 0
    frequency_masks: int = 0
    frequency_mask_width: int = 0

    feature: ClassVar[str] = "audio"
    has_windows: ClassVar[bool] = True
    is_target: ClassVar[bool] = False

    def __post_init__(self):
        """Checks the numbers, and that frames tile the window."""
        masks = ("time_masks", "time_mask_width", "frequency_masks", "frequency_mask_width")
        sizes = ("num_samples", "sample_rate", "num_bins", "hop", "window")
        config.check(vars(self), **dict.fromkeys(masks, config.COUNT))
        config.check(vars(self), **dict.fromkeys(sizes, config.AT_LEAST_ONE))
        if self.num_samples % self.hop or self.window < self.hop or (self.window - self.hop) % 2:
            raise config.UserError(
                f"num_samples is {self.num_samples}, hop {self.hop} and window {self.window}; "
                "expected num_samples to be a multiple of hop, and window to be hop plus an even "
                "number. Change one of them."
            )

    def zeros(self) -> Float32[np.ndarray, "T bins"]:
        """Returns zeros of the output's shape and type."""
        return np.zeros((self.num_samples // self.hop, self.num_bins), np.float32)

    def read(
        self, value: bytes, window: float, rng: np.random.Generator | None
    ) -> Float32[np.ndarray, "T bins"]:
        """Decodes a window; arguments as of `Audio.read`, and `rng` masks in training."""
        samples = Audio(self.num_samples, self.sample_rate).read(value, window, None)
        mel = log_mel(samples, self.sample_rate, self.num_bins, self.hop, self.window)
        if rng is not None:
            _mask(rng, mel, self.time_masks, self.time_mask_width)
            _mask(rng, mel.T, self.frequency_masks, self.frequency_mask_width)
        return mel


def log_mel(
    samples: Float32[np.ndarray, " samples"],
    sample_rate: int,
    num_bins: int,
    hop: int,
    window: int,
) -> Float32[np.ndarray, "T bins"]:
    """Returns the standardised log-mel power spectrogram, a frame for each hop."""
    import scipy.signal  # Here, for it takes a while.

    padding = (window - hop) // 2  # Frames are centred on their hop.
    padded = np.pad(samples, padding)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    hann = scipy.signal.get_window("hann", window).astype(np.float32)
    power = np.abs(scipy.fft.rfft(frames * hann)) ** 2
    mel = (mel_filters(sample_rate, num_bins, window) @ power.T).T
    return (np.log(mel + np.float32(LOG_OFFSET)) - np.float32(LOG_MEAN)) / np.float32(LOG_STD)


@functools.cache
def mel_filters(sample_rate: int, num_bins: int, window: int) -> scipy.sparse.csr_array:
    """Returns triangular filters [bins, frequencies], evenly spaced on HTK's mel scale.

    They are sparse: a BLAS product of threads that compete with the training step is slower.
    """
    import librosa.filters  # Here, for it takes a while.

    filters = librosa.filters.mel(
        sr=sample_rate, n_fft=window, n_mels=num_bins, htk=True, norm=None
    )
    return scipy.sparse.csr_array(filters)


def _mask(rng: np.random.Generator, mel: np.ndarray, num_masks: int, max_width: int) -> None:
    """Zeroes random runs of rows, in place."""
    for _ in range(num_masks):
        width = rng.integers(min(max_width, len(mel)) + 1)
        start = rng.integers(len(mel) - width + 1)
        mel[start : start + width] = 0
