"""Files, bytes and arrays of a user give what the test split of a data set made of them gives."""

import fractions
import io
import os
import pathlib
import subprocess
import sys

import av
import numpy as np
import PIL.Image
import pytest
import soundfile
import trimesh

from experiments import prepare_data
from perceiver_jax import config, data
from perceiver_jax.data import sources
from perceiver_jax.data.builders import modelnet40
from perceiver_jax.data.fields import FIELDS
from tests.data import media, shape_files
from tests.data.photographs import photograph

IMAGE = {"image": {"kind": "image", "image_size": 31}}
CLIP = {
    "video": {"kind": "video", "num_frames": 7, "image_size": 23},
    "audio": {"kind": "audio", "num_samples": 13_440},
    "spectrum": {"kind": "mel", "num_samples": 13_312},
}
SOUND = {"audio": CLIP["audio"]}
POINTS = {"points": {"kind": "point_cloud", "num_points": 2_048}}
BOX = (2.0, 3.0, 7.0)


def build_fields(**sections):
    return {
        name: config.build_from_table(FIELDS, section, name) for name, section in sections.items()
    }


def evaluated(name, data_dir, fields, feature, num_windows=1):
    """What a test split gives, its data, and the names of its examples."""
    made = data.build_data(
        dataset=name,
        data_dir=str(data_dir),
        train_split="train",
        test_split="test",
        batch_size=2,
        num_workers=0,
        fields=fields | {"label": {"kind": "label"}},
    )
    records, _ = made.store.open("test", {})
    records = sources.TfdsRecords(records.directory, "test", (feature,))
    names = [records[i][feature].decode() for i in range(len(records))]
    (batch,) = made.test_batches(len(names) * num_windows, num_windows)
    return batch, made, names


def assert_same(batch, expected):
    assert batch.keys() >= {"example_id"}
    for name, values in batch.items():
        assert values.dtype == expected[name].dtype, name
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    files = {"train/cat/0.jpg": photograph(0), "train/dog/0.jpg": photograph(1)}
    files |= {"test/cat/grey.jpg": photograph(2, mode="L"), "test/cat/wide.jpg": photograph(3)}
    files |= {"test/dog/soft.png": photograph(4, mode="RGBA", file_format="png")}
    turned = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[274] = 6
    PIL.Image.open(io.BytesIO(photograph(5))).save(turned, "jpeg", exif=exif)
    files |= {"test/dog/turned.jpg": turned.getvalue()}
    shape_files.write_files(folder / "own", files)
    prepare_data.main(["image_folder", f"--source={folder / 'own'}", f"--data_dir={folder}"])
    return folder


@pytest.mark.parametrize("form", ["path", "text", "bytes", "opened", "by name"])
def test_pictures_are_as_in_the_test_split(pictures, form):
    expected, made, names = evaluated("own", pictures, IMAGE, "file_name")
    paths = [pictures / "own" / name for name in names]
    forms = {
        "path": lambda path: path,
        "text": str,
        "bytes": pathlib.Path.read_bytes,
        "opened": PIL.Image.open,
        "by name": lambda path: {"image": path},
    }
    batch = data.prepare(map(forms[form], paths), made.fields)
    assert set(batch) == {"image", "example_id"}
    assert_same(batch, expected)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Clips with both picture and sound, and with one of them; the sound may be shorter."""
    folder = tmp_path_factory.mktemp("films")
    for name in ("train/cat/0.mp4", "train/dog/0.mp4"):
        media.write_clip(folder / "own" / name, seconds=1)
    media.write_clip(folder / "own/test/cat/film.mp4", seconds=2, onset=0.7)
    media.write_clip(folder / "own/test/cat/fast.mkv", seconds=1.6, fps=50, rate=44_100)
    times = [i / 25 for i in range(50)]  # Of its pictures; its sound ends before.
    media.write_clip(folder / "own/test/cat/longer.mp4", seconds=1.2, times=times)
    media.write_clip(folder / "own/test/dog/silent.webm", seconds=1.2, sound=False)
    media.write_clip(folder / "own/test/dog/sound.wav", seconds=1.4)
    for kind in ("video_folder", "sound_folder"):
        name = kind.partition("_")[0]
        command = [f"--source={folder / 'own'}", f"--data_dir={folder}", f"--name={name}"]
        if kind == "sound_folder":
            (folder / "own/test/dog/silent.webm").rename(folder / "silent.webm")
        prepare_data.main([kind, *command])
    (folder / "silent.webm").rename(folder / "own/test/dog/silent.webm")
    return folder


@pytest.mark.parametrize("num_windows", [1, 16])
def test_films_are_as_in_the_test_split(films, num_windows):
    expected, made, names = evaluated("video", films, CLIP, "clip_id", num_windows)
    paths = [films / "own" / name for name in names]
    batch = data.prepare(paths, made.fields, num_windows=num_windows, may_lack=made.may_lack)
    assert made.may_lack == set(CLIP) and len(batch["example_id"]) == 5 * num_windows
    assert set(batch) == {"example_id", *CLIP, *(f"{name}_mask" for name in CLIP)}
    assert not batch["video_mask"].all() and not batch["audio_mask"].all()
    assert_same(batch, expected)
    contents = [path.read_bytes() for path in paths]
    again = data.prepare(contents, made.fields, num_windows=num_windows, may_lack=made.may_lack)
    assert_same(again, expected)


def test_of_films_a_model_of_sound_gets_what_it_got_of_them(films):
    for name in ("video", "sound"):
        expected, made, names = evaluated(name, films, SOUND, "clip_id", 3)
        there = [i for i, given in enumerate(names) if "silent" not in given]
        paths = [films / "own" / names[i] for i in there]
        batch = data.prepare(paths, made.fields, num_windows=3, may_lack=made.may_lack)
        rows = np.isin(expected["example_id"], there)
        assert_same(
            {key: batch[key] for key in batch if key != "example_id"} | {"example_id": np.zeros(0)},
            {key: array[rows] for key, array in expected.items()} | {"example_id": np.zeros(0)},
        )


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".flac", ".aac", ".opus", ".ts", ".m2v"])
def test_bytes_of_clips_are_read_as_the_file(tmp_path, suffix):
    path = media.write_clip(tmp_path / f"clip{suffix}", seconds=1.4)
    fields = build_fields(**(SOUND if suffix != ".m2v" else {"video": CLIP["video"]}))
    assert_same(data.prepare([path.read_bytes()], fields), data.prepare([path], fields))


def test_meshes_are_as_those_of_modelnet40(tmp_path):
    files = {f"{label}/train/0.off": shape_files.box_off(BOX) for label in ("chair", "table")}
    files |= {f"chair/test/chair_{i}.off": shape_files.box_off((2, 3, 4 + i)) for i in range(3)}
    shape_files.write_files(tmp_path / "own", files)
    shape_files.build(modelnet40.Modelnet40(tmp_path / "own", tmp_path))
    fields = {"points": {"kind": "point_cloud", "num_points": 101}}
    expected, made, names = evaluated("modelnet40", tmp_path, fields, "name", 5)
    paths = [tmp_path / "own" / name for name in names]
    assert_same(data.prepare(paths, made.fields, num_windows=5, up="z"), expected)
    lying = data.prepare(paths, made.fields, num_windows=5)["points"]
    assert (lying != expected["points"]).any()


def test_points_in_files_and_arrays_are_as_those_of_a_folder(tmp_path, rng):
    files = {}
    for split in ("train", "test"):
        for label in ("ball", "box"):
            points = rng.normal(size=(2_048, 3)).astype(np.float32)
            file = io.BytesIO()
            np.save(file, points)
            files[f"{split}/{label}/cloud.npy"] = file.getvalue()
            files[f"{split}/{label}/cloud.ply"] = trimesh.PointCloud(points).export(file_type="ply")
    shape_files.write_files(tmp_path / "own", files)
    prepare_data.main(["mesh_folder", f"--source={tmp_path / 'own'}", f"--data_dir={tmp_path}"])
    expected, made, names = evaluated("own", tmp_path, POINTS, "name")
    assert_same(data.prepare([tmp_path / "own" / name for name in names], made.fields), expected)
    assert_same(data.prepare([files[name] for name in names], made.fields), expected)
    given = [np.load(io.BytesIO(files[name.replace(".ply", ".npy")])) for name in names]
    assert_same(data.prepare(given, made.fields), expected)


@pytest.mark.parametrize("form", ["off", "stl", "stl_ascii", "ply", "obj"])
def test_points_are_on_the_surface_whatever_the_form_of_the_mesh(tmp_path, form):
    mesh = trimesh.creation.box(BOX).export(file_type=form)
    mesh = mesh.encode() if isinstance(mesh, str) else mesh
    path = tmp_path / f"box.{form.removesuffix('_ascii')}"
    path.write_bytes(mesh)
    fields = build_fields(**POINTS)
    points = data.prepare([path], fields)["points"][0]
    sides = np.ptp(points, axis=0)
    np.testing.assert_allclose(sides / sides.max(), np.array(BOX) / 7, rtol=0.02)
    at_side = np.abs(np.abs(points - (points.max(axis=0) + points.min(axis=0)) / 2) - sides / 2)
    assert at_side.min(axis=1).max() < 0.01
    assert np.ptp(data.prepare([mesh], fields)["points"][0], axis=0).argmax() == 2


@pytest.mark.parametrize("form", ["array", ".npy", ".ply"])
def test_small_clouds_are_taken_whole(tmp_path, rng, form):
    given = points = rng.normal(size=(53, 3)).astype(np.float32)
    if form == ".npy":
        given = tmp_path / "cloud.npy"
        np.save(given, points)
    if form == ".ply":
        given = trimesh.PointCloud(points).export(file_type="ply")
    fields = build_fields(points={"kind": "point_cloud", "num_points": 53})
    (batch,) = data.prepare([given], fields)["points"]
    moved = points - points.mean(axis=0)
    np.testing.assert_allclose(batch, moved / np.abs(moved).max(), atol=1e-6)


def test_arrays_are_as_in_the_test_split(rng):
    inputs = {
        "signal": rng.normal(size=(6, 7, 3)),
        "signal_mask": rng.random((6, 7)) < 0.7,
        "levels": rng.integers(0, 256, (6, 5), np.uint8),
    }
    inputs["signal"][~inputs["signal_mask"]] = np.nan
    made = data.from_arrays(inputs, np.arange(6), inputs, np.arange(6), batch_size=6)
    (expected,) = made.test_batches(6, 1)
    given = [{name: array[i] for name, array in inputs.items()} for i in range(6)]
    assert_same(data.prepare(given, made.fields), expected)


def test_of_an_array_without_its_mask_all_counts(rng):
    inputs = {"signal": rng.normal(size=(6, 7, 3)), "signal_mask": np.ones((6, 7), bool)}
    made = data.from_arrays(inputs, np.arange(6), inputs, np.arange(6), batch_size=6)
    for given in (inputs["signal"], [{"signal": x} for x in inputs["signal"]]):
        batch = data.prepare(given, made.fields)
        assert batch["signal_mask"].shape == (6, 7) and batch["signal_mask"].all()
        np.testing.assert_array_equal(batch["signal"], inputs["signal"].astype(np.float32))


def test_an_array_may_be_in_a_file(tmp_path, rng):
    signal = rng.normal(size=(2, 7, 3))
    made = data.from_arrays({"x": signal}, [0, 1], {"x": signal}, [0, 1], batch_size=2)
    np.save(tmp_path / "x.npy", signal[1])
    (batch,) = data.prepare([tmp_path / "x.npy"], made.fields)["x"]
    np.testing.assert_array_equal(batch, signal[1].astype(np.float32))


@pytest.mark.parametrize("shape", [(50, 75), (50, 75, 1), (50, 75, 3), (50, 75, 4)])
def test_pixels_are_as_in_a_file(shape, rng):
    pixels = rng.integers(0, 256, shape, np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels[..., 0] if shape[2:] == (1,) else pixels).save(file, "png")
    fields = build_fields(**IMAGE)
    assert_same(data.prepare([pixels], fields), data.prepare([file.getvalue()], fields))


@pytest.mark.parametrize("rate", [48_000, 44_100])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
@pytest.mark.parametrize("opposite", [False, True])
def test_samples_are_as_in_a_file(rng, rate, subtype, opposite):
    samples = rng.uniform(-1, 1, (rate, 2)).astype(np.float32)
    if opposite:
        samples[:, 1] = -samples[:, 0]
    if subtype == "PCM_16":
        samples = (samples * 32_767).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
    fields = build_fields(**SOUND)
    batch = data.prepare([(samples, rate)], fields, num_windows=3)
    assert_same(batch, data.prepare([file.getvalue()], fields, num_windows=3))


@pytest.mark.parametrize("rate", [25, 30, fractions.Fraction(30_000, 1_001)])
def test_frames_are_as_in_a_file(tmp_path, rng, rate):
    small = rng.integers(0, 256, (40, 6, 8, 3), np.uint8)
    frames = np.kron(small, np.ones((1, 16, 16, 1), np.uint8))
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)  # Without loss.
        stream.width, stream.height, stream.pix_fmt = 128, 96, "bgr0"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    fields = build_fields(video=CLIP["video"])
    given = frames if rate == 25 else (frames, float(rate))
    batch = data.prepare([given], fields, num_windows=3)
    assert_same(batch, data.prepare([path], fields, num_windows=3))


def test_sound_and_picture_of_two_files_are_of_the_same_time(films):
    picture, sound = films / "own/test/cat/film.mp4", films / "own/test/dog/sound.wav"
    fields = build_fields(**CLIP)
    given = {"video": picture, "audio": sound, "spectrum": sound}
    batch = data.prepare([given], fields, num_windows=3)
    whole = data.prepare([picture], fields, num_windows=3)
    alone = data.prepare([sound], build_fields(**SOUND), num_windows=3)
    np.testing.assert_array_equal(batch["video"], whole["video"])
    np.testing.assert_array_equal(batch["audio"][0], alone["audio"][0])
    assert np.abs(alone["audio"][2]).max() > 0.1  # The sound ends after 1.4 s, the film after 2.
    assert not batch["audio"][2].any() and (batch["spectrum"][2] == batch["spectrum"][2, 0]).all()


def test_a_longer_sound_holds_the_last_picture(films):
    picture, sound = films / "own/test/dog/silent.webm", films / "own/test/cat/film.mp4"
    given = {"video": picture, "audio": sound}
    fields = build_fields(video=CLIP["video"], audio=CLIP["audio"])
    batch = data.prepare([given], fields, num_windows=3)
    alone = data.prepare([picture], build_fields(video=CLIP["video"]), num_windows=3)
    np.testing.assert_array_equal(batch["video"][2, 0], alone["video"][2, -1])
    whole = data.prepare([sound], fields, num_windows=3)
    np.testing.assert_array_equal(batch["audio"], whole["audio"])


def test_what_lacks_is_masked_if_the_model_knows_that(films):
    fields = build_fields(**CLIP)
    silent = films / "own/test/dog/silent.webm"
    batch = data.prepare([silent], fields, may_lack=["audio", "spectrum"])
    assert not batch["audio_mask"].any() and not batch["audio"].any() and batch["video"].any()
    with pytest.raises(
        config.UserError, match=r"example 0 \(.*silent.webm\) without 'audio'.*all of"
    ):
        data.prepare([silent], fields)


def test_a_picture_needs_neither_a_process_nor_tfds_nor_jax(pictures):
    program = (
        "import sys; from perceiver_jax import data; from perceiver_jax.data.fields import image\n"
        "batch = data.prepare([sys.argv[1]], {'image': image.Image(31)})\n"
        "print(batch['image'].shape, *{'jax', 'tensorflow_datasets'} & set(sys.modules))\n"
        "from perceiver_jax.data.builders import isolated; print(len(isolated._KEPT))\n"
    )
    path = pictures / "own/test/cat/wide.jpg"
    command = [sys.executable, "-c", program, str(path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["(1, 31, 31, 3)", "0"]


def test_the_process_of_one_clip_reads_the_next_and_ends_with_the_program(films):
    program = (
        "import sys; from perceiver_jax import data; from perceiver_jax.data.fields import audio\n"
        "fields = {'audio': audio.Audio(13_440)}\n"
        "from perceiver_jax.data.builders import isolated\n"
        "for _ in range(2):\n"
        "    data.prepare([sys.argv[1]], fields)\n"
        "    (pool,) = isolated._KEPT.values()\n"
        "    print(*[x._child.pid for x in pool._processes if x._child])\n"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(films / "own/test/dog/sound.wav")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == second and not done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(first), 0)
