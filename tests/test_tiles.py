import numpy as np
import pytest

from perceiver_jax import config, tiles


def values(height, width, channels=2):
    return np.random.default_rng(0).normal(size=(height, width, channels)).astype(np.float32)


@pytest.mark.parametrize(
    "size", [(11, 13), (12, 14), (23, 29), (47, 13), (5, 29), (3, 2), (11, 97)]
)
def test_what_each_pixel_alone_decides_is_put_together_again(size):
    pictures = np.stack([values(*size), values(*size) + 1])
    blended = tiles.blend(lambda pair: 2 * pair[0] - pair[1], pictures, (11, 13), overlap=3)
    np.testing.assert_allclose(blended, values(*size) - 1, atol=1e-5)


def test_no_pixel_is_computed_alone_at_the_edge_of_a_tile_inside():
    seen = []
    tiles.blend(lambda x: seen.append(x) or x, values(11 + 8, 13), (11, 13), overlap=3)
    assert [x.shape for x in seen] == [(11, 13, 2)] * 2
    np.testing.assert_array_equal(seen[0], values(19, 13)[:11])
    np.testing.assert_array_equal(seen[1], values(19, 13)[8:])


def test_tiles_are_weighted_by_the_distance_to_their_edges():
    numbers = iter([0.0, 1.0])
    blended = tiles.blend(lambda x: np.full((7, 9, 1), next(numbers)), values(11, 9), (7, 9), 3)
    # Rows 4 to 6 are of both: 3, 2, 1 from the edge of the first, 1, 2, 3 from the second's.
    np.testing.assert_allclose(blended[:, 4, 0], [0] * 4 + [1 / 4, 1 / 2, 3 / 4] + [1] * 4)
    # At the left edge, where nothing is far from it, both count alike.
    np.testing.assert_allclose(blended[4:7, 0, 0], [0.5] * 3)


def test_pictures_smaller_than_a_tile_are_continued_by_their_edges():
    seen = []
    blended = tiles.blend(lambda x: seen.append(x) or x, values(5, 9), (7, 9), 3)
    np.testing.assert_array_equal(seen[0], np.pad(values(5, 9), ((1, 1), (0, 0), (0, 0)), "edge"))
    np.testing.assert_allclose(blended, values(5, 9), rtol=1e-6)


def test_the_frames_of_sintel_and_kitti_have_as_many_tiles_as_in_the_paper():
    assert tiles.count((436, 1024), (368, 496)) == 6
    assert tiles.count((375, 1242), (368, 496)) == 6
    assert tiles.count((368, 496), (368, 496)) == tiles.count((100, 80), (368, 496)) == 1
    assert tiles.count((1080, 1920), (368, 496)) == 16


def test_an_overlap_of_whole_tiles_is_refused():
    with pytest.raises(config.UserError, match="overlap is 7 .* 7 x 9 pixels"):
        tiles.blend(lambda x: x, values(11, 13), (7, 9), 7)
