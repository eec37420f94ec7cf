"""Contact sheets: what is in which row and column, and that it can be seen."""

import io
import types

import numpy as np
import PIL.Image
import pytest

from perceiver_jax import attention_looks, attention_sheets, config
from tests import random_runs

CHOSEN = attention_looks.Chosen((7, 2), (3, 1))


def make_look(index=0, num_latents=2, heads=("mean",), inputs=("image", "sound"), **keys):
    """Weights of a cross-attend that reads a picture of 6 cells and sound of 4."""
    rng = np.random.default_rng(index)
    scores = rng.normal(size=(len(heads), num_latents, 10)).astype(np.float32)
    weights = np.exp(scores) / np.exp(scores).sum(axis=2, keepdims=True)
    both = {"scores": scores, "weights": weights}
    maps = {
        "image": {k: x[..., :6].reshape(*x.shape[:2], 2, 3) for k, x in both.items()},
        "sound": {k: x[..., 6:] for k, x in both.items()},
    }
    chosen = CHOSEN if num_latents == 2 else attention_looks.Chosen(tuple(range(num_latents)))
    settings = {
        "index": index,
        "weights": f"cross_attend_{index}",
        "reads": "all",
        "heads": heads,
        "num_heads": 1,
        "num_inputs": 10,
        "chosen": dict.fromkeys(inputs, chosen),
        "maps": {name: maps[name] for name in inputs},
    }
    return attention_looks.Look(**settings | keys)


RUN = types.SimpleNamespace(
    config=types.SimpleNamespace(
        model=types.SimpleNamespace(
            inputs={
                "image": types.SimpleNamespace(kind="image"),
                "sound": types.SimpleNamespace(kind="audio"),
            }
        )
    )
)
INPUTS = {
    "image": np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8),
    "sound": np.linspace(-1, 1, 44, dtype=np.float32),
}


def rows(*looks, **options):
    return [row for x in looks for row in attention_sheets.draw_rows(RUN, INPUTS, x, **options)]


def pixels(figure):
    file = io.BytesIO()
    figure.savefig(file)
    return np.asarray(PIL.Image.open(file).convert("RGB"))


def test_rows_are_layers_by_input_and_columns_are_latents():
    found = rows(make_look(0), make_look(2))
    assert [row.section for row in found] == ["image"] * 2 + ["sound"] * 2 + ["image"] * 2 + [
        "sound"
    ] * 2
    assert [row.label for row in found[:2]] == [
        "layer 0\ncross_attend_0\nscores",
        "layer 0\ncross_attend_0\nweights",
    ]
    assert list(found[0].columns) == ["latent 7, like 3 of 4", "latent 2, like 1 of 4"]
    assert found[0].heading == "image: 2 x 3 inputs" and found[2].heading == "sound: 4 inputs"


def test_raw_maps_and_single_kinds_are_drawn_where_they_are_asked_for():
    labels = [row.label for row in rows(make_look(), kind="weights", draw="both")]
    assert (
        labels == ["layer 0\ncross_attend_0\nweights", "layer 0\ncross_attend_0\nweights, raw"] * 2
    )
    with pytest.raises(config.UserError, match="kind"):
        rows(make_look(), kind="weight")
    with pytest.raises(config.UserError, match="draw"):
        rows(make_look(), draw="over")


def test_captions_say_what_colours_mean():
    look = make_look()
    scores, weights = rows(look)[:2]
    grid = look.maps["image"]["scores"][0, 0]
    assert scores.captions[0] == f"{grid.min():.3g} to {grid.max():.3g}"
    grid = look.maps["image"]["weights"][0, 0]
    share, highest = 100 * grid.sum(), 100 * grid.max()
    assert weights.captions[0].startswith(f"{share:.0f} % of the weight\nhighest {highest:.0f} %")
    alone = make_look(inputs=("image",))
    assert rows(alone)[1].captions[0].startswith("highest")


def test_heads_and_what_is_read_are_named():
    look = make_look(heads=(0, 3), num_heads=4, reads="image", inputs=("image",))
    assert [row.label.split("\n")[2:] for row in rows(look, kind="scores")] == [
        ["reads image", "head 0 of 4", "scores"],
        ["reads image", "head 3 of 4", "scores"],
    ]


def test_many_latents_are_one_picture_without_words():
    (row,) = rows(make_look(num_latents=11, inputs=("image",)), kind="scores")
    assert len(row.pictures) == 1 and row.columns[0].startswith("11 latents")


def test_latent_transformers_have_a_section_of_matrices():
    grid = np.eye(5, dtype=np.float32)[None]
    maps = {f"self_attend_{i}": {"scores": grid, "weights": grid} for i in range(2)}
    look = make_look(1, reads="", chosen={}, maps=maps, num_inputs=5)
    scores, weights = rows(look)
    assert list(scores.columns) == ["self attend 0", "self attend 1"]
    assert weights.captions[0] == "highest 100 %, 5.0 x even"
    picture = scores.pictures[0]
    step = len(picture) // 5
    diagonal = [picture[i * step + 1, i * step + 1].tolist() for i in range(5)]
    assert diagonal == diagonal[:1] * 5 and picture[1, -2].tolist() != diagonal[0]


def test_a_sheet_shows_every_picture_as_it_is():
    found = rows(make_look(0), make_look(2))
    figure = attention_sheets.draw_sheet(found, "a title")
    sheet, places = pixels(figure), []
    height, width, _ = sheet.shape
    for axes in figure.axes:
        (image,) = axes.images
        box = axes.get_position()
        rows_of, columns = (
            np.rint(x).astype(int)
            for x in (
                [height * (1 - box.y1), height * (1 - box.y0)],
                [width * box.x0, width * box.x1],
            )
        )
        np.testing.assert_array_equal(sheet[slice(*rows_of), slice(*columns)], image.get_array())
        places.append((*rows_of, *columns))
    # Beside them the two inputs, and the scale.
    assert len(places) == sum(len(row.pictures) for row in found) + 2 + 1
    for i, (top, bottom, left, right) in enumerate(places):
        for above, below, before, after in places[:i]:
            assert top >= below or above >= bottom or left >= after or before >= right


@pytest.mark.parametrize("kind", ["clips", "flow", "language"])
def test_models_of_all_kinds_are_drawn(kind):
    rng = np.random.default_rng(0)
    example = {
        "clips": {
            "audio": (rng.normal(0, 0.1, 4_800).astype(np.float32), 48_000),
            "video": rng.integers(0, 256, (3, 9, 8, 3), np.uint8),
        },
        "flow": rng.integers(0, 256, (2, 8, 12, 3), np.uint8),
        "language": "Zwölf [MASK]en",
    }[kind]
    run = getattr(random_runs, kind)()
    batch = run.prepare(example)
    inputs = attention_looks.inputs_of(run, batch)
    (look,) = attention_looks.look(run, batch, num_latents=2)
    found = attention_sheets.draw_rows(run, inputs, look)
    assert {row.section for row in found} == set(run.config.model.inputs)
    assert all(len(row.pictures) == 2 for row in found)
    assert pixels(attention_sheets.draw_sheet(found)).std() > 10
