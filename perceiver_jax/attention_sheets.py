"""Contact sheets of attention: rows are layers, columns latents, sections inputs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from perceiver_jax import attention_looks, attention_pictures
from perceiver_jax import config as config_lib

if TYPE_CHECKING:
    from matplotlib import figure as mpl_figure

KINDS = ("scores", "weights")
OVERLAY, RAW = "overlay", "raw"
BOTH = "both"  # Of either.
MAX_COLUMNS = 8  # Of more latents, the maps of a row are one picture.
SIDE = 168

_SMALL_SIDE, _MANY_WIDTH = 56, 1000  # Pixels, of pictures of which many are in a row, and of these.
_DPI = 110
_GAP, _LINE, _LABELS, _MARGIN = 12, 15, 132, 12  # Pixels.
_LEAST = 140  # Pixels of a column, for its words.
_BAR = (140, 10)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a sheet.

    Attributes:
      section: what all its maps are over, such as the name of an input.
      heading: of the section.
      beside: the input alone; None if there is none.
      label: which layer and head, and what of them.
      columns: what each picture is of.
      pictures: one a latent, or one of all.
      captions: of each.
    """

    section: str
    heading: str
    beside: np.ndarray | None
    label: str
    columns: Sequence[str]
    pictures: Sequence[np.ndarray]
    captions: Sequence[str]


def draw_attention(
    run: Any,
    batch: Mapping[str, np.ndarray],
    *,
    title: str = "",
    kind: str = BOTH,
    draw: str = OVERLAY,
    side: int = SIDE,
    **choice: Any,
) -> "mpl_figure.Figure":
    """Draws what a model looks at in one example.

    Args:
      run: what `perceiver_jax.load_run` or `load_pretrained` returned.
      batch: as of `Run.prepare`, of one example.
      title: of the sheet.
      kind: 'scores' before the softmax, 'weights' after it, or 'both'.
      draw: 'overlay' over the input, 'raw' without it, or 'both'.
      side: of a picture, in pixels.
      **choice: `layers`, `latents`, `num_latents` and `heads`, as of `attention_looks.look`.

    Raises:
      UserError: as `attention_looks.look`.
    """
    inputs = attention_looks.inputs_of(run, batch)
    rows = []
    for found in attention_looks.look(run, batch, **choice):
        rows += draw_rows(run, inputs, found, kind=kind, draw=draw, side=side)
    return draw_sheet(rows, title)


def draw_rows(
    run: Any,
    inputs: Mapping[str, np.ndarray],
    look: attention_looks.Look,
    *,
    kind: str = BOTH,
    draw: str = OVERLAY,
    side: int = SIDE,
) -> list[Row]:
    """Draws the maps of a layer; arguments as of `draw_attention`, inputs without their batch."""
    kinds, draws = _both("kind", kind, KINDS), _both("draw", draw, (OVERLAY, RAW))
    heads = range(len(look.heads))
    if not look.reads:
        return [_self_row(look, kind, head, side) for head in heads for kind in kinds]
    return [
        _row(look, name, _Drawing(run, inputs, look, name, head, kind, how == RAW, side))
        for name in look.maps
        for head in heads
        for kind in kinds
        for how in draws
    ]


@dataclasses.dataclass(frozen=True)
class _Drawing:
    """How maps are drawn: of an input, a head, scores or weights, raw or over the input."""

    run: Any
    inputs: Mapping[str, np.ndarray]
    look: attention_looks.Look
    name: str
    head: int
    kind: str
    is_raw: bool
    side: int

    def grid(self, place: int) -> np.ndarray:
        """The map of the latent in a place."""
        return self.look.maps[self.name][self.kind][self.head, place]

    def picture(self, place: int, **options: Any) -> np.ndarray:
        """Draws the map of the latent in a place."""
        grid = self.grid(place)
        if self.kind == "weights":
            options["limits"] = (0, max(float(grid.max()), 1e-30))
        if self.is_raw:
            options["opacity"] = 1
        kind = self.run.config.model.inputs[self.name].kind
        options = {"side": self.side, **options}
        return attention_pictures.overlay(kind, self.inputs[self.name], grid, **options)


def _row(look: attention_looks.Look, name: str, drawing: _Drawing) -> Row:
    chosen = look.chosen[name]
    places = range(len(chosen.latents))
    label = "\n".join([*_label(look, drawing.head), drawing.kind + ", raw" * drawing.is_raw])
    size = " x ".join(map(str, drawing.grid(0).shape)) or "1"
    beside = drawing.picture(0, opacity=0) if not drawing.is_raw else None
    heading = f"{name}: {size} input{'s' * (size != '1')}"
    if len(places) > MAX_COLUMNS:
        small = [drawing.picture(i, side=_SMALL_SIDE, mark=False) for i in places]
        columns = max(1, _MANY_WIDTH // (small[0].shape[1] + 2))
        tiled = attention_pictures.tiled(small, columns)
        words = [f"{len(places)} latents, {columns} a line"]
        return Row(name, heading, beside, label, words, [tiled], [""])
    columns = [f"latent {i}" for i in chosen.latents]
    if chosen.alike is not None:
        total = sum(chosen.alike)
        columns = [f"{x}, like {n} of {total}" for x, n in zip(columns, chosen.alike, strict=True)]
    captions = [_caption(drawing.kind, drawing.grid(i), look) for i in places]
    return Row(
        name, heading, beside, label, columns, [drawing.picture(i) for i in places], captions
    )


def _self_row(look: attention_looks.Look, kind: str, head: int, side: int) -> Row:
    grids = [maps[kind][head] for maps in look.maps.values()]
    options = {"side": side, "opacity": 1, "mark": False}
    pictures = [
        attention_pictures.overlay(
            "array",
            grid[..., None],
            grid,
            limits=(0, float(grid.max())) if kind == "weights" else None,
            **options,
        )
        for grid in grids
    ]
    return Row(
        "",
        "latents to latents: each line is a latent, each column what it attends to",
        None,
        "\n".join([*_label(look, head), kind]),
        [name.replace("_", " ") for name in look.maps],
        pictures,
        [_caption(kind, grid, look) for grid in grids],
    )


def _label(look: attention_looks.Look, head: int) -> Iterator[str]:
    yield f"layer {look.index}"
    yield look.weights
    if look.reads not in ("", "all"):
        yield f"reads {look.reads}"
    if look.num_heads > 1:
        name = look.heads[head]
        is_mean = name == attention_looks.MEAN
        yield f"mean of {look.num_heads} heads" if is_mean else f"head {name} of {look.num_heads}"


def _caption(kind: str, grid: np.ndarray, look: attention_looks.Look) -> str:
    """Where the colours begin and end; of weights also how much there is, and beside even ones."""
    if kind == "scores":
        found = grid[np.isfinite(grid)]
        ends = dict.fromkeys(
            f"{x:.3g}" for x in (found.min(initial=np.inf), found.max(initial=-np.inf))
        )
        return " to ".join(ends) if found.size else "masked"
    highest, here = float(grid.max()), float(grid.sum())
    caption = f"highest {_percent(highest)}"
    if highest * look.num_inputs >= 1:  # An even one would be one over all that is read.
        times = highest * look.num_inputs
        caption += f", {times:,.0f} x even" if times >= 10 else f", {times:.1f} x even"
    is_shared = look.reads and len(look.maps) > 1
    return f"{_percent(here)} of the weight\n{caption}" if is_shared else caption


def _percent(share: float) -> str:
    if share < 1e-4:
        return "below 0.01 %"
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _both(what: str, given: str, known: Sequence[str]) -> Sequence[str]:
    config_lib.check_known(what, given, [*known, BOTH])
    return known if given == BOTH else (given,)


def draw_sheet(rows: Iterable[Row], title: str = "") -> "mpl_figure.Figure":
    """Puts rows together, those of an input below it; pictures keep their pixels.

    Args:
      rows: of `draw_rows`, of any number of layers.
      title: of the sheet.
    """
    from matplotlib import figure as mpl_figure  # Here, for it takes a while.

    sections: dict[str, list[Row]] = {}
    for row in rows:
        sections.setdefault(row.section, []).append(row)
    placed: list[tuple[int, int, Any]] = []  # Left, top, and a text or a picture.
    top = _MARGIN + _LINE * (2 + title.count("\n")) + _GAP
    width = 0
    for each in sections.values():
        top, right = _place(each, top, placed)
        width = max(width, right)
    width = max(width, 7 * max(map(len, title.splitlines() or [""])), 480) + _MARGIN
    figure = mpl_figure.Figure(figsize=(width / _DPI, top / _DPI), dpi=_DPI)
    _write(figure, _MARGIN, _MARGIN, title, weight="bold")
    _draw_scale(figure, _MARGIN, _MARGIN + _LINE * (1 + title.count("\n")))
    for left, above, content in placed:
        if isinstance(content, str):
            _write(figure, left, above, content)
        else:
            _show(figure, left, above, content)
    return figure


def _place(rows: Sequence[Row], top: int, placed: list[tuple[int, int, Any]]) -> tuple[int, int]:
    """Places a section; returns where the next one may begin and how wide it is."""
    first = rows[0]
    placed.append((_MARGIN, top, first.heading))
    top += _LINE + _GAP // 2
    labels = _MARGIN
    if first.beside is not None:
        placed.append((_MARGIN, top + _LINE, first.beside))
        labels += max(_LABELS, first.beside.shape[1] + _GAP)
    start = labels + _LABELS
    width = max(_LEAST, *(picture.shape[1] for row in rows for picture in row.pictures))
    for i, words in enumerate(first.columns):
        placed.append((start + i * (width + _GAP), top, words))
    top += _LINE
    begin, right = top, start
    for row in rows:
        placed.append((labels, top, row.label))
        for i, (picture, caption) in enumerate(zip(row.pictures, row.captions, strict=True)):
            at = start + i * (width + _GAP)
            placed.append((at, top, picture))
            placed.append((at, top + picture.shape[0] + 1, caption))
            right = max(right, at + width)
        lines = max(caption.count("\n") + 1 for caption in row.captions)
        height = max(picture.shape[0] for picture in row.pictures) + lines * _LINE
        top += max(height, _LINE * (row.label.count("\n") + 1)) + _GAP
    if first.beside is not None:
        top = max(top, begin + first.beside.shape[0] + _GAP)
    return top + _GAP, right


def _draw_scale(figure: Any, left: int, top: int) -> None:
    _write(figure, left, top, "colours: lowest")
    width, height = _BAR
    scale = attention_pictures.colours(np.linspace(0, 1, width))
    at = left + 100
    _show(figure, at, top + 2, np.broadcast_to(scale, (height, width, 3)))
    words = "highest of each map (of weights: 0 to the highest); framed: the highest"
    _write(figure, at + width + 6, top, words)


def _write(figure: Any, left: int, top: int, words: str, **style: Any) -> None:
    width, height = figure.get_size_inches() * _DPI
    figure.text(
        left / width, 1 - top / height, words, size=7.5, va="top", parse_math=False, **style
    )


def _show(figure: Any, left: int, top: int, picture: np.ndarray) -> None:
    width, height = figure.get_size_inches() * _DPI
    rows, columns, _ = picture.shape
    axes = figure.add_axes(
        (left / width, 1 - (top + rows) / height, columns / width, rows / height)
    )
    axes.imshow(picture, aspect="auto", interpolation="nearest")
    axes.set_axis_off()
