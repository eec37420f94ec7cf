import numpy as np
import pytest

from perceiver_jax import config
from perceiver_jax.tasks import flow_colours


def colours(*flow, longest=2.0):
    return flow_colours.flow_colours(np.array(flow, np.float32), longest)


def test_directions_have_the_hues_of_the_published_wheel():
    directions = colours((2, 0), (0, 2), (-2, 0), (0, -2))
    red, yellow, cyan, violet = directions
    np.testing.assert_allclose(red, [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(yellow, [1, 0.9, 0], atol=1e-6)  # 13.5 of 15 steps to yellow.
    np.testing.assert_allclose(cyan, [0, 9 / 11, 1], atol=1e-6)  # 27: 2 of 11 steps to blue.
    np.testing.assert_allclose(violet, [4.5 / 13, 0, 1], atol=1e-6)  # 40.5.


def test_the_shorter_the_paler_and_what_is_too_long_is_dark():
    np.testing.assert_allclose(colours((0, 0), (1, 0), (3, 0))[:, 1], [1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(colours((3, 0)), [[0.75, 0, 0]], atol=1e-6)


def test_what_is_not_known_is_black():
    np.testing.assert_array_equal(colours((np.nan, 1)), np.zeros((1, 3)))


@pytest.mark.parametrize("flow", [np.zeros((3, 2)), np.zeros((2, 3, 4)), np.zeros((0, 3, 2))])
def test_what_is_no_flow_is_refused(flow):
    with pytest.raises(config.UserError, match=r"expected .*\[H, W, 2\]"):
        flow_colours.flow_picture(flow)
