import pathlib
import re

import jax
import numpy as np
import pytest

import perceiver_jax
from perceiver_jax import checks
from perceiver_jax.pretrained import configs, names

# Facts: the authors' own counts, and inputs of the sizes that they trained on.
COUNTS = {
    "vision-perceiver-fourier": 48_440_627,
    "vision-perceiver-learned": 62_255_848,
    "vision-perceiver-conv": 48_646_522,
    "language-perceiver": 201_108_230,
    "optical-flow-perceiver": 41_057_134,
    "multimodal-perceiver": 19_858_855,
}
INPUTS = {
    "audio": ((1, 30720), "float32"),
    "frames": ((1, 2, 368, 496, 3), "float32"),
    "image": ((1, 224, 224, 3), "float32"),
    "label": ((1,), "int32"),
    "text": ((1, 2048), "int32"),
    "video": ((1, 16, 224, 224, 3), "float32"),
}


def _shapes(section):
    batch = {name: jax.ShapeDtypeStruct(*INPUTS[name]) for name in section["inputs"]}
    model = perceiver_jax.build_model(section)
    return jax.eval_shape(model.init, jax.random.key(0), batch)


@pytest.mark.parametrize("name", COUNTS)
def test_released_models_have_the_authors_number_of_parameters_each_with_one_name(name):
    section = configs.released(name)
    shapes = _shapes(section)
    assert perceiver_jax.param_count(shapes) == COUNTS[name]
    table = names.table(section)
    assert sorted(x.ours for x in table) == sorted(checks.shapes(shapes))
    for there in ("port", "authors"):
        assert len({getattr(x, there) for x in table}) == len(table)


@pytest.mark.parametrize(
    ("fixture", "name"),
    [
        ("io_classifier_fourier", "vision-perceiver-fourier"),
        ("io_classifier_learned", "vision-perceiver-learned"),
        ("io_classifier_conv", "vision-perceiver-conv"),
        ("io_mlm_text", "language-perceiver"),
        ("io_flow", "optical-flow-perceiver"),
        ("io_multimodal", "multimodal-perceiver"),
    ],
)
def test_the_authors_names_are_those_of_their_modules(fixture, name):
    saved = np.load(pathlib.Path(__file__).parents[1] / "golden" / f"{fixture}.npz")
    theirs = {key.partition(":")[2] for key in saved.files if key.startswith(("param:", "state:"))}
    ours = {x.authors for x in names.table(configs.released(name))}
    # The small ones have fewer self-attends.
    numbered = r"(.*)/self_attention(_\d+)?/(.*)"
    ours = {x for x in ours if x in theirs or not re.fullmatch(numbered, x)}
    assert {x for x in theirs if not names.UNUSED.fullmatch(x)} == ours
