"""Sounds and videos of one's own, in a folder per class."""

import json

import pytest

from experiments import prepare_data
from perceiver_jax.data import datasets, sources
from perceiver_jax.data.builders.clips import shards
from tests.data import media, printed


def read(name, data_dir, split, *features):
    builder = datasets.prepared_builder(name, str(data_dir))
    records = sources.TfdsRecords(str(builder.data_dir), split, features)
    return [records[i] for i in range(len(records))]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """The folder of a data set of sounds, with folders of splits."""
    folder = tmp_path_factory.mktemp("own")
    own = folder / "My sounds"
    for i in range(3):
        media.write_clip(own / f"train/high/{i}.wav", seconds=1.4, tone=3_000)
        media.write_clip(own / f"train/low/deep/{i}.flac", seconds=1.4, tone=300)
    media.write_clip(own / "test/low/film.mp4", seconds=1.4)
    media.write_clip(own / "test/low/silent.wav", level=0)
    (own / "train/low/broken.mp3").write_bytes(b"nothing")
    prepare_data.main(["sound_folder", f"--source={own}", f"--data_dir={folder}"])
    return folder


def test_sounds_are_labelled_by_their_folder(sounds):
    clips = read("my_sounds", sounds, "train", "clip_id", "label", "audio")
    labels = {clip["clip_id"].decode(): clip["label"] for clip in clips}
    expected = {f"train/high/{i}.wav": 0 for i in range(3)}
    assert labels == expected | {f"train/low/deep/{i}.flac": 1 for i in range(3)}
    assert all(len(media.read_sound(clip["audio"])) == 35 * 1_920 for clip in clips)


def test_of_a_video_among_sounds_the_sound_is_taken(sounds):
    (clip,) = read("my_sounds", sounds, "test", "clip_id", "label")
    assert clip == {"clip_id": b"test/low/film.mp4", "label": 1}
    assert "video" not in datasets.find("my_sounds", str(sounds)).info.features


def test_sounds_that_are_left_out_are_named(sounds):
    report = (sounds / "my_sounds/1.0.0/report.csv").read_text()
    assert "test/low/silent.wav,silent,False" in report
    assert "train/low/broken.mp3,undecodable,False" in report


def test_videos_are_cut_at_a_minute_and_divided_by_their_names(tmp_path, capsys, monkeypatch):
    from perceiver_jax.data.builders.clips import decode

    monkeypatch.setitem(decode.WHOLE_FILE, "length", 1.4)
    for i in range(4):
        for label in ("cat", "dog"):
            media.write_clip(tmp_path / f"films/{label}/{i}.mkv", seconds=3, fps=5, size=(64, 48))
    command = ["video_folder", f"--source={tmp_path / 'films'}", f"--data_dir={tmp_path}"]
    prepare_data.main([*command, "--test_fraction=0.3"])
    config = printed.config(capsys.readouterr().out)
    assert (config.model.outputs.label.size, config.task.loss) == (2, "softmax")
    assert sorted(config.model.inputs) == sorted(config.data.fields)[:1] + ["video"]
    assert config.data.fields.video.num_frames == 16  # 1.4 s at 12.5 a second, an even number.
    clips = [read("films", tmp_path, split, "clip_id", "video") for split in ("train", "test")]
    assert len(clips[0]) + len(clips[1]) == 8 and clips[1]
    assert all(len(clip["video"]) == 35 for clip in clips[0] + clips[1])
    assert "long,True,3.0" in (tmp_path / "films/1.0.0/report.csv").read_text()
    assert datasets.lookup("films", str(tmp_path)).may_lack == ("audio", "video")


@pytest.fixture
def broken(tmp_path):
    """A folder whose clips for testing all break off."""
    for label in ("cat", "dog"):
        media.write_clip(tmp_path / f"own/train/{label}/0.wav", seconds=0.2)
        path = media.write_clip(tmp_path / f"own/test/{label}/1.wav", seconds=2)
        path.write_bytes(path.read_bytes()[:100_000])
    return tmp_path


def prepare(folder):
    prepare_data.main(["sound_folder", f"--source={folder / 'own'}", f"--data_dir={folder}"])


def test_a_split_of_which_all_is_left_out_is_an_error_with_the_cause(broken, capsys):
    with pytest.raises(SystemExit) as exit_:
        prepare(broken)
    told = capsys.readouterr().err
    assert exit_.value.code == 2
    assert "None of the 2 clips of the test split" in told
    assert "2 x truncated (the file ends before the end that it claims), such as test/" in told
    assert "test/dog/1.wav: file ends after 0.52 of 2.00 s" in told
    assert not (broken / "own/1.0.0").exists()


def test_after_the_cause_is_gone_the_next_build_decodes_again(broken, monkeypatch):
    monkeypatch.setattr(shards, "_fingerprint", lambda *_: "same")  # As if a library was updated.
    with pytest.raises(SystemExit):
        prepare(broken)
    for label in ("cat", "dog"):
        media.write_clip(broken / f"own/test/{label}/1.wav", seconds=2)
    prepare(broken)
    assert len(read("own", broken, "test", "clip_id")) == 2


def test_files_of_other_kinds_are_counted_by_suffix(tmp_path, capsys):
    for name in ("train/cat/0", "train/dog/0", "test/cat/1", "test/dog/1"):
        media.write_clip(tmp_path / f"own/{name}.wav", seconds=0.2)
    for name in ("cat/a.rm", "cat/b.RM", "dog/c.rm", "dog/notes.txt", "dog/README"):
        (tmp_path / "own/train" / name).write_bytes(b"")
    prepare(tmp_path)
    assert "which are not taken: 3 .rm" in capsys.readouterr().err
    report = json.loads((tmp_path / "own/1.0.0/report.json").read_text())
    assert report["other_suffixes"] == {".rm": 3, "(no suffix)": 1, ".txt": 1}
    rows = (tmp_path / "own/1.0.0/report.csv").read_text()
    assert "train/cat/b.RM,another kind of file,False,.rm" in rows
