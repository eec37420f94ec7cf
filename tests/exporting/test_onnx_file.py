"""ONNX files give what the run gives, for every recipe's kind and batch size."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

from experiments import export as command
from perceiver_jax import config as config_lib
from perceiver_jax import exporting
from perceiver_jax.exporting import onnx_file
from tests.exporting.test_folder import CODE

RECIPES = (
    "audioset.py:mini",
    "imagenet_io.py:mini,conv",
    "flow.py:mini",
    "masked_text.py:mini",
    "multimodal.py:mini",
)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_file_gives_what_its_run_gives(run_of, computed_of, recipe):
    run = run_of(recipe)
    batch, expected = computed_of(recipe)
    call = onnx_file.run_file(onnx_file.convert(run))
    names = onnx_file.output_names(run, expected)
    found = call(batch)
    alone = call({name: x[2:] for name, x in batch.items()})  # Another batch size.
    for name, x in expected.items():
        assert found[names[name]].dtype == x.dtype
        atol = 1 if x.dtype == np.uint8 else 1e-4  # Between two levels either is right.
        np.testing.assert_allclose(found[names[name]], x, atol=atol)
        np.testing.assert_allclose(alone[names[name]], x[2:], atol=atol)


def test_outputs_that_inputs_are_called_as_have_other_names(run_of):
    run = run_of("multimodal.py:mini")
    names = onnx_file.output_names(run, dict.fromkeys(("audio", "label", "video")))
    assert names == {
        "audio": "audio_predicted",
        "label": "label",
        "video": "video_predicted",
        "latents": "latents",
    }


@pytest.fixture(scope="module")
def folder(run_of, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "digits"
    assert exporting.export(run_of("imagenet.py:mini"), path, onnx=True) is None
    return path


def test_the_example_of_the_readme_runs(folder):
    code = CODE.findall((folder / "README.md").read_text())[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout == "label (1, 10)\nlatents (1, 3, 16)\n"


def test_weights_are_there_once(folder):
    weights = (folder / "model.safetensors").stat().st_size
    model = onnx.load(folder / "model.onnx")
    sizes = [onnx.numpy_helper.to_array(x).nbytes for x in model.graph.initializer]
    positions = 28 * 28 * 130 * 4  # Encoded.
    assert sum(sizes) < weights + positions


def test_operators_are_standard_ones_and_none_is_a_loop(folder):
    model = onnx.load(folder / "model.onnx")
    assert [x.domain for x in model.opset_import] == [""]
    assert not {"Loop", "Scan", "If"} & {node.op_type for node in model.graph.node}


def test_a_model_that_cannot_be_converted_is_said_in_a_line_and_exported_all_the_same(
    run_of, tmp_path, monkeypatch, capsys
):
    def refuse(*_, **__):
        raise NotImplementedError("no lowering of\nmagic")

    exporting.export(run_of("imagenet.py:mini"), tmp_path / "first")
    monkeypatch.setattr("jax2onnx.to_onnx", refuse)
    with pytest.raises(SystemExit) as ended:
        command.main([f"--workdir={tmp_path / 'first'}", f"--output={tmp_path / 'a'}", "--onnx"])
    assert ended.value.code == "There is no ONNX file: NotImplementedError: no lowering of"
    assert capsys.readouterr().out == f"wrote {tmp_path / 'a'}\n"
    about = json.loads((tmp_path / "a" / "export.json").read_text())
    assert "onnx" not in about and not (tmp_path / "a" / "model.onnx").exists()


def test_a_file_that_computes_something_else_is_refused(folder):
    file = (folder / "model.onnx").read_bytes()
    saved = np.load(folder / "example.npz")
    batch, expected = {"image": saved["inputs/image"]}, {"label": saved["outputs/label"]}
    names = {"label": "label"}
    onnx_file.check(file, names, batch, expected)
    with pytest.raises(onnx_file.NotConvertedError, match="differs by 1.0e-03 from what"):
        onnx_file.check(file, names, batch, {"label": expected["label"] + np.float32(1e-3)})
    with pytest.raises(onnx_file.NotConvertedError, match=r"is float32 \[10\] in onnxruntime and"):
        onnx_file.check(file, names, batch, {"label": expected["label"].astype(float)})


@pytest.mark.parametrize("package", ["jax2onnx", "onnxruntime"])
def test_a_package_that_is_lacking_is_named(run_of, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(onnx_file, "convert", onnx_file.convert if package == "jax2onnx" else _none)
    with pytest.raises(config_lib.UserError, match=r"pip install perceiver-haiku\[onnx\]"):
        exporting.export(run_of("imagenet.py:mini"), tmp_path / "folder", onnx=True)
    assert not (tmp_path / "folder").exists()


def _none(run):
    return b""


def test_the_plain_form_has_no_streams_scans_or_chunks(run_of):
    section = onnx_file.plain_run(run_of("multimodal.py:mini")).config.model
    assert not (section.encoder.streaming or section.encoder.scan or section.encoder.remat)
    assert section.decoder.chunk_size > 1e9
    assert onnx_file.plain_run(run_of("flow.py:mini")).config.model.outputs.flow.chunk_size > 1e9
