import io

import numpy as np
import pytest
import soundfile

from perceiver_jax.data.fields import audio, video
from tests.data.conftest import encode_picture


def shown_frames(clip, position, **settings):
    """Returns the numbers of the frames in a window of the clip whose frame i has level i."""
    window = video.Video(image_size=5, **settings).read(clip, position, None)
    return window[:, 2, 2, 0].tolist()


def test_windows_reach_from_the_first_frame_to_the_last(clock_video):
    assert shown_frames(clock_video, 0.0, num_frames=7) == list(range(7))
    assert shown_frames(clock_video, 0.5, num_frames=7) == list(range(34, 41))
    assert shown_frames(clock_video, 1.0, num_frames=7) == list(range(68, 75))


def test_a_lower_frame_rate_skips_frames(clock_video):
    frames = shown_frames(clock_video, 1.0, num_frames=5, frames_per_second=5)
    assert frames == [50, 55, 60, 65, 70]


def test_a_short_clip_repeats_its_last_frame(clock_video):
    assert shown_frames(clock_video[:3], 0.7, num_frames=5) == [0, 1, 2, 2, 2]


@pytest.mark.parametrize("position", [0.0, 0.217, 0.5, 0.93, 1.0])
def test_picture_and_sound_are_of_the_same_moment(clock_video, clock_audio, position):
    frames = shown_frames(clock_video, position, num_frames=7)
    sound = audio.Audio(num_samples=7 * 1_920).read(clock_audio, position, None)
    assert abs(frames[0] / 25 - sound[0] * 3) <= 0.5 / 25 + 1e-4  # Half a frame.
    assert sound[-1] - sound[0] == pytest.approx(7 / 75, abs=1e-3)


def test_only_the_frames_of_the_window_are_decoded(clock_video):
    broken = [b"no picture"] * 68 + clock_video[68:]
    assert shown_frames(broken, 1.0, num_frames=7) == list(range(68, 75))


@pytest.mark.parametrize(
    "settings",
    [{"flip": True}, {"brightness": 0.5}, {"contrast": 0.5}, {"saturation": 0.5}, {}],
)
def test_video_augmentation_treats_all_frames_alike(rng, settings):
    clip = [encode_picture(rng.integers(256, size=(29, 37, 3), dtype=np.uint8))] * 7
    read = video.Video(num_frames=7, image_size=23, crop_area=(0.5, 1), **settings).read
    plain = read(clip, 0.5, None)
    changed = False
    for _ in range(5):
        window = read(clip, 0.5, rng)
        assert (window == window[:1]).all()
        changed |= (window != plain).any()
    assert changed
    np.testing.assert_array_equal(plain, read(clip, 0.5, None))


def test_sound_of_another_rate_is_resampled():
    tone = np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100)
    samples = audio.Audio(num_samples=4_801).read(encode(tone, 44_100), 0.0, None)
    expected = np.sin(2 * np.pi * 440 * np.arange(4_801) / 48_000)
    np.testing.assert_allclose(samples[100:-100], expected[100:-100], atol=1e-3)


def test_channels_are_averaged():
    stereo = np.stack([np.full(997, 0.5), np.full(997, -0.25)], axis=1)
    samples = audio.Audio(num_samples=97).read(encode(stereo, 48_000), 0.3, None)
    np.testing.assert_allclose(samples, 0.125, atol=1e-3)


def test_silence_follows_a_short_clip_and_stands_for_no_sound():
    settings = audio.Audio(num_samples=101)
    samples = settings.read(encode(np.full(53, 0.5), 48_000), 0.8, None)
    np.testing.assert_allclose(samples, [0.5] * 53 + [0] * 48, atol=1e-3)
    np.testing.assert_array_equal(settings.read(b"", 0.8, None), 0)


def test_mel_of_the_papers_window_has_4800_values(clock_audio):
    settings = audio.Mel(num_samples=61_440)
    assert settings.zeros().shape == (60, 80)
    mel = settings.read(clock_audio, 0.5, None)
    assert (mel.shape, mel.dtype) == ((60, 80), np.float32)


@pytest.mark.parametrize("frequency", [500, 2_000, 8_000])
def test_a_tone_shows_in_the_bin_of_its_pitch(frequency):
    tone = np.sin(2 * np.pi * frequency * np.arange(8_192) / 48_000).astype(np.float32)
    mel = audio.log_mel(tone, 48_000, 80, 1_024, 2_048)

    def in_mel(f):
        return 2_595 * np.log10(1 + f / 700)

    expected = in_mel(frequency) / in_mel(24_000) * 81 - 1
    assert np.abs(mel[1:-1].argmax(axis=1) - expected).max() <= 1


def test_log_mel_is_its_definition(rng):
    samples = rng.normal(size=31 * 7).astype(np.float32)
    mel = audio.log_mel(samples, 1_000, 11, 31, 53)
    padded = np.concatenate([np.zeros(11), samples, np.zeros(11)])
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(53) / 53)
    filters = audio.mel_filters(1_000, 11, 53).toarray()
    for i in range(7):
        spectrum = np.fft.rfft(padded[31 * i : 31 * i + 53] * hann)
        expected = (np.log(filters @ np.abs(spectrum) ** 2 + 1e-4) + 0.4) / 5.6
        np.testing.assert_allclose(mel[i], expected, rtol=1e-4, atol=1e-4)


def test_spec_augment_masks_runs_of_frames_and_bins_in_training_only(clock_audio, rng):
    masks = {
        "time_masks": 1,
        "time_mask_width": 13,
        "frequency_masks": 1,
        "frequency_mask_width": 17,
    }
    settings = audio.Mel(num_samples=61_440, **masks)
    plain = settings.read(clock_audio, 0.5, None)
    assert (plain != 0).all()
    widths = []
    for _ in range(40):
        masked = settings.read(clock_audio, 0.5, rng) == 0
        frames, bins = masked.all(axis=1), masked.all(axis=0)
        np.testing.assert_array_equal(masked, frames[:, None] | bins)
        for run in (frames, bins):
            assert np.abs(np.diff(run.astype(int))).sum() <= 2  # One run.
        widths.append((frames.sum(), bins.sum()))
    assert np.max(widths, axis=0).tolist() == [13, 17]


def test_frames_that_do_not_tile_the_window_are_an_error():
    with pytest.raises(ValueError, match="num_samples is 1000, hop 1024"):
        audio.Mel(num_samples=1_000)


def encode(sound, rate):
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, rate, format="FLAC")
    return buffer.getvalue()
