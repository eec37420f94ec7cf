"""A run leaves what it promises, and resumes as if it had never stopped."""

import json
import resource
import shutil

import jax
import numpy as np
import pytest

from perceiver_jax.training import checkpoints, divergence, loop, preemption, writers


def _final_state(workdir, make_toy):
    with checkpoints.Checkpointer(workdir / "checkpoints", read_only=True) as checkpointer:
        return checkpointer.restore(make_toy().state).state


def _assert_same_state(workdir, other, make_toy):
    states = _final_state(workdir, make_toy), _final_state(other, make_toy)
    jax.tree.map(np.testing.assert_array_equal, *states)


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
    counts = {
        (x["examples"], x["windows"]) for x in writers.read_metrics(workdir) if "windows" in x
    }
    assert counts == {(16, 16)}


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
    # Saved at 3, 6, 9, ...: killed before the first, and such that it resumes from the end of an
    # interval of the log, and from within one.
    for killed_at in (2, 8, 11):
        with pytest.raises(KeyboardInterrupt):
            train_toy(tmp_path, killed_at=killed_at)
    _, screen = train_toy(tmp_path)
    assert "resuming from step 9" in screen
    _assert_same_state(tmp_path, finished[0], make_toy)
    assert _history(tmp_path) == _history(finished[0])


class _Signals(preemption.Preemption):
    """A signal during a step, or within an evaluation, counted from 1."""

    def __init__(self, step=None, evaluation=None):
        super().__init__()
        self._step, self._evaluation = step, evaluation

    def requested(self):
        if self._step is not None:
            self._step -= 1
        return self._step == 0

    def interrupt(self, items):
        if self._evaluation == 1:
            raise preemption.Preempted
        if self._evaluation is not None:
            self._evaluation -= 1
        yield from items


def test_run_preempted_within_evaluations_is_bit_identical_to_an_uninterrupted_one(
    finished, tmp_path, train_toy, make_toy
):
    # Evaluates at 5, 10 and 13. The first is given up, and made up for; so is the last.
    with pytest.raises(preemption.Preempted, match=f"Saved step 5 in {tmp_path}"):
        train_toy(tmp_path, signals=_Signals(evaluation=1))
    assert [x["step"] for x in _history(tmp_path) if x["split"] == "test"] == []
    with pytest.raises(preemption.Preempted, match=f"Saved step 13 in {tmp_path}"):
        train_toy(tmp_path, signals=_Signals(evaluation=3))
    result, _ = train_toy(tmp_path)
    assert result == finished[1]
    assert _history(tmp_path) == _history(finished[0])
    _assert_same_state(tmp_path, finished[0], make_toy)


def test_preempted_run_saves_after_the_step(tmp_path, train_toy):
    with pytest.raises(preemption.Preempted, match="Saved step 1 in"):
        train_toy(tmp_path, signals=_Signals(step=1))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]


def test_skipped_updates_are_counted_and_left_out_of_averages(finished, tmp_path, train_toy):
    train_toy(tmp_path, steps=4, bad={3})
    first, second = (line for line in _history(tmp_path) if line["split"] == "train")
    assert (first["skipped"], second["skipped"]) == (0, 1)
    assert np.isfinite(second["loss"])


def test_too_many_skipped_updates_end_the_run_with_a_report_and_the_last_good_checkpoint(
    tmp_path, train_toy
):
    # Saved at 3; the third skipped update in a row is that of step 7.
    with pytest.raises(divergence.DivergedError, match="in 3 steps in a row, from step 5 on"):
        train_toy(tmp_path, bad=range(5, 13))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]
    report = json.loads((tmp_path / "divergence.json").read_text())
    assert (report["last_good_step"], report["last_checkpoint"]) == (4, 3)
    assert [line["step"] for line in report["skipped"]] == [5, 6, 7]
    assert {line["loss"] for line in report["skipped"]} == {"nan"}
    assert report["skipped"][0]["batch_indices"] == list(range(8))
    assert all(np.isfinite(x) for x in report["parameter_norms"].values())


def test_full_disk_ends_the_run_and_leaves_the_last_checkpoint_intact(
    finished, tmp_path, train_toy, make_toy
):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "13")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))  # No file may be larger.
    try:
        with pytest.raises(OSError, match="step 13 could not be written|File too large"):
            train_toy(workdir, log_every=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert _final_state(workdir, make_toy).step == 12


def test_run_goes_on_with_fsdp_where_pmap_stopped_and_the_other_way_round(
    finished, tmp_path, train_toy, make_toy
):
    for killed_at, sharding in ((5, "pmap"), (11, "fsdp")):
        with pytest.raises(KeyboardInterrupt):
            train_toy(tmp_path, killed_at=killed_at, sharding=sharding)
    train_toy(tmp_path)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        _final_state(tmp_path, make_toy),
        _final_state(finished[0], make_toy),
    )


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
        ({"accumulate_steps": 0}, "accumulate_steps is 0; expected at least 1"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0; expected at least 0 and less than 1"),
    ],
)
def test_plan_that_cannot_be_says_what_can(change, message):
    numbers = {"steps": 3, "log_every": 1, "eval_every": 1, "checkpoint_every": 1}
    with pytest.raises(ValueError, match=message):
        loop.TrainConfig(**(numbers | {"max_checkpoints": 1, "max_skipped": 1} | change))
