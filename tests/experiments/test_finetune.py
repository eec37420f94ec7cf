"""A run that starts from another one: what it takes, what stays as it was, and how it resumes."""

import contextlib
import dataclasses
import io
import json
import re
import shutil
import types

import jax
import ml_collections
import numpy as np
import pytest

from experiments.configs import finetune
import perceiver_jax
from perceiver_jax import config as config_lib
from perceiver_jax import data as data_lib
from perceiver_jax import transfer
from perceiver_jax.pretrained import configs, write
from tests.experiments import tiny

IMAGENET = "experiments/configs/imagenet.py:mini"
pytestmark = pytest.mark.xdist_group("train")
FLAGS = dict(flag.removeprefix("--config.").split("=") for flag in (*tiny.MODEL, *tiny.DIGITS)) | {
    "eval.batch_size": 4,
    "train.steps": 3,
    "train.eval_every": 0,
    "train.checkpoint_every": 1,
    "optimizer.schedule.warmup_steps": 1,
}
FROZEN = {"optimizer.frozen": ("encoder/*",), "train.ema_decay": 0.5}


def load(workdir, **keys):
    return perceiver_jax.load_config(IMAGENET, FLAGS | {"init.source": str(workdir)} | keys)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("source")
    perceiver_jax.train(load(""), workdir, quiet=True)
    return workdir


@pytest.fixture(scope="module")
def tuned(source, tmp_path_factory):
    """A fine-tuned run, whose source is gone; what the source was; and what was printed."""
    workdir, moved = tmp_path_factory.mktemp("tuned"), source.with_name("moved")
    shutil.copytree(source, moved)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        perceiver_jax.train(load(moved, **FROZEN), workdir)
    shutil.rmtree(moved)
    return workdir, moved, printed.getvalue()


def test_what_is_frozen_is_the_source_s_to_the_bit_and_the_rest_is_trained(source, tuned):
    before, after = (perceiver_jax.load_run(x).params for x in (source, tuned[0]))
    same = jax.tree.map(lambda x, y: bool((x == y).all()), before, after)
    assert not any(same.pop("decoder/logits").values())
    assert all(jax.tree.leaves(same))


def test_what_was_taken_over_is_said_and_kept_in_the_workdir(tuned):
    workdir, moved, printed = tuned
    assert re.search(
        rf"starting from {moved} \(step 3\): (\d+) of \1 arrays are taken over", printed
    )
    record = json.loads((workdir / "init.json").read_text())
    assert record["source"] == f"{moved} (step 3)"
    assert "decoder/logits/w" in record["taken"] and not record["anew"]


def test_a_run_resumes_without_its_source_and_ends_as_if_it_had_not_stopped(tuned, tmp_path):
    workdir, moved, _ = tuned
    shutil.copytree(workdir, tmp_path / "run")
    for step in (2, 3):
        shutil.rmtree(tmp_path / "run/checkpoints" / str(step))
    perceiver_jax.train(load(moved, **FROZEN), tmp_path / "run", quiet=True)
    params = [perceiver_jax.load_run(x).params for x in (workdir, tmp_path / "run")]
    jax.tree.map(np.testing.assert_array_equal, *params)


def test_a_run_of_another_source_does_not_resume(source, tuned):
    with pytest.raises(config_lib.UserError, match="config.init.source: '.*moved' -> '.*source"):
        perceiver_jax.train(load(source, **FROZEN), tuned[0], quiet=True)


def test_plain_safetensors_are_a_source_as_the_run_is_that_they_are_of(source, tmp_path):
    run = perceiver_jax.load_run(source)
    write.write_own(run, tmp_path / "weights")
    for place in ("weights", "weights/model.safetensors"):
        found = transfer.load(str(tmp_path / place))
        jax.tree.map(np.testing.assert_array_equal, found.params, run.params)
        assert found.config.model == run.config.model


def test_a_source_that_is_not_there_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(config_lib.UserError, match="^config.init.source: There is no '/nowhere'"):
        perceiver_jax.train(load("/nowhere"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", finetune.KINDS)
def test_all_of_a_released_model_is_taken_over_but_what_gives_the_classes(kind):
    config = finetune.get_config(kind)
    data = data_lib.build_data(**config.data)
    example = dataclasses.replace(data, batch_size=1).zero_batch()
    released = ml_collections.ConfigDict({"model": configs.released(config.init.source)})
    shapes = [
        jax.eval_shape(perceiver_jax.build_model(x.model).init, jax.random.key(0), example)
        for x in (released, config)
    ]
    params = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes[0])
    source = types.SimpleNamespace(config=released, fields=data.fields, params=params, step=0)
    record = transfer.transfer(source, shapes[1], config, example).record
    assert not record["interpolated"]
    if kind == "text":
        at_random = {*record["not_found"], *record["anew"]}
        assert all(path.startswith("decoder") for path in {*at_random, *record["not_used"]})
    else:
        assert record["anew"].keys() == {"decoder/logits/w", "decoder/logits/b"}
        assert not record["not_found"] and not record["not_used"]
