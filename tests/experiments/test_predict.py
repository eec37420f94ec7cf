"""`python -m experiments.predict`: files -> answers."""

import csv
import io
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import PIL.Image
import pyarrow.parquet
import pytest
import soundfile

from experiments import predict, prepare_data
import perceiver_jax
from perceiver_jax import data as data_lib
from perceiver_jax import prediction_arrays, prediction_files, predictions
from perceiver_jax.data import raw, sources
from perceiver_jax.data.fields import audio, image
from perceiver_jax.pretrained import load, write
from perceiver_jax.training import devices, evaluation, steps
from tests import random_runs
from tests.data import media, shape_files
from tests.data.photographs import photograph

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("predict")


def command(*words):
    """Runs the command; returns its exit code."""
    with pytest.raises(SystemExit) as ended:
        predict.main([*map(str, words)])
    return ended.value.code


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_csv(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))


def pixels(path):
    with PIL.Image.open(path) as picture:
        return np.asarray(picture)


def probabilities(record, names):
    """Of a record that has all classes, in the order of `names`."""
    found = {one["class"]: one["probability"] for one in record["label"]}
    return [found[name] for name in names]


# ---------------------------------------------------------------- as in evaluation


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def pictures(folder):
    encoded = {name: photograph(i) for i, name in enumerate("abcdefg")}
    shape_files.write_files(
        folder,
        {f"train/{x}/0.jpg": encoded[x] for x in "abc"}
        | {f"test/{x}/{y}.jpg": encoded[y] for x, y in zip("abca", "defg", strict=True)},
    )
    return "image_folder", "file_name"


def films(folder):
    for i, name in enumerate(("train/a/0.mp4", "train/b/0.wav", "test/a/1.mp4", "test/b/2.wav")):
        path = folder / name
        media.write_clip(path, 0.7 + i / 10, picture=path.suffix == ".mp4", tone=300 * (i + 1))
    return "video_folder", "clip_id"


def clouds(folder):
    rng = np.random.default_rng(0)
    names = [f"{split}/{x}/{i}.npy" for split in ("train", "test") for x in "ab" for i in range(3)]
    files = {name: npy(rng.normal(size=(2_048, 3)).astype(np.float32)) for name in names}
    shape_files.write_files(folder, files)
    return "mesh_folder", "name"


SETS = {
    "pictures": (pictures, {"image": {"kind": "image", "image_size": 7}}, 1),
    "films": (
        films,
        {
            "audio": {"kind": "audio", "num_samples": 3_840},
            "video": {"kind": "video", "num_frames": 2, "image_size": 8},
        },
        3,
    ),
    "clouds": (clouds, {"points": {"kind": "point_cloud", "num_points": 53}}, 2),
}
MODELS = {
    "audio": {"kind": "audio", "patch_size": 64, "position_encoding": random_runs.fourier(60)},
    "image": {
        "kind": "image",
        **random_runs.SCALES,
        "position_encoding": random_runs.fourier(7, 7),
    },
    "points": {"kind": "point_cloud", "position_encoding": random_runs.fourier(9, 9, 9)},
    "video": {
        "kind": "video",
        **random_runs.SCALES,
        "patch_size": (1, 4, 4),
        "position_encoding": random_runs.fourier(2, 2, 2),
    },
    "x": {"kind": "array", "position_encoding": random_runs.fourier(5)},
}


def new_run(fields, names, may_lack=()):
    inputs = {name: MODELS[name] for name in fields if name != "label"}
    return random_runs.make_run(
        fields,
        inputs,
        {"label": {"kind": "mean_pool", "size": len(names)}},
        {"kind": "classification", "target": "label"},
        {"label": names},
        may_lack,
        **({"fusion": {"modality_channels": 2}} if len(inputs) > 1 else {}),
    )


def evaluated(run, batches):
    """What `evaluate` keeps of each example."""
    sharding = devices.build_sharding("pmap")
    evaluate = evaluation.make_evaluate(
        steps.make_eval_step(run.model.apply, run.task), run.task, sharding
    )
    return evaluate(sharding.place_state(run.params), batches).rows


@pytest.mark.parametrize("name", SETS)
def test_files_have_the_probabilities_of_evaluation(name, tmp_path):
    write_files, fields, num_windows = SETS[name]
    kind, called = write_files(tmp_path / "own")
    prepare_data.main([kind, f"--source={tmp_path / 'own'}", f"--data_dir={tmp_path}"])
    data = data_lib.build_data(
        dataset="own",
        data_dir=str(tmp_path),
        train_split="train",
        test_split="test",
        batch_size=4,
        num_workers=0,
        fields=fields | {"label": {"kind": "label"}},
    )
    run = new_run(data.fields, data.class_names("label"), tuple(sorted(data.may_lack)))
    rows = evaluated(run, data.test_batches(batch_size=8, num_windows=num_windows))
    records = sources.TfdsRecords(data.store.open("test", {})[0].directory, "test", (called,))
    names = [records[i][called].decode() for i in range(len(records))]
    paths = [tmp_path / "own" / name for name in names]
    assert len(set(paths)) == len(rows["example_id"]) > 1
    write.write_own(run, tmp_path / "weights")
    flags = [f"--num_windows={num_windows}", "--batch_size=3", f"--output={tmp_path / 'x.jsonl'}"]
    assert command(f"--workdir={tmp_path / 'weights'}", *paths, *flags) == 0
    answers = [
        probabilities(x, data.class_names("label")) for x in read_lines(tmp_path / "x.jsonl")
    ]
    np.testing.assert_allclose(answers, rows["scores"], rtol=0, atol=1e-6)
    assert np.ptp(answers, axis=0).max() > 1e-3  # They differ.


def test_rows_of_arrays_have_the_probabilities_of_evaluation(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(11, 5, 3)).astype(np.float32)}
    labels = np.arange(11) % 3
    data = data_lib.from_arrays(
        arrays, labels, arrays, labels, batch_size=4, class_names=["a", "b", "c"]
    )
    run = new_run(data.fields, ("a", "b", "c"))
    rows = evaluated(run, data.test_batches(batch_size=4, num_windows=1))
    np.save(tmp_path / "rows.npy", arrays["x"])
    write.write_own(run, tmp_path / "weights")
    output = tmp_path / "x.jsonl"
    assert command(f"--workdir={tmp_path / 'weights'}", tmp_path, f"--output={output}") == 0
    answers = [probabilities(x, "abc") for x in read_lines(output)]
    np.testing.assert_allclose(answers, rows["scores"], rtol=0, atol=1e-6)


# ---------------------------------------------------------------- what is written and said


@pytest.fixture
def given(monkeypatch):
    """Has the command load a run that is there already, and so compile nothing twice."""

    def give(run):
        monkeypatch.setattr(load, "load_pretrained", lambda what: run)
        return run

    return give


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Pictures, one of them broken, in the current directory."""
    monkeypatch.chdir(tmp_path)
    files = {f"own/{i}.jpg": photograph(i) for i in range(5)}
    files |= {"own/2.jpg": photograph(2)[:700], "own/notes.txt": b"-", "own/ü.jpg": photograph(5)}
    shape_files.write_files(tmp_path, files)
    return tmp_path


def test_a_broken_file_is_a_line_and_a_code_and_the_others_go_on(given, folder, capfd):
    run = given(random_runs.classifier())
    assert command("--workdir=x", "own", "nowhere.jpg", "--k=2") == 1
    out, err = capfd.readouterr()
    records = [json.loads(line) for line in out.splitlines()]
    assert [x["name"] for x in records] == [
        *(f"own/{i}.jpg" for i in (0, 1, 2, 3, 4)),
        *("own/ü.jpg", "nowhere.jpg"),
    ]
    broken = [x["name"] for x in records if "error" in x]
    assert broken == ["own/2.jpg", "nowhere.jpg"]
    (answer,) = run.predict("own/3.jpg", k=2)
    pairs = [(x["class"], pytest.approx(x["probability"], abs=1e-6)) for x in records[3]["label"]]
    assert pairs == answer["label"]
    said = err.splitlines()
    assert said[0] == "Left out of own, for they are of other kinds: 1 x .txt."
    errors = [line for line in said if line.startswith("Error: ")]
    assert len(errors) == 2 and errors[0].startswith("Error: Can't read own/2.jpg: truncated")
    assert said[-1].startswith("7 examples in ") and "2 without an answer." in said[-1]


def test_all_kinds_of_tables_say_the_same(given, folder):
    given(random_runs.classifier())
    for suffix in ("jsonl", "csv", "parquet"):
        assert command("--workdir=x", "own", f"--output=new/x.{suffix}", "--k=9") == 1
    lines = read_lines(folder / "new/x.jsonl")
    table = read_csv(folder / "new/x.csv")
    typed = pyarrow.parquet.read_table(folder / "new/x.parquet").to_pylist()
    assert sorted(path.name for path in (folder / "new").iterdir()) == [
        *("x.csv", "x.jsonl", "x.parquet")
    ]
    columns = [f"label_{i}{end}" for i in (1, 2, 3) for end in ("", "_probability")]
    assert list(table[0]) == list(typed[0]) == ["name", *columns, "error"]
    for line, cells, row in zip(lines, table, typed, strict=True):
        assert line["name"] == cells["name"] == row["name"]
        expected = [x for one in line.get("label", []) for x in one.values()] or [None] * 6
        assert [row[name] for name in columns] == expected
        assert [cells[name] for name in columns] == [str(x or "") for x in expected]
        assert line.get("error", "") == cells["error"] == (row["error"] or "")


@pytest.mark.parametrize("flags", [[], ["--whole_latents"]])
def test_latents_of_what_could_be_read_are_written(given, folder, flags):
    run = given(random_runs.classifier())
    flags = ["--embeddings=x.npz", "--output=x.jsonl", "--batch_size=2", *flags]
    assert command("--workdir=x", "own", *flags) == 1
    with np.load("x.npz") as saved:
        assert saved["name"].tolist() == [f"own/{x}.jpg" for x in (0, 1, 3, 4, "ü")]
        batch = run.prepare(*saved["name"].tolist())
        expected = run.model.latents(run.params, batch, pooled=len(flags) == 3)
        np.testing.assert_allclose(saved["latents"], expected, rtol=1e-4, atol=1e-5)


def test_flow_goes_to_a_folder_as_numbers_and_as_a_picture(given, tmp_path, monkeypatch):
    run = given(random_runs.flow())
    monkeypatch.chdir(tmp_path)
    shape_files.write_files(tmp_path, {f"{i}.png": photograph(i, (9, 8)) for i in (1, 2, 3)})
    flags = ["--output=x.csv", "--output_dir=flows"]
    assert command("--workdir=x", "1.png", "2.png", "3.png", *flags) == 0
    rows = read_csv(tmp_path / "x.csv")
    assert [row["flow"] for row in rows] == ["flows/000000_1.npy", "flows/000001_2.npy"]
    (answer,) = run.predict(("2.png", "3.png"))
    np.testing.assert_allclose(np.load(rows[1]["flow"]), answer["flow"], rtol=1e-4, atol=1e-5)
    expected = perceiver_jax.flow_picture(np.load(rows[1]["flow"]))
    np.testing.assert_array_equal(pixels("flows/000001_2.png"), expected)
    assert len(list((tmp_path / "flows").iterdir())) == 4


def test_what_a_clip_became_is_a_clip(given, tmp_path, monkeypatch, capfd):
    run = given(random_runs.clips())
    monkeypatch.chdir(tmp_path)
    media.write_clip(tmp_path / "film.mp4", 0.5)
    assert command("--workdir=x", "film.mp4", "--output_dir=films") == 0
    (record,) = map(json.loads, capfd.readouterr().out.splitlines())
    assert record["video"] == record["audio"] == "films/000000_film.mp4"
    assert len(record["label"]) == 3
    (answer,) = run.predict("film.mp4")
    clip = raw.read_clip(pathlib.Path(record["video"]), True, "clip")
    assert len(clip["video"]) == len(answer["video"]) == 2
    assert command("--workdir=x", "film.mp4") == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["video"] is None
    assert "audio, video of each example are files with --output_dir=DIR." in err


def test_arrays_are_files_that_others_open(tmp_path):
    fields = random_runs.clips().fields | {
        "picture": image.Image(5),
        "slow": audio.Audio(96, sample_rate=800),
    }
    rng = np.random.default_rng(0)
    pictures = rng.integers(256, size=(2, 8, 8, 3), dtype=np.uint8)
    arrays = {"picture": pictures[0], "audio": np.array([0.5, -0.25]), "other": pictures}
    paths = prediction_arrays.write(tmp_path, "x", arrays, fields)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("x_audio.wav", "x_other.npy", "x_picture.png")
    ]
    np.testing.assert_array_equal(pixels(paths["picture"]), pictures[0])
    samples, rate = soundfile.read(paths["audio"])
    assert (samples.tolist(), rate) == ([0.5, -0.25], 48_000)
    odd = {"video": pictures, "slow": np.zeros(96)}  # No clip has so few samples a second.
    paths = prediction_arrays.write(tmp_path, "z", odd, fields)
    assert paths == {"video": f"{tmp_path}/z_video.mp4", "slow": f"{tmp_path}/z_slow.wav"}
    grey = prediction_arrays.write(tmp_path, "y", {"picture": pictures[0, :, :, :1]}, fields)
    assert pixels(grey["picture"]).shape == (8, 8)


def test_gaps_are_filled_line_by_line(given, tmp_path, monkeypatch, capfd):
    run = given(random_runs.language())
    lines = "Was is[MASK]? ä\n\nno gaps\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    assert command("--workdir=x", "--lines", "-") == 0
    records = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    (answer,) = run.predict("Was is[MASK]? ä")
    assert records == [{"name": "-:1", **answer}, {"name": "-:3", "text": "no gaps"}]


def test_examples_of_several_inputs_come_from_a_table(given, tmp_path, capfd):
    given(random_runs.clips())
    media.write_clip(tmp_path / "a.wav", 0.5)
    media.write_clip(tmp_path / "b.mp4", 0.5, sound=False)
    table = tmp_path / "x.csv"
    table.write_text("name,audio,video\nboth,a.wav,b.mp4\none,a.wav,\n")
    assert command("--workdir=x", f"--examples={table}", "--k=1") == 1
    records = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(x["name"], "label" in x) for x in records] == [("both", True), ("one", False)]
    assert "Got one without 'video'; expected all" in records[1]["error"]


def test_numbers_have_columns_of_their_own(tmp_path):
    outputs = [prediction_files.Output("box", "numbers", 2)]
    path = tmp_path / "x.csv"
    writer = prediction_files.Writer(None, outputs, table=path)
    writer.write(0, predictions.Predicted("a", {"box": np.array([0.5, 2])}))
    assert path.with_name("x.csv.partial").exists() and not path.exists()
    writer.finish()
    assert path.read_text().splitlines() == ["name,box_0,box_1,error", "a,0.5,2.0,"]


# ---------------------------------------------------------------- ends and refusals


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_predicted_before_an_end_is_kept_and_named(
    error, given, folder, capfd, monkeypatch
):
    given(random_runs.classifier())

    def each(run, examples, **options):
        for i, example in enumerate(examples):
            if i == 3:
                raise error
            answer = {"label": [("a cat", 1.0)]}
            yield predictions.Predicted(example.name, answer, latents=np.zeros(3))

    monkeypatch.setattr(predictions, "predict_each", each)
    with pytest.raises(SystemExit if error is KeyboardInterrupt else error) as ended:
        predict.main(["--workdir=x", "own", "--output=x.jsonl", "--embeddings=x.npz"])
    if error is KeyboardInterrupt:
        assert ended.value.code == 130
    assert not pathlib.Path("x.jsonl").exists()
    assert len(read_lines(pathlib.Path("x.jsonl.partial"))) == 3
    said = "Ended after 3 examples, which are in x.jsonl.partial, x.npz.partial."
    assert said in capfd.readouterr().err


def test_a_reader_that_has_read_enough_ends_the_command_quietly(folder):
    write.write_own(random_runs.classifier(), "weights")
    command = f"{sys.executable} -m experiments.predict --workdir=weights"
    line = f"{command} own/0.jpg own/0.jpg own/0.jpg own/0.jpg --batch_size=1 | true; "
    shell = ["bash", "-c", f"{line} echo ${{PIPESTATUS[0]}}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(shell, capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("141\n", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Got no FILES; expected files"),
        (["a", "--examples=x.csv"], "Got --examples with FILES"),
        (["a", "--whole_latents"], "Got --whole_latents without --embeddings"),
        (["a", "--embeddings=x.npy"], "Got --embeddings=x.npy; expected a name that ends in .npz"),
        (["a", "--overwrite"], "Got --overwrite without --output, --embeddings or --output_dir"),
        (["a", "--part_size=3"], "without --output; expected a table"),
        (["a", "--part_size=0", "--output=x.csv"], "--part_size is 0; expected at least 1"),
        (["a", "--output=own/0.jpg"], "own/0.jpg is there already; expected a new --output"),
        (["a", "--output=own"], "Got --output=own, which is a folder"),
        (["a", "--output_dir=own"], "own is there already; expected a new --output_dir"),
        (["a", "--output_dir=own/0.jpg"], "Got --output_dir=own/0.jpg, which is a file"),
        (["a", "--output=own/0.jpg/x.csv"], "own/0.jpg can't be written"),
        (["a", "--output=x.txt"], "Got --output=x.txt; expected a name that ends in one of .jsonl"),
        (["a", "--output_dir=new"], r"gives ['label'], which are in the table"),
        (["a", "--num_windows=2"], "num_windows is 2, but none of the inputs ['image']"),
        (["a", "--up=q"], "Unknown axis in up 'q'"),
        (["a", "--up=z"], "Got --up for a model that reads ['image'], which are no points"),
        (["a", "--lines"], "Got --lines for a model that reads ['image']"),
        (["nosuch/"], "Error: Can't read nosuch/: no such file or folder. Correct it, or leave it"),
        (["empty"], "There is nothing to predict; expected at least one file"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(words, message, given, folder, capfd):
    given(random_runs.classifier())
    pathlib.Path("empty").mkdir()
    assert command("--workdir=x", *words) == (1 if words == ["nosuch/"] else 2)
    assert message in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--output=x.csv", "of which ['flow'] have no place in a table"),
        ("--k=3", "Got --k for a model that gives ['flow'], which are no classes"),
        ("--batch_size=3", "Got --batch_size for frames of any size, whose tiles"),
        ("--embeddings=x.npz", "latents is 'pooled', but frames of any size"),
    ],
)
def test_what_flow_has_no_use_for_is_refused(flag, message, given, capfd):
    given(random_runs.flow())
    assert command("--workdir=x", "a.png", "b.png", flag) == 2
    assert message in capfd.readouterr().err


def test_a_terminal_gets_a_table_without_what_could_change_it(given, folder, capfd, monkeypatch):
    given(random_runs.classifier())
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # Rich's own.
    monkeypatch.setenv("COLUMNS", "70")
    os.rename("own/4.jpg", "own/\x1b[31m\n.jpg")
    assert command("--workdir=x", "own", "--k=1") == 1
    out = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capfd.readouterr().out)
    lines = [line.split() for line in out.splitlines() if ".jpg" in line or "label" in line]
    names = ["name", *(f"own/{x}.jpg" for x in (r"\x1b[31m\n", 0, 1, 3, "ü"))]
    assert [line[0] for line in lines if line[0] != "Error:"] == names
    assert all(len(line) == 4 for line in lines[1:])  # A name, 'a cat' and a number.
