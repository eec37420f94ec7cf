"""Reading shapes: what is sampled, and what is refused before it takes memory."""

import io
import itertools
import re
import zipfile

import h5py
import numpy as np
import pytest
import scipy.stats
import trimesh

from perceiver_jax.data import errors
from perceiver_jax.data.builders.shapes import clouds, mesh, reading, tables
from tests.data.shape_files import box_off

SIZE = np.array([2.0, 3.0, 7.0])


def test_a_call_that_a_library_does_not_take_is_no_damaged_file(tmp_path, monkeypatch):
    (tmp_path / "a.off").write_bytes(box_off(SIZE))
    monkeypatch.setattr(mesh, "sample_mesh", lambda *_, lacking: None)
    with pytest.raises(TypeError, match="lacking"):
        reading.read(make_task(tmp_path / "a.off", "a.off"))


def refusal(call, *args):
    with pytest.raises(errors.BadDataError) as error:
        call(*args)
    return error.value


def test_points_are_uniform_by_area_over_and_within_the_faces():
    points = mesh.sample_mesh(box_off(SIZE), ".off", 30_000, 0)
    counts, areas = [], []
    for axis, side in itertools.product(range(3), (-1, 1)):
        others = [i for i in range(3) if i != axis]
        on_side = points[np.abs(points[:, axis] - side * SIZE[axis] / 2) < 1e-9][:, others]
        edges = [np.linspace(-SIZE[i] / 2, SIZE[i] / 2, 4) for i in others]
        counts += np.histogram2d(*on_side.T, bins=edges)[0].ravel().tolist()
        areas += [SIZE[others].prod() / 9] * 9
    assert sum(counts) == 30_000
    expected = 30_000 * np.array(areas) / sum(areas)
    assert scipy.stats.chisquare(counts, expected).pvalue > 0.001


def test_points_depend_on_the_seed_alone():
    first, again, other = (mesh.sample_mesh(box_off(SIZE), ".off", 11, s) for s in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.isclose(first, other).all(axis=1).any()


@pytest.mark.parametrize("header", ["OFF", "OFF ", "OFF\n\n", "# a comment\nOFF # another\n"])
def test_off_headers_of_every_kind_give_the_same_points(header):
    expected = mesh.sample_mesh(box_off(SIZE), ".off", 11, 0)
    points = mesh.sample_mesh(box_off(SIZE, header), ".off", 11, 0)
    np.testing.assert_array_equal(points, expected)


@pytest.mark.parametrize("form", ["obj", "ply", "stl", "stl_ascii"])
def test_every_form_of_mesh_gives_points_on_its_surface(form):
    data = trimesh.creation.box(SIZE).export(file_type=form)
    data = data.encode() if isinstance(data, str) else data
    points = mesh.sample_mesh(data, "." + form.removesuffix("_ascii"), 101, 0)
    np.testing.assert_allclose(np.max(np.abs(points) / (SIZE / 2), axis=1), 1, atol=1e-6)


def test_a_ply_without_faces_gives_its_points():
    stored = np.arange(39.0).reshape(13, 3)
    data = trimesh.PointCloud(stored).export(file_type="ply")
    points = mesh.sample_mesh(data, ".ply", 7, 0)
    assert {tuple(point) for point in points} < {tuple(point) for point in stored}


TRIANGLE = "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
QUAD = "OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n"
PLY = "ply\nformat binary_little_endian 1.0\nelement vertex 1000000000\n"
PLY += "property float x\nend_header\n0\n"
DAMAGED = {
    "a thousand million faces": (TRIANGLE.replace("3 1 0", "3 1000000000 0"), ".off", "incomplete"),
    "a thousand million vertices": (PLY, ".ply", "incomplete"),
    "an STL of four thousand million faces": (
        "\0" * 80 + "\x7f" * 4 + "\0" * 50,
        ".stl",
        "incomplete",
    ),
    "a quadrangle for two faces": (QUAD, ".off", "incomplete"),
    "a missing line": (TRIANGLE.replace("3 0 1 2\n", ""), ".off", "incomplete"),
    "a face of two corners": (TRIANGLE.replace("3 0 1 2", "2 0 1"), ".off", "incomplete"),
    "an STL without end": ("solid x\nfacet normal 0 0 1\nouter loop\n", ".stl", "incomplete"),
    "no header": ("0 0 0\n", ".off", "unreadable"),
    "an unfinished header": ("ply\nformat ascii 1.0\n", ".ply", "unreadable"),
    "a NaN": (TRIANGLE.replace("1 0 0", "1 nan 0"), ".off", "not finite"),
    "an infinity": (TRIANGLE.replace("1 0 0", "1 1e999 0"), ".off", "not finite"),
    "no area": (TRIANGLE.replace("0 1 0", "2 0 0"), ".off", "no area"),
    "overflowing area": (TRIANGLE.replace("1 0 0", "1e300 0 0"), ".off", "no area"),
    "no faces": ("OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", ".off", "no faces"),
    "nothing": ("OFF\n0 0 0\n", ".off", "no faces"),
    "an empty OBJ": ("", ".obj", "no faces"),
    "a relative index": ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf -1 -2 -3\n", ".obj", "unsupported index"),
    "index 0": ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n", ".obj", "unsupported index"),
    "index 9 of 3": ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", ".obj", "index out of range"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_meshes_are_refused(what):
    text, suffix, cause = DAMAGED[what]
    data = text.encode("latin-1")
    with np.errstate(all="ignore"):
        assert refusal(mesh.sample_mesh, data, suffix, 5, 0).cause == cause


def test_a_ply_index_out_of_range_is_refused():
    header = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
    header += (
        "property float z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    data = f"{header}0 0 0\n1 0 0\n0 1 0\n3 0 1 -2\n".encode()
    assert refusal(mesh.sample_mesh, data, ".ply", 5, 0).cause == "index out of range"


def test_files_beyond_the_limit_are_refused_unread(monkeypatch):
    monkeypatch.setattr(clouds, "MAX_BYTES", 100)
    assert refusal(mesh.sample_mesh, box_off(SIZE), ".off", 5, 0).cause == "too large"


@pytest.mark.parametrize(
    "suffix, data", [(".off", b"OFF" + b" " * 60_000), (".ply", b"\n" * 60_000)]
)
def test_headers_of_mere_white_space_are_refused(suffix, data):
    with pytest.raises(ValueError):  # After years, if patterns tried each way to divide it.
        mesh.sample_mesh(data + b"end_header", suffix, 5, 0)


def write_cloud(path, array):
    np.save(path, array)
    return path


def test_clouds_are_random_subsets_of_the_first_three_columns(tmp_path):
    stored = np.arange(1_000).reshape(100, 10)
    points = clouds.read_cloud(write_cloud(tmp_path / "cloud.npy", stored), 37, 0)
    rows = points[:, 0] // 10
    assert len(set(rows)) == 37
    np.testing.assert_array_equal(points, stored[rows, :3])


def test_damaged_clouds_are_refused(tmp_path):
    nan = np.ones((7, 3))
    nan[5, 1] = np.nan
    arrays = {"wrong shape": np.ones((7, 2)), "not finite": nan}
    arrays["wrong type"] = np.full((7, 3), "a")
    for cause, array in arrays.items():
        path = write_cloud(tmp_path / "cloud.npy", array)
        assert refusal(clouds.read_cloud, path, 5, 0).cause == cause


def test_a_cloud_that_claims_more_than_its_file_is_refused(tmp_path):
    path = write_cloud(tmp_path / "cloud.npy", np.ones((11, 3)))
    path.write_bytes(path.read_bytes().replace(b"(11, 3), }    ", b"(11000, 3), } "))
    with pytest.raises(ValueError, match="length is greater"):
        clouds.read_cloud(path, 5, 0)


def test_clouds_are_centred_and_fill_the_unit_ball(rng):
    points = clouds.normalise(1e6 + rng.normal(size=(53, 3)))
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-6)
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(1)
    assert refusal(clouds.normalise, np.ones((7, 3))).cause == "no extent"


def test_what_was_normalised_before_stays_as_it_is(rng):
    points = clouds.normalise(3 * rng.normal(size=(53, 3)) + 1)
    rounded = np.round(points * 32_767).astype(np.int16).astype(np.float32) / 32_767  # furniture11.
    for given in (points, rounded):
        np.testing.assert_array_equal(clouds.normalise(given), given)
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(clouds.normalise(1.001 * points), 1.001 * points)


@pytest.mark.parametrize("num_clouds", [10**9, 2**51])  # The latter has 0 items modulo 2**64.
def test_an_hdf5_file_that_claims_more_than_it_holds_is_refused(tmp_path, num_clouds):
    path = tmp_path / "ply_data_train0.h5"
    with h5py.File(path, "w") as file:  # Chunks that were never written take no space.
        file.create_dataset("data", (num_clouds, 2_048, 4), "f4", chunks=(1, 2_048, 4))
        file.create_dataset("label", data=np.zeros((5, 1), np.uint8))
    error = refusal(tables.read_hdf5, path)
    assert error.cause == "incomplete"
    assert f"claims {num_clouds * 2_048 * 4 * 4:,} bytes" in error.detail


def test_an_hdf5_file_may_not_name_other_files(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(84))
    path = tmp_path / "ply_data_train0.h5"
    with h5py.File(path, "w") as file:
        external = [(str(secret), 0, 84)]
        file.create_dataset("data", (1, 7, 3), "f4", external=external)
        file["label"] = np.zeros(1, int)
    assert "no data set 'data' inside" in refusal(tables.read_hdf5, path).detail


def test_an_npz_file_that_claims_more_than_it_holds_is_refused(tmp_path):
    path = tmp_path / "train.npz"
    buffer = io.BytesIO()
    header = {"descr": "<i2", "fortran_order": False, "shape": (10**9, 1_024, 3)}
    np.lib.format.write_array_header_1_0(buffer, header)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("points.npy", buffer.getvalue())
    assert refusal(tables.read_npz, path).cause == "incomplete"


def make_task(path, name, num_points=5):
    task = {"path": str(path), "name": name, "key": name, "class": "a", "z_up": False}
    return task | {"num_points": num_points}


def test_a_file_that_takes_too_long_is_left_out(tmp_path):
    (tmp_path / "box.off").write_bytes(box_off(SIZE))
    ((result,),) = reading.read_all([make_task(tmp_path / "box.off", "box")], time_limit=0.0001)
    assert result == ("box", "", ("took too long", "not done within 0.0001 s"))


def test_a_file_that_takes_all_memory_is_left_out(tmp_path):
    path = tmp_path / "cloud.npy"
    np.save(path, np.zeros((10_000_000, 3), np.int8))
    ((result,),) = reading.read_all([make_task(path, "cloud", 10_000_000)], max_memory=600 << 20)
    assert re.search("out of memory", str(result[2]))
