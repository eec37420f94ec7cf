"""Small random models equal Hugging Face's port; what it made of them is in `fixtures`."""

import dataclasses

import jax
import numpy as np
import PIL.Image
import pytest

from experiments.benchmarks import port as port_lib
import perceiver_jax
from perceiver_jax.data.fields import array, image
from perceiver_jax.pretrained import write


@pytest.mark.parametrize("kind", port_lib.SMALL)
def test_logits_equal_those_of_the_port(kind, fixture, tmp_path):
    small = fixture(kind)
    run = perceiver_jax.load_pretrained(small.write(tmp_path / "there"))
    for given, expected in small.cases:
        got = run(given)
        assert got.keys() == expected.keys()
        for name, x in expected.items():
            np.testing.assert_allclose(got[name], x, atol=1e-4, rtol=0, err_msg=name)


@pytest.mark.parametrize("gelu", ["tanh", "exact"])
def test_the_port_computes_what_a_model_of_ones_own_does(gelu, own_run, tmp_path):
    transformers = pytest.importorskip("transformers")
    run = own_run(gelu)
    write.write_port(run, tmp_path / "back")
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "back").eval()
    given = {"image": np.random.default_rng(0).standard_normal((3, 13, 13, 3), np.float32)}
    expected = run({"picture": given["image"]})["species"]
    got = port_lib.of_port(model, given)["label"]
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=0)
    assert model.config.id2label == {0: "cat", 1: "dog", 2: "newt"}


@pytest.mark.parametrize("kind", ["flow", "multimodal"])
def test_the_port_loads_what_had_the_queries_channels(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    port = port_lib._SMALL | port_lib.SMALL[kind] | {"cross_attention_shape_for_attention": "q"}
    model = port_lib.build(port)
    model.save_pretrained(tmp_path / "there")
    write.write_port(perceiver_jax.load_pretrained(tmp_path / "there"), tmp_path / "back")
    load = getattr(transformers, port["architectures"][0]).from_pretrained
    given = port_lib.batch({**model.config.to_dict(), **port}, 2)
    got = port_lib.of_port(load(tmp_path / "back").eval(), given)
    expected = port_lib.of_port(model, given)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), got, expected)


@pytest.mark.parametrize("kind", port_lib.SMALL)
def test_the_port_loads_what_is_written(kind, fixture, tmp_path):
    transformers = pytest.importorskip("transformers")
    small = fixture(kind)
    run = perceiver_jax.load_pretrained(small.write(tmp_path / "there"))
    write.write_port(run, tmp_path / "back")
    load = getattr(transformers, small.config["architectures"][0]).from_pretrained
    given, expected = small.cases[0]
    got = port_lib.of_port(load(tmp_path / "back").eval(), given)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), got, expected)


@pytest.mark.parametrize("crop", ["centre", "none"])
def test_the_port_prepares_pictures_as_they_are_here(crop, own_run, tmp_path):
    module = "transformers.models.perceiver.image_processing_pil_perceiver"
    processor = pytest.importorskip(module).PerceiverImageProcessorPil
    rng = np.random.default_rng(0)
    pictures = [
        rng.integers(256, size=(*size, 3), dtype=np.uint8)
        for size in ((40, 57), (61, 40), (24, 24))
    ]
    for side in (7, 9, 13, 28, 29, 32):
        run = own_run()
        run = dataclasses.replace(
            run, fields=run.fields | {"picture": image.Image(side, crop=crop)}
        )
        folder = tmp_path / f"{side}"
        write.write_port(run, folder)
        prepared = processor.from_pretrained(folder)
        for picture in pictures:
            theirs = prepared(PIL.Image.fromarray(picture), return_tensors="np")["pixel_values"][0]
            ours = (run.prepare(picture)["picture"][0] / 255 - 0.5) / 0.25
            np.testing.assert_allclose(theirs.transpose(1, 2, 0), ours, atol=1e-5, err_msg=side)


def test_the_port_takes_pictures_of_arrays_that_are_not_square(own_run, tmp_path):
    transformers = pytest.importorskip("transformers")
    module = "transformers.models.perceiver.image_processing_pil_perceiver"
    processor = pytest.importorskip(module).PerceiverImageProcessorPil
    run = own_run()
    field = array.Array("picture", (9, 14, 3), np.dtype(np.uint8))
    run = dataclasses.replace(run, fields=run.fields | {"picture": field})
    write.write_port(run, tmp_path / "model")
    picture = np.random.default_rng(0).integers(256, size=(9, 14, 3), dtype=np.uint8)
    prepared = processor.from_pretrained(tmp_path / "model")
    pixels = prepared(PIL.Image.fromarray(picture), return_tensors="np")["pixel_values"]
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "model").eval()
    got = port_lib.of_port(model, {"image": pixels.transpose(0, 2, 3, 1)})["label"]
    expected = run({"picture": picture[None]})["species"]
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=0)
