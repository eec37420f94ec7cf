import av
import numpy as np
import pytest

from perceiver_jax import config
from perceiver_jax.data import written


def clip(frames=7, height=34, width=46, samples=13_440):
    rows = np.linspace(40, 200, height)[None, :, None, None]
    levels = rows + 5 * np.arange(frames)[:, None, None, None]
    tone = 0.5 * np.sin(2 * np.pi * 1_000 / 48_000 * np.arange(samples))
    return np.broadcast_to(levels, (frames, height, width, 3)).astype(np.uint8), tone


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_what_is_written_is_read_again(tmp_path, suffix):
    video, audio = clip()
    written.write_clip(tmp_path / f"clip{suffix}", video, audio)
    with av.open(tmp_path / f"clip{suffix}") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 25
    np.testing.assert_allclose(np.stack(frames).astype(int), video, atol=6)
    with av.open(tmp_path / f"clip{suffix}") as container:
        sound = np.concatenate([x.to_ndarray()[0] for x in container.decode(audio=0)])
    assert 13_440 <= len(sound) < 13_440 + 3_000
    assert np.sqrt(np.mean(sound[2_000:12_000] ** 2)) == pytest.approx(0.5**0.5 / 2, rel=0.05)


def test_silent_films_of_odd_sizes_are_written(tmp_path):
    written.write_clip(tmp_path / "clip.mp4", clip(height=33, width=45)[0])
    with av.open(tmp_path / "clip.mp4") as container:
        (stream,) = container.streams
        assert (stream.height, stream.width) == (34, 46)


@pytest.mark.parametrize(
    ("video", "audio", "message"),
    [
        (np.zeros((7, 34, 46, 3)), None, r"video is float64 \[7, 34, 46, 3\]; expected uint8"),
        (clip()[0], np.zeros(480, int), r"audio is int64 \[480\]; expected floats"),
    ],
)
def test_other_arrays_are_refused(tmp_path, video, audio, message):
    with pytest.raises(config.UserError, match=message):
        written.write_clip(tmp_path / "clip.mp4", video, audio)


@pytest.mark.parametrize("name", ["clip.nothing", "nowhere/clip.mp4", "clip.mp4/"])
def test_names_that_can_not_be_written_are_refused_in_one_line(tmp_path, name):
    with pytest.raises(config.UserError, match="Can't write .*\\.mp4, .mkv") as caught:
        written.write_clip(f"{tmp_path}/{name}", clip()[0])
    assert "\n" not in str(caught.value)
