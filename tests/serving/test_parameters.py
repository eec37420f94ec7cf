"""Parameters of requests: each is of use to a model, or refused."""

import pytest

from perceiver_jax import config
from perceiver_jax.serving import about, limits, parameters
from tests.serving import small

FRAMES = {"kind": "frames", "image_size": (7, 11)}
FIELDS = {
    "points": {"points": {"kind": "point_cloud", "num_points": 17}},
    "flow": {"frames": FRAMES, "flow": FRAMES | {"kind": "flow"}},
    "video": {"video": {"kind": "video", "num_frames": 2, "image_size": 8}},
}


def parameters_of(kind):
    class_names = () if kind == "flow" else ("chair", "desk")
    run = small.Stub(small.three_classes, class_names, **FIELDS[kind])
    return parameters.Parameters(run, about.describe(run, limits.Limits(), []))


@pytest.mark.parametrize(
    ("kind", "name", "text", "said"),
    [
        ("flow", "k", "2", r"Got k for a model that gives \['flow'\], which are no classes. Leave"),
        ("flow", "up", "z", r"Got up for a model that reads \['frames'\], which are no points"),
        ("video", "up", "y", r"Got up for a model that reads \['video'\], which are no points"),
        ("video", "arrays", "npy", r"Got arrays for a model that gives \['label'\], which are no"),
        ("flow", "num_windows", "3", "num_windows is 3, but none of the inputs .*; expected 1"),
        ("points", "up", "x", r"^Unknown up 'x'; expected one of \['y', 'z'\]"),
        ("flow", "arrays", "pngs", r"Unknown arrays 'pngs'; .* Did you mean 'png'\?"),
        ("video", "num_windows", "9" * 30, "num_windows is 9{30}; expected .*at most 2147483647"),
    ],
)
def test_what_the_model_has_no_use_for_or_can_not_be_is_refused(kind, name, text, said):
    with pytest.raises(config.UserError, match=said):
        parameters_of(kind).read("/predict", [(name, text)])


@pytest.mark.parametrize(
    ("kind", "query"),
    [
        ("points", {"k": 2, "up": "z", "num_windows": 1}),
        ("flow", {"arrays": "png"}),
        ("video", {"k": 1, "num_windows": 3}),
    ],
)
def test_what_is_of_use_is_read_and_the_rest_has_its_default(kind, query):
    found = parameters_of(kind).read("/predict", [(n, str(x)) for n, x in query.items()])
    assert found == {"k": 5, "num_windows": 1, "up": "y", "arrays": "lists"} | query


def test_a_parameter_that_is_there_twice_is_refused():
    with pytest.raises(config.UserError, match="Got k twice; expected it once. Leave one out"):
        parameters_of("points").read("/predict", [("k", "1"), ("k", "2")])
