"""A run from Python: trained, evaluated, and used where nothing but its workdir is there."""

import json
import logging
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile

import jax
import numpy as np
import PIL.Image
import pytest

from experiments import prepare_data
import perceiver_jax
from perceiver_jax import config as config_lib
from perceiver_jax import data as data_lib
from perceiver_jax import runs
from perceiver_jax import workdir as workdir_lib
from perceiver_jax.data.fields import array, label
from tests.experiments import tiny

ROOT = pathlib.Path(__file__).parents[1]
IMAGENET = str(ROOT / "experiments/configs/imagenet.py:mini")
pytestmark = pytest.mark.xdist_group("train")
TINY = dict(flag.removeprefix("--config.").split("=") for flag in tiny.MODEL) | {
    "data.dataset": "pets",
    "eval.batch_size": 4,
    "train.ema_decay": 0.5,
    "train.parallelism": "fsdp",
    "train.steps": 4,
    "train.eval_every": 0,
    "train.checkpoint_every": 2,
    "optimizer.schedule.warmup_steps": 1,
}


class Pets:
    """A data set of a folder of pictures, and a run on it."""

    def __init__(self, folder, capture):
        rng = np.random.default_rng(0)
        for i, name in enumerate(["train"] * 12 + ["test"] * 6):
            place = folder / "pets" / name / ("cat" if i % 2 else "dog") / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(rng.integers(256, size=(28, 28), dtype=np.uint8)).save(place)
        self.data_dir, self.workdir = folder / "data", folder / "runs" / "pets"
        prepare_data.main(
            ["image_folder", f"--source={folder / 'pets'}", f"--data_dir={self.data_dir}"]
        )
        config = perceiver_jax.load_config(IMAGENET, TINY | {"data.data_dir": str(self.data_dir)})
        self.trained = perceiver_jax.train(config, str(self.workdir), quiet=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runs, "_print_results", lambda console, result, task: capture(result))
            self.evaluated = perceiver_jax.evaluate(str(self.workdir), quiet=True)
        data = data_lib.build_data(**config.data)
        self.batch = next(data.test_batches(batch_size=6, num_windows=1))
        self.data_dir.rename(folder / "elsewhere")


@pytest.fixture(scope="module")
def results():
    return []


@pytest.fixture(scope="module")
def pets(tmp_path_factory, results):
    return Pets(tmp_path_factory.mktemp("pets"), results.append)


@pytest.fixture(scope="module")
def run(pets):
    return perceiver_jax.load_run(pets.workdir)


def test_a_loaded_run_gives_the_probabilities_of_the_evaluation(pets, results, run):
    rows = results[0].rows
    probabilities = np.asarray(jax.nn.softmax(run(pets.batch)["label"]))
    np.testing.assert_array_equal(rows["example_id"], pets.batch["example_id"])
    np.testing.assert_allclose(probabilities, rows["scores"], atol=1e-6)


def test_evaluation_gives_what_training_returned(pets):
    assert pets.evaluated == pytest.approx(
        {name: pets.trained[name] for name in pets.evaluated}, rel=1e-6
    )


def test_a_run_says_what_it_is(pets, run):
    assert (run.step, run.workdir, run.config.data.dataset) == (4, pets.workdir, "pets")
    assert repr(run) == f"Run('{pets.workdir}', step=4)"
    assert run.class_names == {"label": ("cat", "dog")}
    assert (run.task.outputs, run.may_lack) == ({"label": 2}, ())
    assert run.fields["label"] == label.Label(2, multi_label=False)
    assert run.fields["image"].image_size == 28 and run.fields["image"].upright


def test_a_step_can_be_chosen(pets, run):
    earlier = perceiver_jax.load_run(pets.workdir, step=2)
    assert earlier.step == 2
    changed = jax.tree.map(lambda x, y: bool((x != y).any()), earlier.params, run.params)
    assert any(jax.tree.leaves(changed))


def test_an_input_that_is_masked_is_not_read(pets, run):
    image, there = pets.batch["image"], np.arange(6) % 2 > 0
    outputs = [
        np.asarray(run({"image": x, "image_mask": there})["label"]) for x in (image, 255 - image)
    ]
    same = (outputs[0] == outputs[1]).all(axis=1)
    np.testing.assert_array_equal(same, ~there)


def test_files_are_prepared_as_those_of_the_test_split_were(pets, run):
    files = sorted((pets.workdir.parents[1] / "pets/test").rglob("*.png"))
    prepared = run.prepare(*files, files[0].read_bytes())
    assert prepared["image"].shape == (7, 28, 28, 1)
    stored = {image.tobytes() for image in pets.batch["image"]}
    assert {image.tobytes() for image in prepared["image"]} == stored
    assert run(prepared)["label"].shape == (7, 2)


def test_a_run_is_compiled_once_whatever_else_a_batch_has(pets):
    run = perceiver_jax.load_run(pets.workdir)
    for more in ({}, {"file": "of another kind"}):
        run(pets.batch | more)
    assert run._apply._cache_size() == 1


PROGRAM = f"""
import importlib.util, sys
sys.path = [x for x in sys.path if x != {str(ROOT)!r}]  # As if installed.
import numpy as np
import perceiver_jax
run = perceiver_jax.load_run(sys.argv[1])
outputs = run(dict(np.load(sys.argv[2])))
np.save(sys.argv[3], outputs["label"])
print(importlib.util.find_spec("experiments"))
"""


def test_a_run_is_used_elsewhere_with_nothing_but_the_package(pets, run, tmp_path):
    shutil.copytree(pets.workdir, tmp_path / "a run")
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "perceiver_jax").symlink_to(ROOT / "perceiver_jax")
    np.savez(tmp_path / "batch.npz", image=pets.batch["image"])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "a run", "batch.npz", "logits.npy"],
        cwd=tmp_path,
        env={"PYTHONPATH": "packages", "JAX_PLATFORMS": "cpu", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout == "None\n", done.stderr
    logits = np.load(tmp_path / "logits.npy")
    np.testing.assert_allclose(logits, run(pets.batch)["label"], atol=1e-5)


def _edit(path, **changes):
    values = json.loads(path.read_text())
    path.write_text(json.dumps({key: x for key, x in (values | changes).items() if x is not None}))


def _shrink(workdir):
    config = json.loads((workdir / "config.json").read_text())
    config["model"]["encoder"]["latent_channels"] = 16
    (workdir / "config.json").write_text(json.dumps(config))


DAMAGES = {
    "no config": (lambda x: (x / "config.json").unlink(), "There is no .*config.json"),
    "half a config": (
        lambda x: (x / "config.json").write_text((x / "config.json").read_text()[:900]),
        "config.json is damaged: JSONDecodeError",
    ),
    "half of the data": (
        lambda x: (x / "data.json").write_text((x / "data.json").read_text()[:300]),
        "data.json is damaged: JSONDecodeError.* delete it",
    ),
    "fields of nothing": (
        lambda x: _edit(x / "data.json", fields=["image"]),
        "data.json is damaged: AttributeError",
    ),
    "a field of no kind": (
        lambda x: _edit(x / "data.json", fields={"image": {"kind": "picture"}}),
        "Unknown .*data.json: fields.image.kind 'picture'; expected one of",
    ),
    "data of another run": (
        lambda x: _edit(
            x / "data.json", fields={"label": {"kind": "number", "size": 2}}, class_names={}
        ),
        "does not say how .'image'. of config.model.inputs are read",
    ),
    "no checkpoints": (
        lambda x: shutil.rmtree(x / "checkpoints"),
        "There is no checkpoint in .*run/checkpoints yet; expected at least one, which training sa",
    ),
    "no checkpoint": (
        lambda x: [shutil.rmtree(place) for place in (x / "checkpoints").iterdir()],
        "There is no checkpoint in .*run/checkpoints yet; expected at least one",
    ),
    "checkpoints of nothing": (
        lambda x: [shutil.rmtree(place) for place in x.glob("checkpoints/*/state")],
        "All checkpoints in .* are damaged: step 4: .*; step 2: ",
    ),
    "another model": (
        _shrink,
        r"another model or optimizer: ema_params/decoder/logits/w is float32\[24, 2\]",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_what_is_missing_or_damaged_is_told_in_one_line(pets, tmp_path, damage, message):
    shutil.copytree(pets.workdir, tmp_path / "run")
    damage(tmp_path / "run")
    for load in (perceiver_jax.load_run, perceiver_jax.load_pretrained):
        with pytest.raises(config_lib.UserError, match=message) as error:
            load(tmp_path / "run")
        assert "\n" not in str(error.value)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_loaded(pets, tmp_path, caplog):
    shutil.copytree(pets.workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/4/state")
    assert perceiver_jax.load_run(tmp_path / "run").step == 2
    assert "the checkpoint of step 4 is damaged" in caplog.text


@pytest.fixture
def earlier(pets, tmp_path):
    """The run as an earlier version would have kept it."""
    shutil.copytree(pets.workdir, tmp_path / "run")
    _edit(tmp_path / "run/data.json", fields=None, class_names=None, may_lack=None)
    return tmp_path / "run"


def test_a_run_of_an_earlier_version_is_read_as_its_data_set_says(pets, run, earlier):
    (pets.data_dir).symlink_to(pets.data_dir.parent / "elsewhere")
    try:
        loaded = perceiver_jax.load_run(earlier)
    finally:
        pets.data_dir.unlink()
    assert loaded.fields == run.fields
    assert (loaded.class_names, loaded.may_lack) == (run.class_names, run.may_lack)


def test_a_run_of_an_earlier_version_without_its_data_set_is_refused(earlier):
    with pytest.raises(config_lib.UserError, match="'pets'.* Or train it once more where") as error:
        perceiver_jax.load_run(earlier)
    assert "\n" not in str(error.value)


def test_a_run_of_an_earlier_version_on_a_set_that_is_known_needs_no_data(earlier):
    config = workdir_lib.read(earlier)
    config.data.update(dataset="imagenet2012", data_dir="/nowhere")
    config.model.outputs.label.size = 1000
    (earlier / "data.json").unlink()
    fields, class_names, _ = workdir_lib.read_description(earlier, config)
    assert fields["label"] == label.Label(1000, multi_label=False)
    assert not fields["image"].upright
    assert class_names["label"][:2] == ("0", "1") and len(class_names["label"]) == 1000


def test_a_run_of_the_first_version_on_arrays_loads(tmp_path):
    with tarfile.open(ROOT / "tests/golden/run.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    run = perceiver_jax.load_run(tmp_path)
    assert (run.step, run.class_names) == (4, {"label": ("0", "1", "2")})
    assert run.fields == {
        "audio": array.Array("audio", (256,), np.dtype("float32")),
        "label": label.Label(3, multi_label=False),
        "video": array.Array("video", (4, 8, 8, 3), np.dtype("uint8")),
    }
    batch = {name: field.zeros()[None] for name, field in run.fields.items()}
    logits = np.asarray(run(batch)["label"])
    assert logits.shape == (1, 3) and np.isfinite(logits).all()


def test_nothing_global_is_changed_and_nothing_printed_if_asked_so(pets, tmp_path, capsys):
    shutil.copytree(pets.workdir, tmp_path / "run")
    (pets.data_dir).symlink_to(pets.data_dir.parent / "elsewhere")
    before = _global_state()
    capsys.readouterr()
    try:
        again = perceiver_jax.train(workdir_lib.read(pets.workdir), tmp_path / "run", quiet=True)
    finally:
        pets.data_dir.unlink()
    assert again == pytest.approx(pets.trained)
    assert capsys.readouterr() == ("", "")
    assert _global_state() == before


def _global_state():
    numbers = (signal.SIGINT, signal.SIGTERM)
    return [signal.getsignal(x) for x in numbers], logging.getLogger("absl").level


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"seed": 0, "train": {"steps": 3}}, "The config has no experiment and no data and no mod"),
        (perceiver_jax.load_config(IMAGENET, {"train.parallelism": "none"}), "parallelism 'none'"),
    ],
)
def test_mistakes_are_user_errors_and_nothing_is_written(config, message, tmp_path):
    with pytest.raises(config_lib.UserError, match=message):
        perceiver_jax.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_keys_are_set_to_values_as_well_as_to_their_texts():
    keys = {"train.steps": 7, "optimizer.learning_rate": 1, "data.fields.image.flip": "true"}
    config = perceiver_jax.load_config(IMAGENET, keys)
    assert (config.train.steps, config.optimizer.learning_rate) == (7, 1.0)
    assert config.data.fields.image.flip is True
    with pytest.raises(config_lib.UserError, match="steps=7.5 is not possible: got float 7.5"):
        perceiver_jax.load_config(IMAGENET, {"train.steps": 7.5})
