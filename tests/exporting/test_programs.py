"""Programs give what the run gives, for every recipe's kind, platform and batch size."""

import dataclasses

import jax
from jax import export
import numpy as np
import pytest

from perceiver_jax.exporting import programs
from tests.exporting.conftest import make_batch

pytestmark = pytest.mark.xdist_group("export")
RUN = (  # Each of these is compiled twice.
    "imagenet.py:mini",
    "modelnet40.py:mini",
    "flow.py:mini",
    "masked_text.py:mini",
    "multimodal.py:mini",
)
TRACED = (
    *RUN,
    "audioset.py:mini",
    "imagenet_io.py:mini,conv",
    "audioset.py:mini,audio_mel",
    "audioset.py:mini,sequential",
    "audioset.py:mini,unrolled",
    "imagenet.py:mini,permuted",
    "imagenet_io.py:mini,learned",
    "text.py:mini",
)


def call(run, program, batch):
    return export.deserialize(bytearray(program.serialized)).call(
        programs.flatten(run.params), batch
    )


@pytest.mark.parametrize("recipe", TRACED)
def test_every_recipe_becomes_a_program_of_all_platforms(run_of, recipe):
    run = run_of(recipe)
    program = programs.make(run, programs.predict(run))
    loaded = export.deserialize(bytearray(program.serialized))
    assert loaded.platforms == ("cpu", "cuda", "tpu")
    assert {str(x.shape[0]) for x in program.outputs.values()} == {"batch"}


@pytest.mark.parametrize("recipe", RUN)
def test_a_program_gives_what_its_run_gives(run_of, computed_of, recipe):
    run = run_of(recipe)
    batch, expected = computed_of(recipe)
    found = call(run, programs.make(run, programs.predict(run)), batch)
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert np.ptp(x) > 1e-3
        np.testing.assert_allclose(found[name], x, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 8])
def test_one_program_serves_any_batch_size(run_of, size):
    run = run_of("imagenet.py:mini")
    batch = make_batch(np.random.default_rng(0), run, size)
    found = call(run, programs.make(run, programs.predict(run)), batch)["label"]
    expected = run.task.predict(run(batch))["label"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_an_example_may_lack_is_said_by_a_mask(run_of):
    run = dataclasses.replace(run_of("audioset.py:mini"), may_lack=("audio",))
    given = programs.inputs(run)
    assert given["audio_mask"].shape == () and given["audio_mask"].dtype == bool
    batch = make_batch(np.random.default_rng(0), run, 2)
    batch["audio_mask"] = np.array([True, False])
    batch["audio"][1] = np.nan  # Is not looked at.
    found = call(run, programs.make(run, programs.predict(run)), batch)["label"]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, run.task.predict(run(batch))["label"], atol=1e-6)


def test_targets_that_evaluation_hides_are_no_inputs(run_of):
    run = run_of("multimodal.py:mini")
    assert "label" in run.config.model.inputs
    assert programs.inputs(run).keys() == {"audio", "video"}


def test_half_precision_becomes_a_program_of_all_platforms(run_of):
    run = run_of("imagenet.py:mini", **{"model.dtype": "bfloat16"})
    program = programs.make(run, programs.predict(run))
    assert program.outputs["label"].dtype == np.float32


def test_latents_are_those_of_the_run(run_of):
    run = run_of("imagenet.py:mini")
    batch = make_batch(np.random.default_rng(0), run, 3)
    found = call(run, programs.make(run, programs.latents(run)), batch)
    expected = jax.jit(run.model.latents)(run.params, batch)
    np.testing.assert_allclose(found, expected, atol=1e-6)
