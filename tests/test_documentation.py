"""Examples of the pages are run as they are written there."""

import json
import pathlib
import re
import runpy
import shlex
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

import perceiver_jax
from perceiver_jax import data, runs, tasks
from perceiver_jax.data.builders import mnist5k
from perceiver_jax.data.fields import number
from perceiver_jax.training import task as task_lib
from perceiver_jax.training import writers
from tests.data import media

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
MODALITY, TASK, NOTEBOOK, STREAMING, LOOK = (
    DOCS / f"{x}.md" for x in ("new_modality", "new_task", "notebook", "streaming", "look_inside")
)
FINETUNING, OWN_DATA = DOCS / "finetuning.md", DOCS / "your_own_data.md"
FILE = re.compile(r"^`(\S+\.py)`:\n\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^```python\n    \"(\w+)\": (\w+)\.(\w+),\n```", re.MULTILINE)
# Fewer steps, and weights that compile sooner, than the page has.
QUICK = (
    "--config.train.steps=60",
    "--config.train.log_every=60",
    "--config.train.eval_every=60",
    "--config.train.checkpoint_every=60",
    "--config.model.encoder.layers=('cross_attend_0','latent_transformer_0')",
)
pytestmark = pytest.mark.xdist_group("documentation")


def files(page):
    """The page's files by path."""
    return dict(FILE.findall(page.read_text()))


@pytest.fixture
def install(monkeypatch):
    """Does to the package what a page says: its files, and a line in each of some tables."""

    def install(page, tables):
        lines = LINE.findall(page.read_text())
        assert len(lines) == len(tables)
        for (key, module_name, member), (folder, table) in zip(lines, tables.items(), strict=True):
            name = f"perceiver_jax.{folder.replace('/', '.')}.{module_name}"
            module = types.ModuleType(name)
            monkeypatch.setitem(sys.modules, name, module)  # Dataclasses look themselves up.
            source = files(page)[f"perceiver_jax/{folder}/{module_name}.py"]
            exec(compile(source, name, "exec"), module.__dict__)
            monkeypatch.setitem(table, key, getattr(module, member))

    return install


def test_the_new_modality_learns(install, tmp_path):
    pytest.importorskip("sktime", reason="has the data of the example")
    from experiments import train
    from perceiver_jax import inputs
    from perceiver_jax.data import fields

    install(MODALITY, {"data/fields": fields.FIELDS, "inputs": inputs.INPUTS})
    for path, source in files(MODALITY).items():
        (tmp_path / pathlib.Path(path).name).write_text(source)
    runpy.run_path(str(tmp_path / "prepare_basic_motions.py"))
    config, workdir = tmp_path / "basic_motions.py", tmp_path / "run"
    train.main([f"--config={config}", f"--workdir={workdir}", *QUICK])
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    (top1,) = [line["top1"] for line in lines if line["split"] == "test"]
    assert top1 > 0.6  # A quarter is chance.


def test_the_series_of_the_page_are_learned(tmp_path, monkeypatch):
    pytest.importorskip("sktime", reason="has the data of the example")
    (program,) = (x for x in CODE.findall(OWN_DATA.read_text()) if "for_arrays" in x)
    before = "workdir = "
    assert program.count(before) == 1
    quick = {
        "model.encoder.layers": ("cross_attend_0", "latent_transformer_0"),
        "model.encoder.num_self_attends": 1,
        "train.steps": 100,
        "train.eval_every": 100,
        "train.checkpoint_every": 100,
        "train.ema_decay": 0.9,
        "optimizer.schedule.warmup_steps": 10,
    }
    program = program.replace(before, f"config.update_from_flattened_dict({quick})\n{before}")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(program, "your_own_data.md", "exec"), names)
    (*_, last) = writers.read_metrics(names["workdir"])
    assert last["top1"] > 0.7  # A quarter is chance.


def test_the_regression_on_own_arrays_is_short_and_learns(tmp_path, monkeypatch):
    (program,) = (x for x in CODE.findall(TASK.read_text()) if "runs/diabetes" in x)
    assert len(program.splitlines()) < 40
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(program, "new_task.md", "exec"), names)
    (*_, last) = writers.read_metrics(names["workdir"])
    assert last["R2"] > 0.3 and 30 < last["MAE"] < 60  # Always the mean gives 0 and 66.
    assert (names["workdir"] / "predictions.png").stat().st_size > 10_000


def test_the_cells_of_a_notebook_run_one_after_another(tmp_path, monkeypatch):
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    names, long = {}, '{"train.steps": 30, '
    quick = (
        "{'model.encoder.layers': ('cross_attend_0', 'latent_transformer_0'), 'train.steps': 6, "
    )
    page = NOTEBOOK.read_text()
    assert long in page
    for cell in CODE.findall(page.replace(long, quick)):
        exec(compile(cell, "notebook.md", "exec"), names)
    assert names["metrics"]["top1"] > 0.8  # A tenth is chance.
    right = names["probabilities"].argmax(axis=1) == names["labels"][1500:1502]
    assert right.all()
    assert len(names["run"].class_names["label"]) == 11
    assert (tmp_path / "runs/digits/confusion.png").exists()


def test_the_task_of_ones_own_gives_its_loss_and_metrics(install):
    install(TASK, {"tasks": tasks.TASKS})
    task = tasks.build_task({"kind": "counts", "target": "n"}, {"n": number.Number(2)})
    outputs = {"n": jnp.log(jnp.array([[1.0, 3.0], [5.0, 7.0]]))}
    rows = task.rows(outputs, {"n": jnp.array([[2.0, 3.0], [5.0, 4.0]])})
    np.testing.assert_allclose(rows["loss"][0], (1 + 3 - 3 * np.log(3)) / 2, rtol=1e-6)
    assert task.metrics(jax.tree.map(np.asarray, rows))["MAE"] == pytest.approx(1.0)
    assert isinstance(task, task_lib.Task)


def new_run(recipe, dataset):
    """A run of a smaller model that was not trained, as `load_run` gives it."""
    small = {"num_latents": 3, "latent_channels": 16, "num_self_attends": 1}
    keys = {f"model.encoder.{key}": x for key, x in small.items()} | {"data.dataset": dataset}
    config = perceiver_jax.load_config(f"{ROOT}/experiments/configs/{recipe}", keys)
    built = data.build_data(**config.data)
    model = perceiver_jax.build_model(config.model)
    shapes = jax.eval_shape(model.init, jax.random.key(0), built.zero_batch())
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.array(rng.normal(0, 0.05, x.shape), jnp.float32), shapes)
    task = tasks.build_task(config.task, built.fields)
    names = {"label": built.class_names("label")}
    return runs.Run(
        pathlib.Path("nowhere"), 0, config, model, params, task, built.fields, names, ()
    )


def test_a_prediction_is_printed_after_every_part_of_a_film(tmp_path, monkeypatch, capsys):
    run = new_run("audioset.py:mini,unrolled", "atari_clips/tiny")
    monkeypatch.setattr(perceiver_jax, "load_run", lambda path: run)
    monkeypatch.chdir(tmp_path)
    media.write_clip(tmp_path / "film.mp4", 2.0)
    (cell,) = CODE.findall(STREAMING.read_text())
    exec(compile(cell, "streaming.md", "exec"), {})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["0.64", "1.28", "1.92"]
    assert all(line[2] in run.class_names["label"] for line in lines)


def test_the_picture_of_the_page_on_attention_is_drawn(tmp_path, monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    run = new_run("imagenet.py:mini", "mnist5k")
    monkeypatch.setattr(perceiver_jax, "load_run", {"runs/imagenet_mini": run}.__getitem__)
    monkeypatch.chdir(tmp_path)
    PIL.Image.fromarray(mnist5k.images("test")[0]).save("my_digit.png")
    (cell,) = CODE.findall(LOOK.read_text())
    names = {}
    exec(compile(cell, "look_inside.md", "exec"), names)
    plt.close("all")
    assert (tmp_path / "attention.png").stat().st_size > 10_000
    weights = names["second"]["image"]["weights"]
    assert weights.shape == (1, 1, 3, 28, 28)
    np.testing.assert_allclose(np.sum(weights, axis=(3, 4)), 1, atol=1e-5)


SMALL = {
    "model.encoder.layers": ("cross_attend_0", "latent_transformer_0"),
    "model.encoder.num_latents": 3,
    "model.encoder.latent_channels": 16,
    "model.encoder.num_self_attends": 1,
    "optimizer.schedule.warmup_steps": 1,
    "eval.batch_size": 20,
}


def test_digits_are_fine_tuned_as_the_page_says(tmp_path, monkeypatch, capsys):
    from experiments import prepare_data, train

    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path / "data"))
    page = FINETUNING.read_text()
    for long, short in (
        ("steps=3000", "steps=2"),
        ("steps=400", "steps=2"),
        ("batch_size=25", "batch_size=24"),  # For four devices.
        ('"train.steps": 400', '"train.steps": 2, **SMALL'),
        ('split = "test" if', 'if i % 500 > 20: continue\n    split = "test" if'),
    ):
        assert long in page
        page = page.replace(long, short)
    names = {"SMALL": SMALL}
    first, last = CODE.findall(page)
    exec(compile(first, "finetuning.md", "exec"), names)
    small = [f"--config.{key}={x}" for key, x in SMALL.items()]
    for line in "".join(SHELL.findall(CODE.sub("", page))).replace("\\\n", "").splitlines():
        words = shlex.split(line)
        if words[:3] == ["python", "-m", "experiments.prepare_data"]:
            prepare_data.main(words[3:])
        elif words[:3] == ["python", "-m", "experiments.train"] and "finetune.py" in line:
            perceiver_jax.load_config(words[3].removeprefix("--config="))
        elif words[:3] == ["python", "-m", "experiments.train"]:
            train.main([*words[3:], *small])
    exec(compile(last, "finetuning.md", "exec"), names)
    printed = capsys.readouterr().out
    assert printed.count("at random, excluded: decoder/logits/b, decoder/logits/w") == 2
    said = [
        json.loads((tmp_path / f"runs/{x}/init.json").read_text()) for x in ("new_digits", "frozen")
    ]
    assert all(record["source"] == "runs/old_digits (step 2)" for record in said)
