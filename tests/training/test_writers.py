"""The files of a workdir stay readable, whole and without repetition."""

import json
import struct

import pytest

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


def test_lines_that_the_checkpoint_does_not_know_are_cut_off_and_half_a_line_too(tmp_path):
    path = tmp_path / "metrics.jsonl"
    kept = '{"step": 5, "split": "train"}\n'
    path.write_text(kept + '{"step": 5, "split": "test"}\n{"step": 9, "sp')
    writers.MetricsWriter(tmp_path, step=5, num_lines=1).close()
    assert path.read_text() == kept


def test_lines_of_an_earlier_run_are_cut_off_where_training_begins_anew(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "split": "train"}\n')
    writers.MetricsWriter(tmp_path).close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_lines_that_are_missing_are_counted(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "split": "train"}\n')
    writer = writers.MetricsWriter(tmp_path, step=7, num_lines=3)
    writer.close()
    assert (writer.num_lines, writer.num_missing) == (1, 2)


def _events(workdir):
    """The events of each of TensorBoard's files, in the order in which it reads them."""
    from tensorboardX.proto import event_pb2

    for path in sorted((workdir / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("Q", data, at)
            yield event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
            at += size + 16


def test_tensorboard_has_a_line_at_once_and_hides_what_is_written_again(tmp_path):
    writer = writers.MetricsWriter(tmp_path)
    writer.write(3, "train", {"loss": 0.5})
    first = [(e.step, [v.tag for v in e.summary.value]) for e in _events(tmp_path)]
    writer.close()
    assert first == [(0, []), (3, ["train/loss"])]
    writers.MetricsWriter(tmp_path, step=2).close()
    last = list(_events(tmp_path))[-1]
    assert (last.step, last.session_log.status) == (3, last.session_log.START)


@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_a_workdir_that_vanishes_is_noticed(tmp_path, change):
    writer = writers.MetricsWriter(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    if change == "replaced":
        (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(FileNotFoundError, match="metrics.jsonl was deleted or replaced while"):
        writer.write(1, "train", {"loss": 0.5})
    writer.close()


def test_numbers_that_json_does_not_have_become_null(tmp_path):
    writer = writers.MetricsWriter(tmp_path)
    writer.write(1, "train", {"loss": float("nan"), "grad_norm": float("inf")})
    writer.close()
    (line,) = writers.read_metrics(tmp_path)
    assert line["loss"] is None
    assert line["grad_norm"] is None


def test_json_is_written_whole(tmp_path):
    writers.write_json(tmp_path / "new" / "config.json", {"train": {"steps": 3}})
    assert json.loads((tmp_path / "new/config.json").read_text()) == {"train": {"steps": 3}}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["config.json"]
