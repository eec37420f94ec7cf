"""Maps of attention over what they are of, as pixels."""

import numpy as np
import pytest

from perceiver_jax import attention_pictures, config
from perceiver_jax.data.fields import text

LOW, HIGH = attention_pictures.colours([0, 1]).astype(int)
SIZE = {  # Of an example and of its map, by kind of input.
    "array": ((5, 7, 2), (5, 7)),
    "audio": ((44,), (11,)),
    "frames": ((2, 5, 7, 3), (5, 7)),
    "image": ((10, 14, 3), (5, 7)),
    "mel": ((11, 13), (11, 13)),
    "point_cloud": ((17, 3), (17,)),
    "text": ((19,), (19,)),
    "video": ((4, 10, 14, 3), (2, 5, 7)),
}


def example(kind):
    """An input of random numbers, and the place of one of its cells."""
    rng = np.random.default_rng(0)
    shape, grid = SIZE[kind]
    if kind in ("frames", "image", "video"):
        return rng.integers(0, 256, shape, np.uint8), tuple(n - 2 for n in grid)
    if kind == "text":
        return text.encode(b"nineteen bytes long"), (17,)
    return rng.uniform(-1, 1, shape).astype(np.float32), tuple(n - 2 for n in grid)


def share(picture, colour):
    """How much of a picture has a colour, and where the middle of it is, from 0 to 1."""
    found = np.argwhere((picture == colour).all(axis=2))
    return len(found) / picture[..., 0].size, (found.mean(axis=0) + 0.5) / picture.shape[:2]


@pytest.mark.parametrize("kind", SIZE)
def test_the_highest_cell_of_each_kind_is_red_and_the_others_are_blue(kind):
    values, cell = example(kind)
    grid = np.zeros(SIZE[kind][1])
    grid[cell] = 3
    picture = attention_pictures.overlay(kind, values, grid, opacity=1, mark=False)
    red, blue = (share(picture, colour)[0] for colour in (HIGH, LOW))
    assert red > 0 and blue / red == pytest.approx(grid.size - 1, rel=0.35)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("array", (3.5 / 5, 5.5 / 7)),
        ("audio", (1 / 2, 9.5 / 11)),
        ("image", (3.5 / 5, 5.5 / 7)),
        ("mel", (1.5 / 13, 9.5 / 11)),  # High frequencies are above.
        ("text", (1 / 2, 17.5 / 32)),  # Of a line of 32 letters.
        ("video", (3.5 / 5, 5.5 / 14)),  # In the first of two frames side by side.
    ],
)
def test_a_cell_is_drawn_where_it_is_in_the_input(kind, expected):
    values, cell = example(kind)
    grid = np.zeros(SIZE[kind][1])
    grid[cell] = 3
    picture = attention_pictures.overlay(kind, values, grid, opacity=1, mark=False)
    np.testing.assert_allclose(share(picture, HIGH)[1], expected, atol=0.04)


def test_the_last_patch_of_a_series_is_as_wide_as_the_others():
    grid = np.array([0, 0, 0, 3.0])  # Of 10 steps in patches of 3.
    series = np.repeat(np.eye(10)[8], 2).reshape(10, 2)
    picture = attention_pictures.overlay("array", series, grid, mark=False)
    peak = np.flatnonzero((picture[:30] == 30).all(axis=2).any(axis=0)).mean() / picture.shape[1]
    assert peak == pytest.approx(8.5 / 12, abs=0.05)
    changes = np.flatnonzero((picture[-1, 1:] != picture[-1, :-1]).any(axis=1)) + 1
    np.testing.assert_array_equal(changes, [picture.shape[1] * 9 // 12])


@pytest.mark.parametrize("kind", SIZE)
def test_colours_are_mixed_with_the_input_and_the_highest_is_framed(kind):
    values, cell = example(kind)
    grid = np.random.default_rng(1).normal(size=SIZE[kind][1])
    draw = attention_pictures.overlay
    alone, mixed, raw = (draw(kind, values, grid, opacity=x) for x in (0, 0.5, 1))
    assert alone.shape == mixed.shape == raw.shape and mixed.dtype == np.uint8
    assert (alone != mixed).any()
    assert kind == "point_cloud" or (mixed != raw).any()
    assert (draw(kind, values, grid, mark=False) != draw(kind, values, grid)).any()


def test_what_is_masked_is_grey_and_has_no_part_in_the_colours():
    grid = np.array([[-np.inf, 1.0], [2.0, -np.inf]])
    pixels = np.zeros((2, 2, 3), np.uint8)
    picture = attention_pictures.overlay("image", pixels, grid, opacity=1, mark=False)
    cells = picture[56::112, 56::112]
    np.testing.assert_array_equal(cells[0, 1], LOW)
    np.testing.assert_array_equal(cells[1, 0], HIGH)
    assert len(set(cells[0, 0].tolist())) == 1 and (cells[0, 0] == cells[1, 1]).all()
    nothing = attention_pictures.overlay("image", pixels, np.full((2, 2), -np.inf))
    assert len(np.unique(nothing)) == 1


def test_large_inputs_are_shrunk_and_the_highest_cell_stays():
    grid = np.zeros((50, 70))
    grid[31, 64] = 1
    pixels = np.zeros((50, 70, 3), np.uint8)
    picture = attention_pictures.overlay("image", pixels, grid, side=14, opacity=1, mark=False)
    assert picture.shape == (10, 14, 3)
    np.testing.assert_array_equal(np.argwhere((picture == HIGH).all(axis=2)), [[6, 12]])
    line = np.zeros(5000)
    line[4321] = 1
    picture = attention_pictures.overlay("audio", np.zeros(10_000), line, opacity=1, mark=False)
    assert share(picture, HIGH)[0] > 0


def test_colours_are_seen_beside_loud_sound():
    loud = np.tile([1.0, -1.0], 5000)
    picture = attention_pictures.overlay("audio", loud, np.arange(20.0), opacity=0.6, mark=False)
    height = len(picture)
    assert (picture[height // 2] == picture[height // 2, 0]).all()  # The sound itself.
    for edge in (picture[0], picture[-1]):
        assert len(np.unique(edge, axis=0)) == 20


def test_limits_that_are_given_are_those_of_the_colours():
    grid = np.array([0.0, 1.0, 4.0])
    picture = attention_pictures.overlay(
        "array", np.zeros((3, 1)), grid, limits=(1, 4), opacity=1, mark=False
    )
    np.testing.assert_array_equal(picture[0, [10, 200]], [LOW, LOW])


def test_a_letter_of_several_bytes_has_the_colour_of_the_highest_and_gaps_are_drawn():
    ids = np.concatenate([text.encode("aß".encode()), [text.MASK, text.PAD]])
    assert attention_pictures._letters(ids[:-1]) == [("a", 0, 1), ("ß", 1, 3), ("_", 3, 4)]
    grid = np.array([0.0, 0.0, 5.0, 0.0, -np.inf])
    picture = attention_pictures.overlay("text", ids, grid, opacity=1)
    assert share(picture, HIGH)[0] > 0


def test_of_many_frames_eight_evenly_spaced_ones_are_drawn():
    assert attention_pictures.frames_shown(3) == [0, 1, 2]
    assert attention_pictures.frames_shown(15) == [0, 2, 4, 6, 8, 10, 12, 14]


def test_the_map_of_a_whole_batch_is_an_error():
    with pytest.raises(config.UserError, match=r"shape \(1, 1, 1, 5, 7\).*Take one of each"):
        attention_pictures.overlay(
            "image", np.zeros((5, 7, 3), np.uint8), np.zeros((1, 1, 1, 5, 7))
        )


def test_an_input_without_a_grid_is_one_patch():
    picture = attention_pictures.overlay("label", np.int32(2), np.ones(1), opacity=1)
    assert (picture == LOW).all()
    picture = attention_pictures.overlay(
        "array", np.zeros(3), np.float32(2), limits=(0, 2), opacity=1
    )
    assert (picture == HIGH).all()
