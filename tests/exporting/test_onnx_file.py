"""ONNX files give what the run gives, for every recipe's kind and batch size."""

import dataclasses
import subprocess
import sys

import jax
import jax2onnx
import ml_collections
import numpy as np
import onnx
import pytest

import perceiver_jax
from perceiver_jax import config as config_lib
from perceiver_jax import exporting
from perceiver_jax.exporting import onnx_file
from tests.exporting.conftest import LAYERS
from tests.exporting.test_folder import CODE

pytestmark = pytest.mark.xdist_group("export")
RECIPES = (
    "audioset.py:mini",
    "imagenet_io.py:mini,conv",
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


def test_the_example_of_the_readme_runs(digits_folder):
    code = CODE.findall((digits_folder / "README.md").read_text())[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=digits_folder, capture_output=True, text=True, check=True
    )
    assert done.stdout == "label (1, 10)\nlatents (1, 3, 16)\n"


def test_weights_are_there_once(digits_folder):
    weights = (digits_folder / "model.safetensors").stat().st_size
    model = onnx.load(digits_folder / "model.onnx")
    sizes = [onnx.numpy_helper.to_array(x).nbytes for x in model.graph.initializer]
    positions = 28 * 28 * 130 * 4  # Encoded.
    assert sum(sizes) < weights + positions


def test_operators_are_standard_ones_and_none_is_a_loop(digits_folder):
    model = onnx.load(digits_folder / "model.onnx")
    assert [x.domain for x in model.opset_import] == [""]
    assert not {"Loop", "Scan", "If"} & {node.op_type for node in model.graph.node}


def test_a_file_that_computes_something_else_is_refused(digits_folder):
    file = (digits_folder / "model.onnx").read_bytes()
    saved = np.load(digits_folder / "example.npz")
    batch, expected = {"image": saved["inputs/image"]}, {"label": saved["outputs/label"]}
    names = {"label": "label"}
    onnx_file.check(file, names, batch, expected)
    with pytest.raises(onnx_file.NotConvertedError, match="differs by 1.0e-03 from what"):
        onnx_file.check(file, names, batch, {"label": expected["label"] + np.float32(1e-3)})
    with pytest.raises(onnx_file.NotConvertedError, match=r"is float32 \[10\] in onnxruntime and"):
        onnx_file.check(file, names, batch, {"label": expected["label"].astype(float)})


@pytest.mark.parametrize("package", ["jax2onnx", "onnx", "onnxruntime"])
def test_a_package_that_is_lacking_is_named_before_anything_is_computed(
    tmp_path, monkeypatch, package
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(config_lib.UserError, match=rf"{package}, .*perceiver-haiku\[onnx\]"):
        exporting.export(None, tmp_path / "folder", onnx=True)
    assert not (tmp_path / "folder").exists()


@pytest.fixture
def chunked(run_of):
    """A model of flow that decodes its 576 queries in 6 chunks."""
    run = run_of("flow.py:mini")
    config = run.config.to_dict()
    config["model"]["outputs"]["flow"]["chunk_size"] = 101
    model = perceiver_jax.build_model(config["model"])
    return dataclasses.replace(run, config=ml_collections.ConfigDict(config), model=model)


def _count(file, op_type):
    return sum(node.op_type == op_type for node in onnx.load_from_string(file).graph.node)


def test_chunks_of_an_output_become_a_loop_or_are_unrolled(chunked, computed_of, monkeypatch):
    batch, expected = computed_of("flow.py:mini")
    to_onnx, tried = jax2onnx.to_onnx, []

    def without_loops(*args, **keys):
        tried.append(not jax.config.jax_disable_jit)
        if tried[-1]:
            raise NotImplementedError("loops")
        return to_onnx(*args, **keys)

    files = [onnx_file.convert(chunked)]
    monkeypatch.setattr("jax2onnx.to_onnx", without_loops)
    files.append(onnx_file.convert(chunked))
    assert tried == [True, False]
    for file in files:
        # A GELU for each layer, and for each chunk.
        assert _count(file, "Loop") or _count(file, "Gelu") == len(LAYERS) + 6
        found = onnx_file.run_file(file)(batch)["flow"]
        np.testing.assert_allclose(found, expected["flow"], atol=1e-4)


def test_the_plain_form_has_no_streams_and_scans(run_of):
    run = run_of("imagenet.py:mini", **{"model.dtype": "bfloat16"})
    section = onnx_file.plain_run(run).config.model
    assert not (section.encoder.streaming or section.encoder.scan or section.encoder.remat)
    assert section.dtype == "float32"
