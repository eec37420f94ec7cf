"""Recordings read part by part."""

import av
import numpy as np
import pytest

from perceiver_jax import config
from perceiver_jax import data as data_lib
from perceiver_jax.data.fields import audio, image, label, video
from tests.data import media

FIELDS = {
    "audio": audio.Audio(2 * 10_240, sample_rate=16_000),  # 1.28 s in two parts of 0.64 s.
    "video": video.Video(32, 24),
    "label": label.Label(3, multi_label=False),
}
PARTS = {"audio": audio.Audio(10_240, sample_rate=16_000), "video": video.Video(16, 24)}
SECONDS = 12.8  # Of 20 parts, of which 15 are decoded at a time.


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    media.write_clip(path, SECONDS)
    return path


def test_parts_of_a_recording_are_its_windows_one_after_the_other(film):
    read = list(data_lib.read_parts(film, FIELDS, 2))
    ends, batches = zip(*read, strict=True)
    np.testing.assert_allclose(ends, 0.64 * np.arange(1, 21), atol=1e-9)
    expected = data_lib.prepare([film], PARTS, num_windows=20)
    got = {name: np.concatenate([batch[name] for batch in batches]) for name in PARTS}
    assert expected["audio"].std() > 0.1 and expected["video"].std() > 10
    np.testing.assert_array_equal(got["video"], expected["video"])
    np.testing.assert_allclose(got["audio"][:15], expected["audio"][:15], atol=1e-4)
    np.testing.assert_allclose(got["audio"][15:], expected["audio"][15:], atol=2e-2)  # AAC.
    assert set(batches[0]) == {"audio", "video"}


def test_a_rest_shorter_than_a_part_is_left_out(film, tmp_path):
    path = tmp_path / "sound.wav"
    media.write_clip(path, 1.8, picture=False)
    read = list(data_lib.read_parts(path, {"audio": FIELDS["audio"]}, 2))
    assert len(read) == 2


def test_silence_is_read_as_any_other_part(tmp_path):
    path = tmp_path / "sound.wav"
    media.write_clip(path, 11.2, picture=False, onset=10.0)  # Its first 9.6 s are silent.
    read = [x["audio"] for _, x in data_lib.read_parts(path, {"audio": FIELDS["audio"]}, 2)]
    assert len(read) == 17
    assert not np.any(read[:15]) and np.std(read[16]) > 0.1


def test_a_film_without_sound_lacks_an_input_unless_it_may(tmp_path):
    path = tmp_path / "film.mp4"
    media.write_clip(path, 1.3, sound=False)
    with pytest.raises(config.UserError, match=r"film.mp4\) without 'audio'; expected all of"):
        list(data_lib.read_parts(path, FIELDS, 2))
    ((_, batch), *_) = data_lib.read_parts(path, FIELDS, 2, may_lack=("audio", "video"))
    assert not batch["audio_mask"][0] and batch["video_mask"][0] and not batch["audio"].any()


@pytest.mark.parametrize(
    "fields, num_parts, message",
    [
        ({"image": image.Image(8)}, 2, "Input 'image' is made of 'image'; expected audio or video"),
        (FIELDS, 3, "Input 'audio' has 20480 samples; expected a multiple of the 3 parts"),
        (FIELDS | {"video": video.Video(16, 24)}, 2, r"last \[0.32, 0.64\] seconds; expected all"),
    ],
)
def test_fields_that_are_not_of_equal_parts_are_an_error(fields, num_parts, message, film):
    with pytest.raises(config.UserError, match=message):
        data_lib.read_parts(film, fields, num_parts)


def test_a_file_that_is_no_recording_is_an_error(tmp_path):
    path = tmp_path / "text.mp4"
    path.write_text("nothing to hear")
    with pytest.raises(config.UserError, match=r"Can't read the recording \(.*text.mp4\)"):
        list(data_lib.read_parts(path, FIELDS, 2))


def test_a_path_is_of_the_directory_that_the_caller_is_in(tmp_path, monkeypatch, film):
    list(data_lib.read_parts(film, FIELDS, 2))  # Starts the process that decodes.
    monkeypatch.chdir(tmp_path)
    media.write_clip(tmp_path / "here.wav", 0.7, picture=False)
    assert len(list(data_lib.read_parts("here.wav", {"audio": FIELDS["audio"]}, 2))) == 1
    assert data_lib.prepare(["here.wav"], {"audio": FIELDS["audio"]})["audio"].any()


@pytest.mark.parametrize("ends_first", ["audio", "video"])
def test_a_track_that_ends_before_the_other_is_filled_up(tmp_path, ends_first):
    path = tmp_path / "film.mkv"
    seconds = {"audio": 11.0, "video": 11.0} | {ends_first: 3.0}
    short = tmp_path / "sound.mkv", tmp_path / "picture.mkv"
    media.write_clip(short[0], seconds["audio"], picture=False, codecs=("libx264", "aac"))
    media.write_clip(short[1], seconds["video"], sound=False)
    _join(path, *short)
    batches = [batch for _, batch in data_lib.read_parts(path, FIELDS, 2)]
    assert len(batches) == 17
    last = batches[-1]
    assert not last["audio"].any() if ends_first == "audio" else last["audio"].std() > 0.1
    is_still = (last["video"][0] == last["video"][0, :1]).all()
    assert is_still == (ends_first == "video") and last["video"].std() > 10


def _join(path, sound, picture):
    """Copies the tracks of two files into one."""
    with av.open(path, "w") as out, av.open(sound) as a, av.open(picture) as v:
        pairs = [(x, x.streams[0], out.add_stream_from_template(x.streams[0])) for x in (v, a)]
        for container, stream, copy in pairs:
            for packet in container.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    out.mux(packet)


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"path": b"film"}, "The path is b'film'; expected that of a video or audio file"),
        ({"num_parts": 0}, "num_parts is 0; expected at least 1"),
        ({"may_lack": ("sound",)}, "Unknown input in may_lack 'sound'"),
    ],
)
def test_a_wrong_argument_is_an_error(film, keys, message):
    with pytest.raises(config.UserError, match=message):
        data_lib.read_parts(**{"path": film, "fields": FIELDS, "num_parts": 2} | keys)
