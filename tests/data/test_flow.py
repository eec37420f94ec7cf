"""Frames and flow: formats, cuts in step, what is not known."""

import fractions
import io
import struct

import numpy as np
import PIL.Image
import pytest

from perceiver_jax.data import errors
from perceiver_jax.data import fields as fields_lib
from perceiver_jax.data.fields import flow, frames

SIZE = (5, 7)


def png(pixels):
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


def flo(values):
    height, width, _ = values.shape
    return b"PIEH" + struct.pack("<ii", width, height) + values.astype("<f4").tobytes()


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def kitti(values, known):
    """A PNG of 16 bits, as KITTI's development kit writes them."""
    import av

    levels = np.zeros((*known.shape, 3), np.uint16)
    levels[..., :2] = np.round(values * 64 + 2**15)
    levels[..., 2] = known
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt = known.shape[1], known.shape[0], "rgb48be"
    codec.time_base = fractions.Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(levels, format="rgb48le").reformat(format="rgb48be")
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def make_flow():
    return np.random.RandomState(0).randint(-99, 99, (11, 13, 2)).astype(np.float32) / 4


def read(field, value, window=0.5, rng=None, name="flow"):
    return fields_lib.named(name, field.read(value, window, rng))


@pytest.mark.parametrize("form", ["flo", "npy", "kitti", "array"])
def test_every_format_gives_the_same_flow(form):
    values = make_flow()
    known = np.ones(values.shape[:2], bool)
    value = {
        "flo": lambda: flo(values),
        "npy": lambda: npy(values),
        "kitti": lambda: kitti(values, known),
        "array": lambda: values,
    }[form]()
    got = read(flow.Flow((11, 13)), value)
    np.testing.assert_array_equal(got["flow"], values)
    assert got["flow_mask"].all()


def test_what_is_not_known_is_zero_and_masked():
    values = make_flow()
    known = np.random.RandomState(1).uniform(size=values.shape[:2]) < 0.7
    unknown = {
        "flo": flo(np.where(known[..., None], values, 1.7e9)),
        "npy": npy(np.where(known[..., None], values, np.nan)),
        "third": np.concatenate([values, known[..., None]], axis=-1),
        "kitti": kitti(values, known),
    }
    for form, value in unknown.items():
        got = read(flow.Flow((11, 13)), value)
        np.testing.assert_array_equal(got["flow_mask"], known, err_msg=form)
        np.testing.assert_array_equal(got["flow"], np.where(known[..., None], values, 0))


def test_frames_and_flow_are_cut_and_mirrored_in_step():
    rows, columns = np.mgrid[:11, :13].astype(np.float32)
    first = np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)
    pair, values = [png(first), png(first + 100)], np.stack([columns, rows], axis=-1)
    seen = set()
    for window in np.random.default_rng(0).random(20):
        rng = np.random.default_rng(0)
        got = read(frames.Frames(SIZE, flip=True), pair, window, rng, "frames")["frames"]
        moved = read(flow.Flow(SIZE, flip=True), values, window, rng)["flow"]
        assert rng.random() == np.random.default_rng(0).random()  # Nothing was drawn.
        np.testing.assert_array_equal(got[0, ..., 0], moved[..., 1])
        mirrored = moved[0, 1, 0] > moved[0, 0, 0] if moved[0, 0, 0] < 0 else False
        np.testing.assert_array_equal(got[0, ..., 1], np.abs(moved[..., 0]))
        assert (got[1] - got[0] == 100)[..., :2].all()
        seen.add((tuple(got[0, 0, 0]), bool(mirrored), moved[0, 1, 0] < 0))
    assert len(seen) > 8
    assert {negative for *_, negative in seen} == {True, False}


def test_in_evaluation_the_centre_is_cut():
    values = make_flow()
    np.testing.assert_array_equal(read(flow.Flow(SIZE), values)["flow"], values[3:8, 3:10])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"PIEH" + struct.pack("<ii", 13, 11) + b"short", "truncated"),
        (b"PIEH", "truncated"),
        (b"no flow at all", "neither .flo"),
        (npy(np.zeros((11, 13), np.float32)), r"not a flow: float32 \[11, 13\]"),
        (png(np.zeros((11, 13, 3), np.uint8)), "not of 16 bits"),
        (
            np.zeros((4, 13, 2), np.float32),
            "13 x 4 pixels; expected at least 7 x 5, the image_size",
        ),
    ],
)
def test_what_is_no_flow_is_a_bad_record(value, message):
    with pytest.raises(errors.BadDataError, match=message):
        read(flow.Flow(SIZE), value)


def test_frames_of_two_sizes_are_no_pair():
    pair = [png(np.zeros((11, 13, 3), np.uint8)), png(np.zeros((11, 14, 3), np.uint8))]
    with pytest.raises(errors.BadDataError, match="13 x 11 and 14 x 11 pixels"):
        read(frames.Frames(SIZE), pair, name="frames")
    with pytest.raises(errors.BadDataError, match="1 pictures; expected 2"):
        read(frames.Frames(SIZE), pair[:1], name="frames")


@pytest.mark.parametrize("size", [(5,), (5, 0), (5, 7, 3)])
def test_a_size_is_height_and_width(size):
    with pytest.raises(ValueError, match="image_size is .* expected height and width"):
        frames.Frames(size)
