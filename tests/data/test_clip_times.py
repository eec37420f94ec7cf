"""Clips whose own clock begins late, goes round, or begins anew are shown from begin to end."""

import numpy as np
import pytest

from tests.data import media
from tests.data.test_clips import numbers, refusal, stored


def onsets(clip):
    """When the tone begins, each time, in seconds."""
    loud = np.abs(media.read_sound(clip["audio"])).reshape(-1, 480).max(axis=1) > 0.2
    return list((np.flatnonzero(np.diff(loud.astype(int)) == 1) + 1) / 100)


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".wmv", ".flv", ".mov", ".ts", ".mpg"])
@pytest.mark.parametrize("begin", [7, 100])
def test_a_clip_whose_clock_begins_late_is_whole(suffix, begin, tmp_path):
    path = media.write_clip(
        tmp_path / f"clip{suffix}", onset=1, muxer_options={"output_ts_offset": str(begin)}
    )
    clip = stored(path)
    assert set(numbers(clip)) >= set(range(49))
    assert len(clip["video"]) == pytest.approx(50, abs=2)
    assert onsets(clip) == pytest.approx([1], abs=0.1)
    cut = stored(path, start=0.8, length=0.8, cut=False)
    assert onsets(cut) == pytest.approx([0.2], abs=0.1)
    assert len(cut["video"]) == 20


def test_sound_whose_clock_begins_late_is_whole_and_what_breaks_off_is_refused(tmp_path):
    for suffix in (".opus", ".mkv"):
        path = media.write_clip(
            tmp_path / f"clip{suffix}",
            onset=1,
            picture=False,
            muxer_options={"output_ts_offset": "100"},
        )
        assert onsets(stored(path)) == pytest.approx([1], abs=0.1)
    contents = path.read_bytes()
    path.write_bytes(contents[: len(contents) // 2])
    assert refusal(path)[0] == "truncated"


@pytest.mark.parametrize("suffix", [".ts", ".mpg"])
def test_a_clock_that_goes_round_loses_nothing(suffix, tmp_path):
    round_ = str(2**33 / 90_000 - 1.6)
    path = tmp_path / f"clip{suffix}"
    media.write_clip(path, onset=1, muxer_options={"output_ts_offset": round_})
    assert len(set(range(49)) - set(numbers(stored(path)))) <= 1  # At the turn.
    assert onsets(stored(path)) == pytest.approx([1], abs=0.1)


@pytest.mark.parametrize("suffix", [".ts", ".mpg", ".vob", ".mkv", ".opus"])
def test_where_clips_were_joined_the_clock_goes_on(suffix, tmp_path):
    path = media.write_clip(tmp_path / f"clip{suffix}", onset=1)
    path.write_bytes(2 * path.read_bytes())
    clip = stored(path)
    assert onsets(clip) == pytest.approx([1, 3], abs=0.1)
    if clip["video"]:
        assert len(clip["video"]) == pytest.approx(100, abs=2)
        assert numbers(clip)[70] == pytest.approx(20, abs=2)
        cut = stored(path, start=1.6, length=0.8, cut=False)
        assert numbers(cut)[::19] == pytest.approx([40, 9], abs=2)


@pytest.mark.parametrize("suffix", [".ts", ".mpg"])
def test_a_join_with_a_later_part_of_a_broadcast_is_no_gap(suffix, tmp_path):
    first = media.write_clip(tmp_path / f"clip{suffix}", onset=1)
    later = {"output_ts_offset": "5000"}
    second = media.write_clip(tmp_path / f"later{suffix}", onset=1, muxer_options=later)
    first.write_bytes(first.read_bytes() + second.read_bytes())
    clip = stored(first)
    assert len(clip["video"]) == pytest.approx(100, abs=2)
    assert numbers(clip)[70] == pytest.approx(20, abs=2)
    assert onsets(clip) == pytest.approx([1, 3], abs=0.1)


def test_a_gap_in_a_film_is_kept(tmp_path):
    times = [i / 25 for i in range(25)] + [12 + i / 25 for i in range(25)]
    clip = stored(media.write_clip(tmp_path / "clip.mkv", times=times, sound=False), length=60.0)
    assert len(clip["video"]) == pytest.approx(13 * 25, abs=1)
    assert numbers(clip)[200] == 24
