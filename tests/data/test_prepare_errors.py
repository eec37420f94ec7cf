"""What a user is told of an example that can't be prepared."""

import importlib.util
import io
import os
import re
import sys

import numpy as np
import pytest

from perceiver_jax import config, data
from perceiver_jax.data import builders
from perceiver_jax.data.builders.clips import decode
from perceiver_jax.data.fields import array, audio, image, point_cloud, video
from tests.data import media, shape_files
from tests.data.photographs import photograph

CLIPS = "perceiver_jax.data.builders.clips"
SOUND = {"audio": audio.Audio(13_440)}
FILM = {"video": video.Video(7, 23)}
IMAGE = {"image": image.Image(31)}
POINTS = {"points": point_cloud.PointCloud(2_048)}


def test_of_several_that_are_wrong_the_first_is_named(tmp_path):
    path = tmp_path / "text.mp4"
    path.write_bytes(b"not a clip" * 100)  # Is found later than that there is no file.
    with pytest.raises(config.UserError, match=r"Can't read example 0 \(.*text.mp4\): undecodable"):
        data.prepare([path, tmp_path / "none.mp4"], SOUND)


MADE = {
    "image": IMAGE,
    "clip": FILM | SOUND,
    "sound": SOUND,
    "video": FILM,
    "points": POINTS,
    "mixed": IMAGE | POINTS,
    "array": {"x": array.Array("x", (3,), np.dtype(np.float32))},
    "bytes": {"x": array.Array("x", (3,), np.dtype(np.uint8))},
    "masked": {
        "x": array.Array("x", (3, 2), np.dtype(np.float32)),
        "x_mask": array.Array("x_mask", (3,), np.dtype(bool)),
    },
}
FRAMES = np.zeros((5, 8, 8, 3), np.uint8)


def _saved(values):
    file = io.BytesIO()
    np.save(file, np.array(values))
    return file.getvalue()


class _Executed:
    """What raises another error if it is unpacked."""

    def __reduce__(self):
        return exec, ("raise SystemExit",)


def _pickled():
    return _saved([_Executed()])


@pytest.mark.parametrize(
    ("made", "given", "message"),
    [
        (
            "image",
            "none.jpg",
            r"^Can't read example 0 \(none.jpg\): no such file or folder\. Correct it",
        ),
        ("image", "none.jpg/x", "no such file"),
        ("image", "", r"example 0 \(\): a directory"),
        ("image", "a\0b", "can't be read: .*embedded null"),
        ("image", os.devnull, "not a regular file"),
        ("image", {"image": "."}, r"example 0, input 'image' \(\.\): a directory\. Expected an im"),
        ("image", b"", "example 0: empty. Expected an image file, its bytes"),
        ("image", b"GIF89a but broken", "example 0: unsupported or damaged: begins as GIF"),
        ("image", photograph(0)[:700], "example 0: truncated: .*Correct it, or leave it out"),
        ("image", 3, "example 0: wrong type: int. Expected an image file"),
        (
            "image",
            io.BytesIO(photograph(0)),
            "example 0: wrong type: BytesIO. Expected an image fi",
        ),
        ("image", None, "example 0: wrong type: NoneType"),
        ("image", np.zeros((3, 50, 75), np.uint8), r"wrong form: uint8 \[3, 50, 75\]\. Expected"),
        ("image", np.zeros((50, 75, 3)), r"wrong form: float64 \[50, 75, 3\]"),
        ("image", np.zeros((0, 75, 3), np.uint8), r"wrong form: uint8 \[0, 75, 3\]"),
        ("image", {"picture": "a.jpg"}, "Unknown input of example 0 'picture'; expected one of"),
        ("image", {"imgae": "a.jpg"}, "Did you mean 'image'"),
        ("image", {}, "Got example 0 without 'image'; expected all of"),
        ("clip", "none.mp4", "no such file or folder. Correct it"),
        ("clip", ".", "a directory"),
        ("clip", b"", "empty. Expected a video or audio file"),
        ("clip", b"not a clip", "Can't read example 0: undecodable: "),
        ("clip", photograph(0), "example 0: "),
        ("clip", FRAMES, "as one ndarray for the inputs .*'video'.; expected each by its name"),
        ("sound", np.zeros(100), r"no rate: float64 \[100\] alone. Expected .*\(samples, rate\)"),
        ("sound", (44_100, np.zeros(100)), r"wrong type: \(int, ndarray\)"),
        ("sound", (np.zeros(100), 0), "wrong rate: 0 a second"),
        ("sound", (np.zeros(100), np.nan), "wrong rate: nan a second"),
        ("sound", (np.ones((2, 10_000)), 48_000), "refused: audio of 10000 channels"),
        ("sound", (np.ones(100, complex), 48_000), r"wrong form: complex128 \[100, 1\]"),
        ("sound", (np.full(100, np.inf), 48_000), "not finite"),
        ("sound", (np.zeros(100), 48_000), "silent"),
        ("video", FRAMES[0], r"wrong form: uint8 \[8, 8, 3\]"),
        ("video", FRAMES / 255, r"wrong form: float64 \[5, 8, 8, 3\]"),
        ("video", (FRAMES, "25"), r"wrong type: \(ndarray, str\)"),
        ("video", np.zeros((5, 8, 80, 3), np.uint8), "refused: frames of 80 x 8 pixels"),
        ("points", "none.off", "no such file or folder. Correct it"),
        ("points", b"OFF\n3 1000000000 0\n0 0 0\n", "example 0: incomplete"),
        ("points", b"nothing", "unsupported: of no kind that is known. Expected a mesh"),
        ("points", np.ones((50, 2)), r"wrong shape: \(50, 2\); expected \[points, 3"),
        ("points", np.full((50, 3), np.nan), "not finite: 50 of 50 points"),
        ("points", np.random.default_rng(0).normal(size=(50, 3)), "too few points: 50; expected"),
        (
            "mixed",
            "a.jpg",
            r"Got example 0 \(a.jpg\) as one str for the inputs \['image', 'points'\]",
        ),
        (
            "array",
            np.zeros(4),
            r"Got example 0 as float32 \[4\]; expected float32 \[3\], as in training",
        ),
        ("array", np.zeros(3, np.uint8), r"as uint8 \[3\]; expected float32"),
        ("array", np.zeros(3, complex), "as complex128; expected floats, integers or booleans"),
        ("array", {"x": [1, [2], 3]}, "Got example 0, input 'x' that make no array"),
        ("array", np.array([0, np.nan, 1]), "Got NaN, infinity .* in 'x' of example 0"),
        (
            "array",
            b"nothing",
            r"example 0: no \.npy file of numbers: it begins with .* Expected an array as those of",
        ),
        ("array", _pickled(), "example 0: no .npy file of numbers: Python objects. Expected an ar"),
        ("array", _saved([0, 1, 2])[:-1], "example 0: ValueError: EOF: reading array data"),
        (
            "array",
            b"PK" + _saved([0]),
            r"example 0: no \.npy file of numbers: it begins with .* Expected",
        ),
        ("bytes", np.zeros(3), r"as float32 \[3\]; expected uint8 \[3\]"),
        ("masked", {"x": np.zeros((3, 2)), "x_mask": [1, 2, 0]}, "as int64.*; expected bool"),
        ("masked", {"x_mask": [1, 1, 0]}, "without 'x'"),
    ],
)
def test_what_is_wrong_is_told_on_one_line(made, given, message):
    with pytest.raises(config.UserError, match=message) as error:
        data.prepare([given], MADE[made])
    assert "\n" not in str(error.value) and "example 0" in str(error.value)


def test_a_cloud_that_is_no_array_is_none(tmp_path):
    path = tmp_path / "bad.npy"
    path.write_bytes(b"nothing")
    with pytest.raises(
        config.UserError, match="no .npy file of numbers: it begins with b.nothin.. Expected"
    ) as error:
        data.prepare([path], MADE["points"])
    assert "pickle" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "Got no example"),
        (("a.jpg",), "Got examples of type str; expected a list"),
        (({"image": "a.jpg"},), "Got examples of type dict; expected a list"),
    ],
)
def test_examples_are_a_list(arguments, message):
    with pytest.raises(config.UserError, match=message):
        data.prepare(*arguments, MADE["image"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_windows": 0}, "num_windows is 0; expected at least 1"),
        ({"num_windows": 3}, "num_windows is 3, but none .*'image'.*Set num_windows=1"),
        ({"may_lack": ["imag"]}, "Unknown input in may_lack 'imag'.*Did you mean 'image'"),
        ({"up": "x"}, "Unknown axis in up 'x'"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(config.UserError, match=message):
        data.prepare([photograph(0)], MADE["image"], **settings)


def test_an_unreadable_file_is_told(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(photograph(0))

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    with pytest.raises(config.UserError, match=r"a.jpg\): can't be read: .*Permission denied"):
        data.prepare([path], MADE["image"])


def test_a_package_that_lacks_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(config.MissingPackageError, match="perceiver-haiku.meshes"):
        data.prepare([shape_files.box_off((2, 3, 7))], MADE["points"])
    for name in [name for name in sys.modules if name.startswith(CLIPS)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builders, "clips", None)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(config.MissingPackageError, match="perceiver-haiku.av"):
        data.prepare([b"anything"], MADE["clip"])


def test_a_part_of_a_clip_that_a_model_does_not_get_is_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(decode.WHOLE_FILE, "length", 1.0)
    path = media.write_clip(tmp_path / "long.wav", seconds=2.5)
    data.prepare([path], MADE["sound"])
    assert re.search(r"Of example 0 \(.*long.wav\) only the beginning is .* 2.50 s", caplog.text)
