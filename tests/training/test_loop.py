"""A run leaves what it promises, and goes on from where it stopped as if it never had."""

import json

import jax
import numpy as np
import pytest

from perceiver_jax.training import checkpoints, plan, writers


def _final_state(workdir, make_toy):
    return checkpoints.load(workdir / "checkpoints", make_toy().state).state


def _history(workdir):
    """Lines of metrics.jsonl without the speed, which never repeats."""
    lines = writers.read_metrics(workdir)
    return [{k: x for k, x in line.items() if k != "examples_per_second"} for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, train_toy):
    """Workdir, result and output of a run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, *train_toy(workdir)


def test_run_writes_config_metrics_events_checkpoints_and_curves(finished):
    workdir, result, _ = finished
    assert json.loads((workdir / "config.json").read_text()) == {"seed": 1}
    assert (workdir / "curves.png").stat().st_size > 10_000
    assert list((workdir / "tensorboard").glob("events*"))
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["12", "13"]
    steps = {
        split: [line["step"] for line in writers.read_metrics(workdir) if line["split"] == split]
        for split in ("train", "test")
    }
    assert steps == {"train": [2, 4, 6, 8, 10, 12, 13], "test": [5, 10, 13]}
    assert set(result) == {"loss", "top1", "top5", "mAP"}


def test_run_shows_compilation_every_line_and_a_table(finished):
    workdir, result, screen = finished
    assert "compiling the training step ... " in screen
    assert "train  2/13  loss " in screen
    assert "examples/s" in screen
    assert f"test  13/13  loss {result['loss']:.4f}  top-1 {result['top1']:.4f}" in screen
    assert "│ test  │" in screen
    assert f"results are in {workdir}" in screen


def test_run_killed_again_and_again_is_bit_identical_to_an_uninterrupted_one(
    finished, tmp_path, train_toy, make_toy
):
    # Saved at 3, 6, 9, ...: killed before the first, and such that it goes on from the end of an
    # interval of the log, and from within one.
    for killed_at in (2, 8, 11):
        with pytest.raises(KeyboardInterrupt):
            train_toy(tmp_path, killed_at=killed_at)
    _, screen = train_toy(tmp_path)
    assert "going on from step 9" in screen
    jax.tree.map(
        np.testing.assert_array_equal,
        _final_state(tmp_path, make_toy),
        _final_state(finished[0], make_toy),
    )
    assert _history(tmp_path) == _history(finished[0])


def test_complete_run_is_only_evaluated(finished, train_toy):
    workdir, result, _ = finished
    before = (workdir / "metrics.jsonl").read_text()
    again, screen = train_toy(workdir)
    assert again == result
    assert "has been trained for 13 steps already; evaluating it" in screen
    assert "compiling the training step" not in screen
    assert "│ test  │" in screen
    assert (workdir / "metrics.jsonl").read_text() == before


def test_workdir_of_another_state_is_refused_and_left_as_it_was(finished, train_toy):
    workdir = finished[0]
    before = (workdir / "config.json").stat().st_mtime_ns
    with pytest.raises(ValueError, match="is of another model or optimizer"):
        train_toy(workdir, ema_decay=0.0)
    assert (workdir / "config.json").stat().st_mtime_ns == before


def test_interval_of_zero_is_at_the_end_only(tmp_path, train_toy):
    train_toy(tmp_path, steps=3, log_every=0, eval_every=0, checkpoint_every=0)
    assert [line["step"] for line in writers.read_metrics(tmp_path)] == [3, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0; expected at least 1"),
        ({"eval_every": -1}, "eval_every is -1; expected at least 0"),
        ({"max_checkpoints": 0}, "max_checkpoints is 0; expected at least 1"),
        ({"max_skipped": 0}, "max_skipped is 0; expected at least 1"),
    ],
)
def test_plan_that_cannot_be_says_what_can(change, message):
    numbers = {"steps": 3, "log_every": 1, "eval_every": 1, "checkpoint_every": 1}
    with pytest.raises(ValueError, match=message):
        plan.Plan(**(numbers | {"max_checkpoints": 1, "max_skipped": 1} | change))
