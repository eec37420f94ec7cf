"""`python -m experiments.predict` in parts: resumed, nothing twice, here and with Apache Beam."""

import dataclasses
import json
import os
import pathlib
import re
import sys

import numpy as np
import pytest

from experiments import predict
from perceiver_jax import config, prediction_files, prediction_shards, predictions
from perceiver_jax.data import raw
from perceiver_jax.pretrained import load, write
from tests import random_runs
from tests.data import shape_files
from tests.data.photographs import photograph

pytestmark = pytest.mark.xdist_group("predict")
COMMAND = ("own", "--output=x.jsonl", "--embeddings=x.npz", "--part_size=3", "--k=2")


def command(*words):
    with pytest.raises(SystemExit) as ended:
        predict.main(["--workdir=weights", *words])
    return ended.value.code


def read_parts(suffix="jsonl"):
    paths = sorted(pathlib.Path().glob(f"x-?????-of-?????.{suffix}"))
    if suffix == "npz":
        return [name for path in paths for name in np.load(path)["name"].tolist()]
    return [json.loads(x) for path in paths for x in path.read_text().splitlines()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Eight pictures, one of them broken, and a model, in the current directory."""
    monkeypatch.chdir(tmp_path)
    files = {f"own/{i}.jpg": photograph(i) for i in range(8)}
    shape_files.write_files(tmp_path, files | {"own/4.jpg": b"-"})
    write.write_own(random_runs.classifier(), "weights")
    run = random_runs.classifier()  # Is compiled already.
    monkeypatch.setattr(load, "load_pretrained", lambda what: run)
    yield tmp_path
    prediction_shards._loaded.cache_clear()
    prediction_shards._checksum.cache_clear()


@pytest.fixture
def predicted(monkeypatch):
    """Names of the examples that were predicted; the command ends when there are so many."""
    names, most = [], [99]

    def each(run, examples, **options):
        for one in predict_each(run, examples, **options):
            if len(names) == most[0]:
                raise KeyboardInterrupt
            names.append(one.name)
            yield one

    predict_each = predictions.predict_each
    monkeypatch.setattr(predictions, "predict_each", each)
    return names, most


def test_parts_have_what_one_table_has(folder, capfd):
    assert command(*COMMAND) == 1
    said = capfd.readouterr().err
    assert "3 parts, 0 are done already" in said
    assert (
        "8 examples. 1 without an answer. They are in x-00000-of-00003.jsonl to x-00002-of" in said
    )
    assert "Error: Can't read own/4.jpg: " in said
    assert command("own", "--output=whole.jsonl", "--k=2") == 1
    lines = pathlib.Path("whole.jsonl").read_text().splitlines()
    for part, line in zip(read_parts(), map(json.loads, lines), strict=True):
        assert part["name"] == line["name"] and part.get("error") == line.get("error")
        for one, other in zip(part.get("label", []), line.get("label", []), strict=True):
            assert one == {**other, "probability": pytest.approx(other["probability"], abs=1e-6)}
    assert read_parts("npz") == [f"own/{i}.jpg" for i in (0, 1, 2, 3, 5, 6, 7)]


def test_a_command_that_was_interrupted_makes_what_is_missing_and_nothing_twice(
    folder, predicted, capfd
):
    names, most = predicted
    most[0] = 5
    assert command(*COMMAND) == 130
    assert "Interrupted; give the same command again" in capfd.readouterr().err
    left = {path.name for path in pathlib.Path().iterdir()}
    assert left == {
        *("own", "weights", "x.parts", "x-00000-of-00003.jsonl", "x-00000-of-00003.npz"),
    }
    names.clear()
    most[0] = 99
    unfinished = pathlib.Path(f"x-00001-of-00003.jsonl.{32 * 'a'}")
    unfinished.write_text("of a worker that was killed")
    assert command(*COMMAND) == 1
    assert not unfinished.exists()
    assert names == [f"own/{i}.jpg" for i in range(3, 8)]  # Not those of the first part.
    assert "3 parts, 1 are done already" in capfd.readouterr().err
    assert [x["name"] for x in read_parts()] == [f"own/{i}.jpg" for i in range(8)]
    names.clear()
    assert command(*COMMAND) == 1 and not names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: COMMAND + ("--k=1",), r": --k was 2\. Choose another"),
        (lambda: COMMAND + ("--part_size=2",), r": --part_size was 3\. Choose another"),
        (lambda: COMMAND + ("--embeddings=y.npz",), r": --embeddings was /\S*/x\.npz\. Choose"),
        (lambda: COMMAND + ("--whole_latents",), r": --whole_latents was not given\. Choose"),
        (lambda: COMMAND + ("weights/config.json",), "other files, or .* from number 6"),
        (lambda: ("own/0.jpg", *COMMAND[1:]), "other files, or some that .* from number 0"),
        (lambda: ("own/[0-5].jpg", *COMMAND[1:]), "there were 3 parts, there are 2"),
        (lambda: os.utime("own/7.jpg", (1, 1)) or COMMAND, "or some that have changed, from numb"),
    ],
)
def test_a_plan_of_something_else_is_refused_until_it_may_be_overwritten(
    change, message, folder, capfd
):
    assert command(*COMMAND) == 1
    changed = change()
    assert command(*changed) == 2
    assert (folder / "x.parts").exists()
    (line,) = [x for x in capfd.readouterr().err.splitlines() if "is the plan of" in x]
    assert re.search(message, line)
    assert command(*changed, "--overwrite") in (0, 1)


def test_a_damaged_plan_is_refused_until_it_may_be_overwritten(folder, capfd):
    assert command(*COMMAND) == 1
    pathlib.Path("x.parts/job.json").write_text("{")
    assert command(*COMMAND) == 2
    assert "x.parts/job.json is damaged" in capfd.readouterr().err
    assert command(*COMMAND, "--overwrite") == 1


def test_what_is_not_said_to_be_done_whole_and_by_this_plan_is_made(folder, predicted):
    names, _ = predicted
    assert command(*COMMAND) == 1
    names.clear()
    pathlib.Path("x.parts/00002.done").write_text("")
    assert command(*COMMAND) == 1
    assert names == ["own/6.jpg", "own/7.jpg"]
    names.clear()
    pathlib.Path("x.parts/job.json").unlink()
    assert command(*COMMAND) == 1
    assert len(names) == 8


@pytest.mark.parametrize("suffix", ["jsonl", "npz"])
def test_a_part_whose_files_are_gone_is_made_anew(folder, predicted, suffix, capfd):
    names, _ = predicted
    assert command(*COMMAND) == 1
    names.clear()
    pathlib.Path(f"x-00002-of-00003.{suffix}").unlink()
    assert command(*COMMAND) == 1
    assert names == ["own/6.jpg", "own/7.jpg"]
    assert "3 parts, 2 are done already" in capfd.readouterr().err
    assert len(read_parts(suffix)) == (8 if suffix == "jsonl" else 7)


def test_a_plan_keeps_all_kinds_of_examples(folder):
    path = folder / "own/0.jpg"
    values = [
        *(path, raw.Row(path, 3), (path, path), {"image": path, "text": "ä", "x": [1, 2]}),
        *("text \udcff", config.UserError("nothing there")),
    ]
    for value in values:
        example = prediction_shards.inference.Example("x", value)
        saved = json.loads(json.dumps(prediction_shards._described(example)))
        found = prediction_shards._example(saved).value
        assert (str(found) if isinstance(value, Exception) else found) == (
            str(value) if isinstance(value, Exception) else value
        )


def test_a_part_whose_arrays_are_gone_is_made_again(folder, monkeypatch):
    monkeypatch.setattr(load, "load_pretrained", lambda what: random_runs.flow())
    shape_files.write_files(folder, {f"{i}.png": photograph(i, (9, 8)) for i in range(3)})
    words = ("0.png", "1.png", "2.png", "--output=x.jsonl", "--output_dir=flows", "--part_size=1")
    assert command(*words) == 0
    kept, gone = pathlib.Path("flows/000000_0.npy"), pathlib.Path("flows/000001_1.npy")
    before, of_gone = kept.stat().st_mtime_ns, np.load(gone)
    gone.unlink()
    assert command(*words) == 0
    np.testing.assert_array_equal(np.load(gone), of_gone)
    assert kept.stat().st_mtime_ns == before


def test_a_worker_with_another_model_is_refused(folder, monkeypatch):
    assert command(*COMMAND) == 1
    pathlib.Path("x.parts/00001.done").unlink()
    monkeypatch.setattr(load, "load_pretrained", lambda what: random_runs.language())
    with pytest.raises(config.UserError, match="--workdir holds is another model on this machine"):
        prediction_shards.make("x.parts", 1)


def test_what_a_worker_did_not_leave_is_named(folder):
    assert command(*COMMAND) == 1
    pathlib.Path("x.parts/00001.done").unlink()
    found = json.loads(pathlib.Path("x.parts/job.json").read_text())
    job = prediction_shards.Job(**found["job"])
    assert prediction_shards.missing(job, 3) == [1]
    with pytest.raises(config.UserError, match="workers left no part 1 in .*shared file system"):
        list(prediction_shards.done(job, 3))


@pytest.mark.filterwarnings("default")  # Beam's own.
def test_beam_makes_the_same_parts_once(folder, predicted, capfd):
    pytest.importorskip("apache_beam")
    names, _ = predicted
    flag = "--beam_pipeline_options=runner=FnApiRunner"
    assert command(*COMMAND, flag) == 1
    assert sorted(names) == [f"own/{i}.jpg" for i in range(8)]
    assert [x["name"] for x in read_parts()] == [f"own/{i}.jpg" for i in range(8)]
    pathlib.Path("x.parts/00001.done").unlink()
    names.clear()
    assert command(*COMMAND, flag) == 1
    assert sorted(names) == [f"own/{i}.jpg" for i in range(3, 6)]
    assert "3 parts, 2 are done already" in capfd.readouterr().err


def test_beam_that_is_not_installed_is_named(folder, monkeypatch, capfd):
    for name in ("apache_beam", "apache_beam.options"):
        monkeypatch.setitem(sys.modules, name, None)
    assert command(*COMMAND, "--beam_pipeline_options=runner=DirectRunner") == 2
    assert "pip install perceiver-haiku[beam]" in capfd.readouterr().err


def test_what_the_config_of_weights_says_of_evaluation_is_checked(folder, capfd, monkeypatch):
    run = random_runs.classifier()
    config = run.config.copy_and_resolve_references()
    config.eval = {"num_windows": "x", "batch_size": 3}
    changed = dataclasses.replace(run, config=config)
    monkeypatch.setattr(load, "load_pretrained", lambda what: changed)
    assert command("own") == 2
    assert "config.eval.num_windows is 'x'; expected a whole number" in capfd.readouterr().err


def test_an_output_called_as_a_column_is_refused():
    classifier = random_runs.classifier()
    changed = type("Run", (), {"__getattr__": lambda self, name: getattr(classifier, name)})()
    changed.task = type("Task", (), {"predict": lambda self, x: {"error": x["label"]}})()
    with pytest.raises(config.UserError, match="An output is called 'error'"):
        prediction_files.outputs_of(changed, 3)
