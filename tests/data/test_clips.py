"""Clips hold, after the build, what their files show and sound like at each time."""

import fractions
import io
import struct

import av
import numpy as np
import PIL.Image
import pytest

from experiments import prepare_data
from perceiver_jax.data.builders import isolated
from perceiver_jax.data.builders.clips import decode
from tests.data import media, mutations


def stored(path, start=0.0, length=10.0, cut=True):
    result = decode.decode(str(path), start, length, cut)
    assert "error" not in result, result
    return result


def refusal(path, **changes):
    return decode.decode(str(path), **{"start": 0.0, "length": 10.0, "cut": True} | changes)[
        "error"
    ]


def numbers(result):
    return [media.read_number(picture) for picture in result["video"]]


def pitch(samples):
    """Of the strongest tone, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return spectrum.argmax() * 48_000 / len(samples)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_frame_k_shows_the_picture_of_time_k_25ths(suffix, tmp_path):
    clip = stored(media.write_clip(tmp_path / f"clip{suffix}", fps=30))
    assert numbers(clip) == [int(k * 30 / 25 + 1e-6) for k in range(50)]
    assert clip["causes"] == {}


@pytest.mark.parametrize(
    ("suffix", "rate"),
    [(".wav", 44_100), (".flac", 22_050), (".m4a", 44_100), (".opus", 48_000), (".mp3", 32_000)],
)
def test_a_tone_of_1_khz_is_at_1_khz_whatever_the_format(suffix, rate, tmp_path):
    clip = stored(media.write_clip(tmp_path / f"clip{suffix}", rate=rate))
    sound = media.read_sound(clip["audio"])
    assert len(sound) == 2 * 48_000
    assert pitch(sound) == pytest.approx(1_000, abs=1)
    assert np.abs(sound[4_800:-4_800]).max() == pytest.approx(0.5, abs=0.05)
    assert (clip["video"], clip["causes"]) == ([], {"no_video": ""})


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_sound_and_picture_are_in_step(suffix, tmp_path):
    path = media.write_clip(tmp_path / f"clip{suffix}", seconds=3, rate=48_000, onset=1.2)
    for clip, begin in [
        (stored(path), 0.0),
        (stored(path, start=0.68, length=1.6, cut=False), 0.68),  # Cut out of the whole.
    ]:
        sound = np.abs(media.read_sound(clip["audio"]))
        assert len(sound) == len(clip["video"]) * 48_000 // 25
        assert np.argmax(sound > 0.2) / 48_000 == pytest.approx(1.2 - begin, abs=0.01)
        assert numbers(clip)[5] == round((begin + 5 / 25) * 25)


def test_of_a_whole_recording_the_segment_is_taken(tmp_path):
    path = media.write_clip(tmp_path / "clip.mp4", seconds=5)
    assert numbers(stored(path, start=2.6, length=1.4, cut=False)) == list(range(65, 100))
    # A name with a start says that the file begins there, and so does a file that is short enough.
    assert numbers(stored(path, start=2.6, length=1.4, cut=True)) == list(range(35))
    assert numbers(stored(path, start=30.0, length=4.6, cut=False)) == list(range(115))


def test_of_a_recording_that_does_not_say_how_long_it_is_the_segment_is_taken(tmp_path):
    path = media.write_clip(tmp_path / "clip.mkv", seconds=5, muxer_options={"live": "1"})
    assert av.open(str(path)).duration is None
    assert numbers(stored(path, start=2.6, length=1.4, cut=False)) == list(range(65, 100))


def test_a_variable_frame_rate_keeps_its_times_and_is_reported(tmp_path):
    times = [0.0, 0.1, 0.12, 0.5, 0.52, 0.9, 1.3, 1.4]
    clip = stored(media.write_clip(tmp_path / "clip.mkv", seconds=1.5, times=times))
    shown = [sum(time <= k / 25 + 1e-3 for time in times) - 1 for k in range(len(clip["video"]))]
    assert numbers(clip) == shown
    assert list(clip["causes"]) == ["variable_frame_rate"]


def test_an_even_frame_rate_is_not_called_variable(tmp_path):
    for fps in (24, 30):
        path = media.write_clip(tmp_path / f"{fps}.mkv", seconds=1.3, fps=fps)
        assert "variable_frame_rate" not in stored(path)["causes"]


def test_an_unusual_sample_rate_is_used_and_reported(tmp_path):
    clip = stored(media.write_clip(tmp_path / "clip.wav", rate=37_123))
    assert clip["causes"]["unusual_sample_rate"] == "37123 Hz"
    assert pitch(media.read_sound(clip["audio"])) == pytest.approx(1_000, abs=1)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((160, 96), (427, 256)), ((640, 480), (341, 256)), ((288, 512), (256, 455))],
)
def test_the_short_side_has_256_pixels_and_the_aspect_is_kept(size, expected, tmp_path):
    clip = stored(media.write_clip(tmp_path / "clip.mp4", seconds=0.2, size=size, sound=False))
    assert PIL.Image.open(io.BytesIO(clip["video"][0])).size == expected


def turn(path, matrix):
    """Changes how a player turns the picture."""
    contents = bytearray(path.read_bytes())
    identity = struct.pack(">6i", 1 << 16, 0, 0, 0, 1 << 16, 0)
    at = contents.index(identity, contents.index(b"tkhd"))
    a, b, c, d = (x << 16 for x in matrix)
    struct.pack_into(">6i", contents, at, a, b, 0, c, d, 0)
    path.write_bytes(contents)


@pytest.mark.parametrize(
    ("matrix", "corner"),  # Where the upper left one of what is stored is shown.
    [
        ((1, 0, 0, 1), "upper left"),
        ((-1, 0, 0, -1), "lower right"),
        ((-1, 0, 0, 1), "upper right"),
        ((1, 0, 0, -1), "lower left"),
        ((0, 1, -1, 0), "upper right"),  # As phones write it: to be turned clockwise.
        ((0, -1, 1, 0), "lower left"),
        ((0, 1, 1, 0), "upper left"),
        ((0, -1, -1, 0), "lower right"),
    ],
)
def test_a_turned_or_mirrored_video_is_shown_upright(matrix, corner, tmp_path, monkeypatch):
    picture = np.zeros((96, 160, 3), np.uint8)
    picture[:48, :80] = 255
    monkeypatch.setattr(media, "numbered", lambda number, size: picture)
    path = media.write_clip(tmp_path / "clip.mp4", seconds=0.2, sound=False)
    turn(path, matrix)
    shown = PIL.Image.open(io.BytesIO(stored(path)["video"][1]))
    assert shown.size == ((427, 256) if matrix[0] else (256, 427))
    white = np.asarray(shown.resize((2, 2), PIL.Image.Resampling.BOX).convert("L")) > 200
    assert white.sum() == 1
    rows, columns = ["upper", "lower"], ["left", "right"]
    y, x = np.argwhere(white)[0]
    assert f"{rows[y]} {columns[x]}" == corner


def test_a_cover_picture_is_no_video(tmp_path):
    picture = io.BytesIO()
    PIL.Image.new("RGB", (64, 64)).save(picture, "png")
    path = media.write_clip(tmp_path / "clip.mp3", seconds=1.5)
    tag = b"\0image/png\0\3\0" + picture.getvalue()
    frame = b"APIC" + len(tag).to_bytes(4, "big") + b"\0\0" + tag
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    sound = path.read_bytes()
    path.write_bytes(b"ID3\3\0\0" + size + frame + sound[sound.index(b"\xff\xfb") :])
    assert stored(path)["video"] == []


@pytest.mark.parametrize("suffix", [".mp3", ".mkv", ".wav"])
def test_tags_that_are_not_utf_8_do_not_matter(suffix, tmp_path):
    path = media.write_clip(tmp_path / f"clip{suffix}", seconds=1.5, title="K\N{DEGREE SIGN}ln am")
    contents = path.read_bytes()
    assert "\N{DEGREE SIGN}l".encode() in contents
    path.write_bytes(contents.replace("\N{DEGREE SIGN}l".encode(), b"\xf6ll"))  # Of Windows.
    assert len(media.read_sound(stored(path)["audio"])) == pytest.approx(1.5 * 48_000, abs=2_000)


def test_a_clip_without_sound_has_its_picture(tmp_path):
    clip = stored(media.write_clip(tmp_path / "clip.mp4", sound=False))
    assert clip["causes"] == {"no_audio": ""}
    assert (len(clip["video"]), clip["audio"]) == (50, b"")


def test_a_film_without_sound_is_no_sound_and_the_cause_says_so(tmp_path):
    path = media.write_clip(tmp_path / "clip.mp4", sound=False)
    assert refusal(path, with_video=False) == ("undecodable", "holds no audio that FFmpeg knows")


def test_silence_is_as_no_sound_and_alone_is_refused(tmp_path):
    clip = stored(media.write_clip(tmp_path / "clip.mp4", level=0))
    assert list(clip["causes"]) == ["silent"]
    assert (len(clip["video"]), clip["audio"]) == (50, b"")
    assert refusal(media.write_clip(tmp_path / "clip.wav", level=3e-5))[0] == "silent"
    assert "silent" not in stored(media.write_clip(tmp_path / "quiet.wav", level=1e-3))["causes"]


def test_a_clip_shorter_than_a_window_is_reported(tmp_path):
    clip = stored(media.write_clip(tmp_path / "clip.flac", seconds=0.7))
    assert clip["causes"]["short"] == "0.70 s"
    assert len(media.read_sound(clip["audio"])) == round(0.72 * 48_000)  # Whole 25ths.


def test_picture_and_sound_of_unequal_length_are_filled_up(tmp_path):
    path = media.write_clip(tmp_path / "clip.mp4", times=[k / 25 for k in range(40)])
    clip = stored(path)
    assert numbers(clip) == [*range(40), *[39] * 10]
    assert len(media.read_sound(clip["audio"])) == 96_000


@pytest.mark.parametrize(
    ("suffix", "kept", "cause"),
    [
        (".mp4", 0.6, "undecodable"),  # Its index is at the end.
        (".mkv", 0.5, "truncated"),
        (".webm", 0.5, "truncated"),
        (".flac", 0.5, "truncated"),
        (".wav", 0.5, "truncated"),
        (".m4a", 0.5, "undecodable"),
        (".wav", 0.0, "undecodable"),
    ],
)
def test_a_file_that_breaks_off_is_refused(suffix, kept, cause, tmp_path):
    path = media.write_clip(tmp_path / f"clip{suffix}", seconds=4)
    contents = path.read_bytes()
    path.write_bytes(contents[: int(kept * len(contents))])
    assert refusal(path)[0] == cause


def test_an_mp4_that_breaks_off_after_its_index_is_refused(tmp_path):
    path = media.write_clip(
        tmp_path / "clip.mp4", seconds=4, muxer_options={"movflags": "faststart"}
    )
    contents = path.read_bytes()
    path.write_bytes(contents[: int(0.6 * len(contents))])
    assert refusal(path)[0] == "truncated"


def test_a_playlist_is_not_followed(tmp_path):
    media.write_clip(tmp_path / "other.wav")
    (tmp_path / "clip.mp4").write_text("ffconcat version 1.0\nfile 'other.wav'\n")
    assert refusal(tmp_path / "clip.mp4")[0] == "undecodable"


def test_pictures_of_impossible_size_are_refused_before_they_are_decoded(tmp_path):
    path = media.write_clip(tmp_path / "wide.mp4", seconds=0.2, size=(1_600, 96), sound=False)
    assert refusal(path) == ("refused", "frames of 1600 x 96 pixels")


@pytest.mark.parametrize(("size", "kept"), [((600, 500), True), ((7_000, 6_000), False)])
def test_pictures_of_too_many_pixels_are_refused(size, kept, tmp_path):
    picture = io.BytesIO()
    PIL.Image.new("L", size).save(picture, "png")
    with av.open(str(tmp_path / "clip.mov"), "w") as container:
        stream = container.add_stream("png", rate=5)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "gray"
        for i in range(2):
            packet = av.Packet(picture.getvalue())
            packet.stream, packet.time_base = stream, fractions.Fraction(1, 5)
            packet.pts = packet.dts = i
            container.mux(packet)
    result = decode.decode(str(tmp_path / "clip.mov"), 0.0, 10.0, True)
    assert ("video" in result) == kept


@pytest.mark.parametrize(
    ("at", "claim"),
    [
        (22, (65_000).to_bytes(2, "little")),  # Channels.
        (24, (2_000_000_000).to_bytes(4, "little")),  # Hz.
        (40, (0xF0000000).to_bytes(4, "little")),  # Bytes of sound.
    ],
)
def test_sound_that_claims_the_impossible_is_refused(at, claim, tmp_path):
    path = media.write_clip(tmp_path / "clip.wav")
    contents = bytearray(path.read_bytes())
    contents[at : at + len(claim)] = claim
    path.write_bytes(contents)
    assert refusal(path)[0] in ("refused", "truncated", "undecodable")


@pytest.mark.parametrize("suffix", [".wav", ".mp4"])
def test_a_damaged_file_is_refused_or_kept_and_never_ends_or_hangs_the_decoder(suffix, tmp_path):
    clip = media.write_clip(tmp_path / f"clip{suffix}", seconds=0.4, fps=5, rate=8_000)
    paths = []
    for i, contents in enumerate(mutations.mutate(clip.read_bytes(), 100, seed=0)):
        paths.append(tmp_path / f"{i}{suffix}")
        paths[-1].write_bytes(contents)
    outcomes = set()
    for result in decode.decode_all(map(request, paths), 1, time_limit=60.0):
        outcomes.add(result["error"][0] if "error" in result else "kept")
        assert result.keys() in ({"error"}, {"video", "audio", "seconds", "causes"})
    refused = {"refused", "silent", "truncated", "undecodable"}
    assert {"kept", "undecodable"} <= outcomes <= {"kept", *refused}


def request(path):
    return {"path": str(path), "start": 0.0, "length": 10.0, "cut": True}


def test_a_clip_that_hangs_the_decoder_is_refused(tmp_path):
    path = media.write_clip(tmp_path / "clip.wav")
    (clip,) = decode.decode_all([request(path)], 1, time_limit=0.001)
    assert clip["error"] == ("took too long", "not done within 0.001 s")


def test_many_clips_come_back_in_their_order(tmp_path):
    paths = [
        media.write_clip(tmp_path / f"{i}.wav", seconds=1 + i / 5, tone=1_000 + 100 * i)
        for i in range(7)
    ]
    for i, clip in enumerate(decode.decode_all(map(request, paths), 2)):
        assert pitch(media.read_sound(clip["audio"])) == pytest.approx(1_000 + 100 * i, abs=1)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("import av; av.open = lambda file, **kwargs: av.open_(file)", "AttributeError: module"),
        ("import av; av.open = lambda file: None", "TypeError: .* unexpected keyword"),
        (
            "import sys; sys.modules['av'] = None",
            "does not start, exit status 1:.*ModuleNotFound",
        ),
        ("import os; os._exit(3)", "decode.answer does not start, exit status 3"),
    ],
)
def test_a_broken_installation_ends_the_build_and_is_not_blamed_on_the_clips(
    broken, told, tmp_path, monkeypatch
):
    for name in ("train/a/0", "train/b/0", "test/a/1", "test/b/1"):
        media.write_clip(tmp_path / f"sounds/{name}.wav", seconds=0.1)
    (tmp_path / "python").mkdir()
    (tmp_path / "python/sitecustomize.py").write_text(broken)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "python"))
    command = ["sound_folder", f"--source={tmp_path / 'sounds'}", f"--data_dir={tmp_path}"]
    with pytest.raises(isolated.BrokenError, match=f"(?s){told}"):
        prepare_data.main(command)
