"""Formats that public data sets come in: pictures, sound, times and lengths come out right."""

import struct

import av
import numpy as np
import pytest
import soundfile

from perceiver_jax.data.builders.clips import builder, containers
from tests.data import media
from tests.data.test_clips import numbers, pitch, refusal, stored

_XVID = {"video_options": {"bf": "2"}}
VIDEOS = [
    (".avi", {}),
    (".avi", _XVID),  # AVI has the order of pictures alone, and here they are not in order.
    (".avi", {"codecs": ("libx264", None)}),
    (".avi", {"codecs": ("mjpeg", None)}),
    (".avi", {"codecs": ("msmpeg4v3", None)}),
    (".mpg", {}),
    (".vob", {}),
    (".m2v", {}),
    (".ts", {"muxer_options": {"output_ts_offset": "3600"}}),
    (".ts", {"codecs": ("mpeg2video", None)}),
    (".m2ts", {"muxer_options": {"mpegts_m2ts_mode": "1"}}),
    (".flv", {}),
    (".wmv", {}),
    (".3gp", {}),
    (".mov", {}),
]
SOUNDS = [
    (".au", {}),
    (".au", {"codecs": (None, "pcm_mulaw")}),
    (".aiff", {}),
    (".aiff", {"codecs": (None, "pcm_s24be")}),
    (".aac", {}),
    (".mp3", {"muxer_options": {"write_xing": "0"}}),
    (".wma", {}),
    (".caf", {}),
    (".caf", {"codecs": (None, "alac")}),
    (".w64", {}),
    (".wav", {"muxer_options": {"rf64": "always"}}),
    (".wav", {"codecs": (None, "pcm_f64le")}),
    (".wav", {"codecs": (None, "adpcm_ms")}),
    (".wv", {}),
    (".mka", {}),
]
# 20 ms of 1 kHz, after as much.
_AMR = bytes.fromhex("3cac5608f04d296e604b800a3b2bb477d78ff2f9946de9637f2f382013999200")


def ids(formats):
    return [f"{suffix[1:]}-{i}" for i, (suffix, _) in enumerate(formats)]


@pytest.mark.parametrize(("suffix", "options"), VIDEOS, ids=ids(VIDEOS))
def test_each_picture_shows_at_its_time_and_where_a_recording_is_cut(suffix, options, tmp_path):
    path = media.write_clip(tmp_path / f"clip{suffix}", seconds=3, sound=False, **options)
    clip = stored(path)
    assert (numbers(clip), clip["causes"]) == (list(range(75)), {"no_audio": ""})
    assert numbers(stored(path, start=1.64, length=0.8, cut=False)) == list(range(41, 61))


@pytest.mark.parametrize(("suffix", "options"), SOUNDS, ids=ids(SOUNDS))
def test_sound_is_as_long_and_high_and_loud_as_it_was(suffix, options, tmp_path):
    path = media.write_clip(tmp_path / f"clip{suffix}", seconds=3, onset=1.7, **options)
    clip = stored(path)
    sound = media.read_sound(clip["audio"])
    assert clip["causes"] == {"no_video": ""}
    assert len(sound) == pytest.approx(3 * 48_000, abs=0.05 * 48_000)  # Codecs fill a block.
    tone = sound[-48_000:-4_800]
    assert pitch(tone) == pytest.approx(1_000, abs=2)
    assert np.abs(tone).max() == pytest.approx(0.5, abs=0.05)
    begin = np.argmax(np.abs(sound) > 0.2)
    assert begin / 48_000 == pytest.approx(1.7, abs=0.05)
    cut = media.read_sound(stored(path, start=1.2, length=1.4, cut=False)["audio"])
    assert (np.argmax(np.abs(cut) > 0.2) - begin) / 48_000 == pytest.approx(-1.2, abs=1e-3)


@pytest.mark.parametrize("suffix", [".avi", ".mpg", ".vob", ".ts", ".flv", ".wmv", ".mov"])
def test_sound_and_picture_stay_in_step(suffix, tmp_path):
    path = media.write_clip(tmp_path / f"clip{suffix}", seconds=4, rate=48_000, onset=2.2)
    for begin, options in [(0.0, {}), (1.6, {"start": 1.6, "length": 1.6, "cut": False})]:
        clip = stored(path, **options)
        heard = np.argmax(np.abs(media.read_sound(clip["audio"])) > 0.2) / 48_000
        assert heard == pytest.approx(2.2 - begin, abs=0.05)
        late = begin + 20 / 25 - numbers(clip)[20] / 25  # Codecs put silence ahead of sound.
        assert heard - (2.2 - begin) == pytest.approx(late, abs=0.045)


def test_amr_of_telephones_is_read(tmp_path):
    (tmp_path / "clip.amr").write_bytes(b"#!AMR\n" + 150 * _AMR)
    sound = media.read_sound(stored(tmp_path / "clip.amr")["audio"])
    assert len(sound) == 3 * 48_000
    assert pitch(sound[4_800:]) == pytest.approx(1_000, abs=3)
    assert len(stored(tmp_path / "clip.amr", start=1.0, length=0.5, cut=False)["audio"])


def test_sphere_of_speech_corpora_is_read(tmp_path):
    time = np.arange(2 * 16_000) / 16_000
    samples = np.round(2**14 * np.sin(2 * np.pi * 1_000 * time)).astype("<i2")
    fields = [
        "sample_count -i 32000",
        "sample_n_bytes -i 2",
        "channel_count -i 1",
        "sample_byte_format -s2 01",
        "sample_rate -i 16000",
        "sample_coding -s3 pcm",
        "end_head",
    ]
    head = "\n".join(["NIST_1A", "   1024", *fields, ""]).encode().ljust(1_024)
    (tmp_path / "clip.wav").write_bytes(head + samples.tobytes())
    sound = media.read_sound(stored(tmp_path / "clip.wav")["audio"])
    assert (len(sound), round(pitch(sound))) == (2 * 48_000, 1_000)


@pytest.mark.parametrize(("suffix", "other"), [(".avi", ".mp4"), (".au", ".wav"), (".mpg", ".avi")])
def test_the_contents_and_not_the_suffix_tell_the_format(suffix, other, tmp_path):
    path = media.write_clip(tmp_path / f"clip{suffix}")
    expected = stored(path)
    assert stored(path.rename(tmp_path / f"clip{other}")) == expected


def test_regular_sound_is_not_taken_for_packets_of_television(tmp_path):
    time = np.arange(3 * 48_000) / 48_000  # A tone repeats each 384 bytes, as packets of 192 may.
    samples = 0.5 * np.sin(2 * np.pi * 1_000 * time)
    head = struct.pack("<HHIIHH", 3, 1, 48_000, 8 * 48_000, 8, 64)
    head = b"WAVEfmt " + struct.pack("<I", len(head)) + head
    data = b"data" + struct.pack("<I", 8 * len(time)) + samples.tobytes()
    (tmp_path / "clip.wav").write_bytes(b"RIFF" + struct.pack("<I", len(head + data)) + head + data)
    sound = media.read_sound(stored(tmp_path / "clip.wav")["audio"])
    np.testing.assert_allclose(sound, samples, atol=1e-4)


def test_suffixes_of_public_data_sets_are_taken():
    named = ".avi .mpg .mpeg .flv .au .snd .aiff .aif .aifc .aac .wma .wmv .asf .ts .m2ts .mts .caf"
    more = ".amr .3gp .vob .m4v .ogv .oga .opus .spx .w64 .rf64 .sph"
    assert {*named.split(), *more.split()} <= builder.SUFFIXES
    assert builder.may_have_video("film.AVI") and not builder.may_have_video("sound.au")


@pytest.fixture(scope="module")
def long_mp3(tmp_path_factory):
    """30 s of a variable bit rate that does not say its length: quiet, then noise from 20 s on."""
    path = tmp_path_factory.mktemp("mp3") / "clip.mp3"
    with av.open(str(path), "w", options={"write_xing": "0", "id3v2_version": "0"}) as container:
        options = {"flags": "+qscale", "global_quality": "590"}
        stream = container.add_stream("libmp3lame", rate=44_100, layout="mono", options=options)
        samples = 0.002 * np.sin(2 * np.pi * 300 / 44_100 * np.arange(30 * 44_100))
        samples[20 * 44_100 :] = np.random.default_rng(0).uniform(-0.7, 0.7, 10 * 44_100)
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), "fltp", "mono")
        frame.sample_rate = 44_100
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    with av.open(str(path)) as container:
        assert container.duration / av.time_base > 31  # What FFmpeg believes.
    return path.read_bytes()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b"", bytes(20_000)),
        (bytes(20_000), b""),
        (b"ID3\3\0\0\1\0\0\0" + bytes(1 << 21), b"TAG" + bytes(125)),  # A tag of 2 MiB.
    ],
    ids=["plain", "junk behind", "junk ahead", "tags"],
)
def test_of_sound_whose_length_ffmpeg_guesses_all_is_kept(before, after, long_mp3, tmp_path):
    path = tmp_path / "clip.mp3"
    path.write_bytes(before + long_mp3 + after)
    clip = stored(path, length=60.0)
    sound = np.abs(media.read_sound(clip["audio"]))
    assert len(sound) / 48_000 == pytest.approx(30, abs=0.1)
    assert np.argmax(sound > 0.1) / 48_000 == pytest.approx(20, abs=0.1)
    assert "long" not in clip["causes"]
    cut = stored(path, start=19.0, length=2.0, cut=False)
    assert np.argmax(np.abs(media.read_sound(cut["audio"])) > 0.1) == pytest.approx(
        48_000, abs=0.1 * 48_000
    )


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".wav", {"codecs": (None, "pcm_f32le")}),
        (".wav", {"codecs": (None, "pcm_s24le")}),
        (".wav", {"codecs": (None, "pcm_mulaw")}),
        (".wav", {"muxer_options": {"rf64": "always"}}),
        (".w64", {}),
        (".caf", {}),
        (".aiff", {}),
        (".au", {}),
        (".mp3", {}),  # Its header says the length.
        (".avi", {"codecs": ("mjpeg", "pcm_s16le")}),
        (".flv", {}),
    ],
)
def test_a_file_that_breaks_off_is_refused(suffix, options, tmp_path):
    path = media.write_clip(tmp_path / f"clip{suffix}", seconds=4, **options)
    contents = path.read_bytes()
    path.write_bytes(contents[: len(contents) // 2])
    assert refusal(path)[0] == "truncated"


@pytest.mark.parametrize("claim", [0, 0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF, 0x80000000 - 36])
def test_wav_from_a_pipe_that_can_not_know_its_length_is_kept(claim, tmp_path):
    path = media.write_clip(tmp_path / "clip.wav")
    contents = bytearray(path.read_bytes())
    at = contents.index(b"data") + 4
    contents[4:8] = contents[at : at + 4] = struct.pack("<I", claim)
    path.write_bytes(contents)
    assert len(media.read_sound(stored(path)["audio"])) == 2 * 48_000


def inverted(path, left=1.0, right=-1.0, rate=44_100):
    time = np.arange(2 * rate) / rate
    tone = 0.5 * np.sin(2 * np.pi * 1_000 * time)
    noise = np.random.default_rng(0).normal(0, 0.005, (2, len(tone)))
    samples = np.stack([left * tone, right * tone]) + noise
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="stereo")
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), "fltp", "stereo")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return path


def test_of_channels_that_cancel_each_other_the_first_is_taken_and_reported(tmp_path):
    clip = stored(inverted(tmp_path / "clip.wav"))
    sound = media.read_sound(clip["audio"])
    assert np.abs(sound).max() == pytest.approx(0.5, abs=0.05)
    assert pitch(sound) == pytest.approx(1_000, abs=1)
    assert clip["causes"]["opposite_channels"] == "channel 1 is taken"
    assert stored(tmp_path / "clip.wav") == clip


@pytest.mark.parametrize(("left", "right"), [(1.0, 1.0), (1.0, 0.0), (1.0, -0.5), (0.2, 1.0)])
def test_of_other_channels_the_mean_is_taken(left, right, tmp_path):
    clip = stored(inverted(tmp_path / "clip.wav", left, right))
    assert "opposite_channels" not in clip["causes"]
    loudest = np.abs(media.read_sound(clip["audio"])).max()
    assert loudest == pytest.approx(0.5 * abs(left + right) / 2, abs=0.03)


@pytest.mark.parametrize(("part", "opposite"), [(0.0, False), (0.03, False), (0.5, True)])
def test_channels_may_be_opposite_in_a_part_alone(part, opposite, tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(2 * 48_000) / 48_000)
    other = np.where(np.arange(len(tone)) < part * len(tone), -tone, tone)
    soundfile.write(tmp_path / "clip.wav", np.stack([tone, other], 1), 48_000)
    clip = stored(tmp_path / "clip.wav")
    assert ("opposite_channels" in clip["causes"]) == opposite
    if opposite:
        assert np.abs(media.read_sound(clip["audio"])[:4_800]).max() > 0.4


def test_one_channel_of_many_is_not_opposite_to_silence(tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(2 * 48_000) / 48_000)
    samples = np.pad(tone[:, None], [(0, 0), (3, 12)])
    soundfile.write(tmp_path / "clip.wav", samples, 48_000)
    assert stored(tmp_path / "clip.wav")["causes"] == {"no_video": ""}


def test_sound_far_beyond_full_scale_is_made_quieter_and_not_clipped(tmp_path):
    tone = np.sin(2 * np.pi * 1_000 * np.arange(2 * 48_000) / 48_000)
    soundfile.write(tmp_path / "clip.wav", 20_000 * tone, 48_000, subtype="FLOAT")
    clip = stored(tmp_path / "clip.wav")
    np.testing.assert_allclose(media.read_sound(clip["audio"]), tone, atol=1e-4)
    assert clip["causes"]["beyond_full_scale"] == "peak 20000"


def test_wav_of_big_endian_samples_is_refused_and_does_not_become_noise(tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(2 * 48_000) / 48_000)
    soundfile.write(tmp_path / "clip.wav", tone, 48_000, endian="BIG")
    assert "RIFX" in refusal(tmp_path / "clip.wav")[1]


def test_noise_with_the_suffix_of_sound_is_refused(tmp_path):
    for seed in range(5):
        noise = np.random.default_rng(seed).bytes(200_000)
        (tmp_path / "clip.mp3").write_bytes(noise)
        assert refusal(tmp_path / "clip.mp3")[0] == "undecodable"


@pytest.mark.parametrize("suffix", [".avi", ".ts", ".mpg", ".wmv", ".au"])
def test_a_list_of_other_files_is_not_followed(suffix, tmp_path):
    media.write_clip(tmp_path / "other.ts")
    (tmp_path / f"clip{suffix}").write_text("ffconcat version 1.0\nfile 'other.ts'\n")
    assert refusal(tmp_path / f"clip{suffix}")[0] == "undecodable"


def test_nothing_that_opens_other_files_or_devices_is_taken():
    taken = set(containers.OPTIONS["format_whitelist"].split(","))
    others = {"hls", "concat", "dash", "sdp", "rtsp", "image2", "imf", "lavfi", "mpjpeg", "vobsub"}
    assert taken and not taken & others
    assert containers.OPTIONS["protocol_whitelist"] == "file"
    with pytest.raises(FileNotFoundError):
        containers.open_file("http://127.0.0.1:1/clip.mp4")


def test_quicktime_that_refers_to_another_file_is_not_followed(tmp_path):
    other = media.write_clip(tmp_path / "other.mov", sound=False)
    contents = bytearray(other.read_bytes())
    name = str(other).encode()
    alias = bytes(130) + struct.pack(">HH16xHH", 1, 1, 2, len(name)) + name
    alias += bytes(len(name) % 2) + struct.pack(">hH", -1, 0)
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    at = contents.index(b"dref") - 4
    old = int.from_bytes(contents[at : at + 4])
    new = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    contents[at : at + old] = new
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        size = contents.rindex(box, 0, at) - 4
        longer = int.from_bytes(contents[size : size + 4]) + len(new) - old
        contents[size : size + 4] = longer.to_bytes(4)
    mdat = slice(contents.index(b"mdat") + 4, contents.rindex(b"moov") - 4)
    contents[mdat] = bytes(mdat.stop - mdat.start)
    path = tmp_path / "clip.mov"
    path.write_bytes(contents)
    with av.open(str(path), options={"enable_drefs": "1"}) as container:
        assert len(list(container.decode(video=0))) == 50  # It can be followed.
    assert refusal(path)[0] == "undecodable"
