"""The benchmark of exported models measures all ways to an answer; times are never tested."""

import json
import sys

import numpy as np
import pytest

from experiments.benchmarks import exported
from perceiver_jax import config as config_lib
from tests.exporting.conftest import export_digits

pytestmark = pytest.mark.xdist_group("export")


@pytest.fixture(scope="module")
def folder():
    return export_digits()


@pytest.mark.parametrize("way", exported.WAYS)
def test_every_way_gives_the_same_answer(folder, way, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["-c", str(folder), str(folder)])
    names = {}
    exec(exported.WAYS[way], names)
    answer = names["answer"]()
    label = answer["label"] if isinstance(answer, dict) else answer[0]
    with np.load(folder / "example.npz") as saved:
        expected = saved["outputs/label"]
    np.testing.assert_allclose(label, expected, atol=1e-5)


def test_sizes_and_times_are_printed_and_written(folder, tmp_path, monkeypatch, capsys):
    for way in ("run", "program"):  # Of which processes take longer.
        monkeypatch.delitem(exported.WAYS, way)
    path = tmp_path / "figures.json"
    exported.main([f"--workdir={folder}", "--repeats=1", f"--json={path}"])
    result = json.loads(path.read_text())
    assert {"predict.stablehlo", "model.safetensors", "model.onnx"} <= result["bytes"].keys()
    times = result["seconds"]["onnx"]
    assert min(*times["first"], *times["processor"], *times["next"]) > 0
    assert "first answer, s" in capsys.readouterr().out


def test_a_process_that_fails_is_explained(monkeypatch):
    monkeypatch.setitem(exported.WAYS, "run", "raise RuntimeError('no such chip')")
    with pytest.raises(config_lib.UserError, match="(?s)ended with 1: .*no such chip"):
        exported.measure(["run"], [], repeats=1)
