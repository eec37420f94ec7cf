"""The files of a workdir stay readable, whole and without repetition."""

import json

from perceiver_jax.training import writers


def test_every_line_is_an_object_with_step_and_split(tmp_path):
    writer = writers.MetricsWriter(tmp_path)
    writer.write(3, "train", {"loss": 0.5})
    writer.write(3, "test", {"loss": 0.25, "mAP": 0.75})
    writer.close()
    assert [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 3, "split": "train", "loss": 0.5},
        {"step": 3, "split": "test", "loss": 0.25, "mAP": 0.75},
    ]


def test_lines_after_the_restored_step_are_cut_off_and_half_a_line_too(tmp_path):
    path = tmp_path / "metrics.jsonl"
    kept = '{"step": 5, "split": "train"}\n'
    path.write_text(kept + '{"step": 7, "split": "train"}\n{"step": 9, "sp')
    writers.MetricsWriter(tmp_path, step=5).close()
    assert path.read_text() == kept


def test_lines_of_an_earlier_run_are_cut_off_where_training_begins_anew(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "split": "train"}\n')
    writers.MetricsWriter(tmp_path).close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_numbers_that_json_does_not_have_become_null(tmp_path):
    writer = writers.MetricsWriter(tmp_path)
    writer.write(1, "train", {"loss": float("nan"), "grad_norm": float("inf")})
    writer.close()
    (line,) = writers.read_metrics(tmp_path)
    assert line["loss"] is None
    assert line["grad_norm"] is None


def test_config_is_written_whole(tmp_path):
    writers.write_config(tmp_path / "new", {"train": {"steps": 3}})
    assert json.loads((tmp_path / "new/config.json").read_text()) == {"train": {"steps": 3}}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["config.json"]
