import numpy as np
import pytest

from perceiver_jax.data.fields import point_cloud


@pytest.fixture
def cloud(rng):
    return (rng.normal(size=(211, 3)) * [1, 2, 3] + 5).astype(np.float32)


def test_clouds_are_centred_and_fill_the_cube(cloud, rng):
    settings = point_cloud.PointCloud(num_points=101, axis_scale=(0.5, 2.0), rotation_degrees=180)
    for points in (settings.read(cloud, 0.5, rng), settings.read(cloud, 0.5, None)):
        np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-6)
        assert np.abs(points).max() == 1
        assert (points.shape, points.dtype) == ((101, 3), np.float32)


def test_evaluation_takes_evenly_spaced_points(cloud):
    points = point_cloud.PointCloud(num_points=101, axis_scale=(0.5, 2.0)).read(cloud, 0.5, None)
    expected = cloud[np.arange(101) * 211 // 101 + 1]  # The middle one of its subsets.
    expected = expected - expected.mean(axis=0)
    np.testing.assert_allclose(points, expected / np.abs(expected).max(), rtol=1e-5)


def test_training_takes_other_points_every_time(cloud, rng):
    settings = point_cloud.PointCloud(num_points=101)
    assert not np.allclose(settings.read(cloud, 0.5, rng), settings.read(cloud, 0.5, rng))


def test_each_point_is_scaled_within_the_paper_s_range(rng):
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
    points = point_cloud.PointCloud(num_points=8).read(corners, 0.5, rng)
    lengths = np.linalg.norm(points, axis=1)
    assert lengths.max() / lengths.min() < 1.06  # 0.99 to 1.01, and the mean moves a little.
    assert np.ptp(lengths) > 1e-4


@pytest.mark.parametrize(
    "change", [{"axis_scale": (0.5, 2.0)}, {"rotation_degrees": 90.0}, {"translation": 0.3}]
)
def test_every_change_moves_points_in_training_only(cloud, change):
    plain = point_cloud.PointCloud(num_points=211, point_scale=0.0)
    changed = point_cloud.PointCloud(num_points=211, point_scale=0.0, **change)

    def coordinates(settings, rng):
        return np.sort(settings.read(cloud, 0.5, rng), axis=0)  # The order is random.

    same = coordinates(plain, np.random.default_rng(1))
    assert np.abs(coordinates(changed, np.random.default_rng(1)) - same).max() > 0.01
    np.testing.assert_array_equal(coordinates(changed, None), coordinates(plain, None))


def test_rotation_keeps_heights(cloud, rng):
    settings = point_cloud.PointCloud(num_points=211, point_scale=0.0, rotation_degrees=180.0)
    points = settings.read(cloud, 0.5, rng)
    centred = np.sort(cloud[:, 1] - cloud[:, 1].mean())
    ratio = np.sort(points[:, 1])[[0, -1]] / centred[[0, -1]]
    assert ratio[0] == pytest.approx(ratio[1], rel=1e-4)


def test_half_of_the_clouds_are_mirrored_left_to_right(cloud):
    plain = point_cloud.PointCloud(num_points=211, point_scale=0.0)
    mirror = point_cloud.PointCloud(num_points=211, point_scale=0.0, flip=True)
    mirrored = 0
    for seed in range(40):
        x, z = mirror.read(cloud, 0.5, np.random.default_rng(seed))[:, [0, 2]].T
        for sign in (1, -1):
            same = plain.read(cloud * np.float32([sign, 1, 1]), 0.5, np.random.default_rng(seed))
            if np.allclose(np.sort(same[:, 0]), np.sort(x), atol=1e-6):
                np.testing.assert_allclose(np.sort(same[:, 2]), np.sort(z), atol=1e-6)
                mirrored += sign == -1
    assert 10 < mirrored < 30


def test_windows_of_a_cloud_are_disjoint_subsets(rng):
    cloud = rng.normal(size=(202, 3)).astype(np.float32)
    settings = point_cloud.PointCloud(num_points=101)
    halves = [settings.read(cloud, position, None) for position in (0.0, 1.0)]
    expected = [cloud[0::2], cloud[1::2]]
    for half, points in zip(halves, expected, strict=True):
        points = points - points.mean(axis=0)
        np.testing.assert_allclose(half, points / np.abs(points).max(), atol=1e-6)


def test_dropped_points_are_replaced_by_copies(cloud, rng):
    settings = point_cloud.PointCloud(num_points=101, point_scale=0.0, max_dropped=0.5)
    distinct = [len(np.unique(settings.read(cloud, 0.5, rng), axis=0)) for _ in range(40)]
    assert 50 <= min(distinct) < 60
    assert max(distinct) > 90


def test_too_few_points_are_an_error(cloud):
    with pytest.raises(ValueError, match="too few points: 211; expected at least num_points=223"):
        point_cloud.PointCloud(num_points=223).read(cloud, 0.5, None)
