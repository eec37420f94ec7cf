"""AudioSet is built from clips as people have them; what is wrong with any is told."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments import prepare_data
from perceiver_jax.data import sources
from perceiver_jax.data.builders import audioset
from perceiver_jax.data.builders.audioset import segments
from perceiver_jax.data.builders.clips import decode, shards
from tests.data import media

LISTS = {
    "balanced_train": [("abcdefghij_", 30), ("-bcdefghi-k", 0)],
    "unbalanced_train": [("Ybcdefgh_30", 30), ("missing0000", 10), ("broken_0000", 0)],
    "eval": [("_bcdefgh_30", 120), ("quiet_00000", 0)],
}


def write_lists(folder, lists):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / segments.CLASSES, "w") as file:
        file.write("index,mid,display_name\n")
        file.writelines(f'{i},/m/{i:04d},"Sound, {i}"\n' for i in range(527))
    for group, lines in lists.items():
        with open(folder / segments.LISTS[group], "w") as file:
            file.write(
                "# Segments csv\n# num_ytids=2\n# YTID, start_seconds, end_seconds, labels\n"
            )
            for i, (youtube_id, start) in enumerate(lines):
                labels = f"/m/{i:04d},/m/0500"
                file.write(f'{youtube_id}, {start:.3f}, {start + 10:.3f}, "{labels}"\n')


def build(folder, data_dir, **options):
    builder = audioset.Audioset(data_dir=data_dir)
    config = tfds.download.DownloadConfig(manual_dir=folder, **options)
    builder.download_and_prepare(download_config=config)
    return builder


def read(builder, split):
    features = ("clip_id", "start", "video", "audio", "labels")
    records = sources.TfdsRecords(str(builder.data_dir), split, features)
    return {records[i]["clip_id"].decode(): records[i] for i in range(len(records))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips under names of several downloaders, and some that are of no use."""
    folder = tmp_path_factory.mktemp("clips")
    write_lists(folder, LISTS)
    media.write_clip(folder / "abcdefghij_.mp4", seconds=1.6)
    media.write_clip(folder / "a/b/Y-bcdefghi-k_0_10.webm", seconds=1.4)
    media.write_clip(folder / "a/Ybcdefgh_30_30000_40000.wav", seconds=1.5)
    media.write_clip(folder / "_bcdefgh_30_120.000_130.000.mkv", seconds=1.5, sound=False)
    media.write_clip(folder / "quiet_00000_0.flac", level=0)
    media.write_clip(folder / "sounds/abcdefghij_.m4a")
    media.write_clip(folder / "a/abcdefghij__99.wav")  # Of another segment.
    media.write_clip(folder / "holiday.wav")
    (folder / "broken_0000.mp4").write_bytes(b"no film")
    (folder / "a/notes.txt").write_text("not a clip")
    return folder


@pytest.fixture(scope="module")
def built(folder, tmp_path_factory):
    return build(folder, tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("abcdefghijk", ("abcdefghijk", None, None)),
        ("Yabcdefghijk", ("abcdefghijk", None, None)),
        ("Ybcdefghijk", ("Ybcdefghijk", None, None)),
        ("YYbcdefghijk", ("Ybcdefghijk", None, None)),
        ("abcdefgh_30", ("abcdefgh_30", None, None)),
        ("Yabcdefgh_30", ("abcdefgh_30", None, None)),
        ("abcdefgh_30_40", ("abcdefgh_30", 40, None)),
        ("Ybcdefghij__30", ("Ybcdefghij_", 30, None)),
        ("Yabcdefghij_", ("abcdefghij_", None, None)),
        ("Yabcdefghij__30", ("abcdefghij_", 30, None)),
        ("-_-_-_-_-_-_0_10.5", ("-_-_-_-_-_-", 0, 10.5)),
        ("Y-_-_-_-_-_-_30000_40000", ("-_-_-_-_-_-", 30_000, 40_000)),
        ("abcdefghij", None),
        ("abcdefghijkl", None),
        ("abcdefghijk_", None),
        ("abcdefghijk_30_40_50", None),
        ("abcdefghijk_-30", None),
        ("abcdefghijé", None),
    ],
)
def test_names_of_downloaders_are_understood(stem, name):
    assert segments.parse_name(stem) == name


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("abcdefghijk_30", 30.0),
        ("abcdefghijk_30000", 30.0),
        ("abcdefghijk_30_40", 30.0),
        ("abcdefghijk_30000_40000", 30.0),
        ("abcdefghijk_7_17", 7.5),  # The downloader cut off the fraction.
        ("abcdefghijk_7500_17500", 7.5),
        ("abcdefghijk_30_90", None),
        ("abcdefghijk_50", None),
        ("abcdefghijk", None),  # Could be either.
    ],
)
def test_starts_are_seconds_or_milliseconds_as_the_lists_have_it(name, start):
    lines = [segments.Segment("eval", "abcdefghijk", s, s + 10, (0,)) for s in (7.5, 30.0)]
    found = segments.find_segment(segments.parse_name(name), lines)
    assert (found and found.start) == start


def test_splits_are_made_of_the_lists(built):
    clips = {split: set(read(built, split)) for split in built.info.splits}
    assert clips == {
        "train": {"abcdefghij_", "-bcdefghi-k", "Ybcdefgh_30"},
        "balanced_train": {"abcdefghij_", "-bcdefghi-k"},
        "test": {"_bcdefgh_30"},
    }


def test_clips_have_their_labels_start_and_class_names(built):
    clip = read(built, "train")["-bcdefghi-k"]
    assert (list(clip["labels"]), clip["start"]) == ([1, 500], 0)
    assert read(built, "test")["_bcdefgh_30"]["start"] == 120
    prepared = tfds.builder_from_directory(built.data_dir)
    assert prepared.info.features["labels"].feature.names[500] == "Sound, 500"


def test_clips_have_their_picture_and_sound(built):
    clips = read(built, "train") | read(built, "test")
    assert [media.read_number(p) for p in clips["-bcdefghi-k"]["video"]] == list(range(35))
    assert len(media.read_sound(clips["-bcdefghi-k"]["audio"])) == 35 * 1_920
    assert (len(clips["Ybcdefgh_30"]["video"]), len(clips["_bcdefgh_30"]["audio"])) == (0, 0)


def test_every_clip_that_is_odd_or_left_out_is_reported_by_cause(built):
    with open(pathlib.Path(built.data_dir) / "report.csv", newline="") as file:
        rows = {(row["name"], row["cause"]): row["kept"] for row in csv.DictReader(file)}
    assert rows == {
        ("missing0000_10000", "missing"): "False",
        ("broken_0000_0", "undecodable"): "False",
        ("quiet_00000_0", "silent"): "False",
        ("abcdefghij__30000", "duplicate"): "False",
        ("abcdefghij__99", "unlisted"): "False",
        ("holiday", "unlisted"): "False",
        ("a/notes.txt", "another kind of file"): "False",
        ("Ybcdefgh_30_30000", "no_video"): "True",
        ("_bcdefgh_30_120000", "no_audio"): "True",
    }


def test_the_report_counts_clips_by_split(built):
    report = json.loads((pathlib.Path(built.data_dir) / "report.json").read_text())
    train = {"listed": 5, "kept": 3, "with_video": 2, "with_audio": 3}
    test = {"listed": 2, "kept": 1, "with_video": 1, "with_audio": 0}
    assert (report["splits"]["train"], report["splits"]["test"]) == (train, test)
    assert report["causes"]["unlisted"]["left_out"] == 2
    assert report["other_suffixes"] == {".txt": 1}
    assert report["causes"]["no_video"] == {
        "meaning": "audio alone",
        "kept": 1,
        "left_out": 0,
    }


def test_nothing_but_the_data_set_is_left(built):
    (folder,) = (p for p in pathlib.Path(built.data_dir).parent.iterdir() if p.name[0] != ".")
    assert folder == pathlib.Path(built.data_dir)


def test_a_killed_build_resumes_with_what_is_missing(tmp_path, monkeypatch):
    ids = [f"clip_{i:06d}" for i in range(10)]
    write_lists(tmp_path / "clips", {"eval": [(x, 0) for x in ids]})
    for i, youtube_id in enumerate(ids):
        media.write_clip(tmp_path / f"clips/{youtube_id}.wav", seconds=1.3 + i / 100)
    monkeypatch.setattr(shards, "CLIPS", 2)
    running = subprocess.Popen(
        [sys.executable, "-c", _SLOW_BUILD, str(tmp_path)], stderr=subprocess.DEVNULL
    )
    workspace = tmp_path / "data/audioset/building_1.0.0"
    while len(list(workspace.glob("*.json"))) < 2:
        assert running.poll() is None
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    finished = [json.loads(path.read_text()) for path in workspace.glob("*.json")]
    num_finished = sum(shard["num_clips"] for shard in finished)
    assert 2 <= num_finished < 10

    decoded = []
    monkeypatch.setattr(decode, "decode_all", _counted(decode.decode_all, decoded))
    clips = read(build(tmp_path / "clips", tmp_path / "data"), "test")
    assert len(decoded) == len(set(decoded)) == 10 - num_finished
    assert sorted(clips) == ids
    lengths = [len(media.read_sound(clips[x]["audio"])) for x in ids]
    assert np.all(np.diff(lengths) >= 0) and lengths[0] < lengths[-1]


@pytest.mark.filterwarnings("default")  # Beam's own.
def test_beam_makes_the_same_clips(folder, built, tmp_path):
    pipeline_options = pytest.importorskip("apache_beam.options.pipeline_options")
    options = pipeline_options.PipelineOptions(["--runner=FnApiRunner"])
    with_beam = build(folder, tmp_path, beam_options=options)
    assert list(with_beam.info.splits) == list(built.info.splits)
    for split in built.info.splits:
        clips, expected = read(with_beam, split), read(built, split)
        assert list(clips) == list(expected)
        for name, clip in expected.items():
            assert list(clips[name]["video"]) == list(clip["video"])
            assert clips[name]["audio"] == clip["audio"]


def test_a_clip_that_changed_is_decoded_again(tmp_path):
    path = media.write_clip(tmp_path / "clips/clip_000000.wav", seconds=1.5)
    maker_clips = [shards.Clip("clip", path.name, 0.0, 10.0, True, {})]
    (before,) = shards.divide("test", maker_clips, path.parent)
    media.write_clip(path, seconds=1.6)
    (after,) = shards.divide("test", maker_clips, path.parent)
    assert before.name != after.name


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (segments.CLASSES, None, "no .*class_labels_indices.csv.*Put AudioSet's CSV files"),
        (segments.CLASSES, "index,mid,display_name\n0,/m/0,One\n", "has 1 lines"),
        (segments.LISTS["eval"], None, "none of .*eval_segments.csv"),
        (segments.LISTS["eval"], 'abcdefghijk, 0, 10, "/m/9999"\n', "csv:1 reads .*KeyError"),
        (segments.LISTS["eval"], 'abcdefghijk, 10, 0, "/m/0001"\n', "csv:1 reads .*segment of at"),
        (segments.LISTS["eval"], "abcdefghijk\n", "csv:1 reads .*expected an ID"),
        (segments.LISTS["eval"], 'abcdefghijk, 0, 10, "/m/0001"\n', "no clip .* can be used"),
    ],
)
def test_lists_that_are_not_audiosets_are_explained(name, text, message, tmp_path):
    write_lists(tmp_path / "clips", {"eval": [("abcdefghijk", 0)]})
    path = tmp_path / "clips" / name
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "clips", tmp_path / "data")
    assert not (tmp_path / "data/audioset/1.0.0").exists()


def test_an_empty_folder_is_explained_by_the_command(tmp_path, capsys):
    (tmp_path / "clips").mkdir()
    command = ["audioset", f"--source={tmp_path / 'clips'}", f"--data_dir={tmp_path}"]
    with pytest.raises(SystemExit) as exit_:
        prepare_data.main(command)
    assert exit_.value.code == 2
    assert "Put AudioSet's CSV files into the folder of the clips" in capsys.readouterr().err


_SLOW_BUILD = """
import sys, time
from perceiver_jax.data.builders.clips import decode, shards
from tests.data import test_audioset
shards.CLIPS = 2
quick = decode.decode_all
def slow(requests, num_processes):
    for clip in quick(requests, num_processes):
        time.sleep(0.15)
        yield clip
decode.decode_all = slow
test_audioset.build(sys.argv[1] + "/clips", sys.argv[1] + "/data")
"""


def _counted(decode_all, decoded):
    def count(requests, num_processes):
        requests = list(requests)
        decoded.extend(request["path"] for request in requests)
        return decode_all(requests, num_processes)

    return count
