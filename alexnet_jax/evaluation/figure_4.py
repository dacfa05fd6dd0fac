"""Draws the paper's figure 4: what a network takes images for (left), and their nearest training images (right)."""

import dataclasses
import io
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from alexnet_jax.files import write_file

COLUMNS = 4  # of predictions, as in the paper
RIGHT, OTHER = '#f4a3b3', '#7fa8d9'  # the paper's: the bar of the right class is pink
INK = '#222222'
# Inches: a picture on the left and its bars, the least and the most of one on the right, text below, space between.
_SIDE, _BARS, _SMALL, _LARGE, _TEXT, _GAP = 1.8, 1.1, 0.85, 1.2, 0.2, 0.1


@dataclasses.dataclass(frozen=True)
class Predicted:
    """An image and what it is taken for.

    Attributes:
      image: uint8 (h, w, 3).
      true: its class; None where that is not known.
      likeliest: (class, probability 0..1), the most probable first.
      neighbours: its nearest training images, uint8 (h, w, 3), each with its class; of all images or of none.
    """

    image: np.ndarray
    true: str | None
    likeliest: Sequence[tuple[str, float]]
    neighbours: Sequence[tuple[np.ndarray, str]] = ()


def draw_figure_4(path: str | pathlib.Path, shown: Sequence[Predicted]) -> None:
    """Writes a PNG of `shown`, and a row of neighbours beside it for each image that has some.

    Raises:
      InputError: the file cannot be written.
    """
    nearest = max(len(one.neighbours) for one in shown)
    columns = min(COLUMNS, len(shown))
    if nearest:  # three rows of them are about as high as one of predictions
        columns = min(COLUMNS, -(-len(shown) // -(-len(shown) // 3)))
    rows = -(-len(shown) // columns)
    width, height = columns * (_SIDE + _GAP) + _GAP, rows * (_SIDE + _TEXT + _BARS + 2 * _GAP)
    side, left = 0.0, width + 2 * _GAP
    if nearest:
        height = max(height, len(shown) * (_SMALL + _TEXT) + _GAP)
        side = min(_LARGE, (height - _GAP) / len(shown) - _TEXT)
        width = left + (1 + nearest) * (side + _GAP)
    figure = Figure((width, height))
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Glyph')  # a class name that the font lacks a letter of
        for index, one in enumerate(shown):
            row, column = divmod(index, columns)
            x, y = _GAP + column * (_SIDE + _GAP), _GAP + row * (_SIDE + _TEXT + _BARS + 2 * _GAP)
            _draw_picture(figure, one.image, one.true or '', x, y, _SIDE)
            _draw_bars(figure, one, x, y + _SIDE + _TEXT)
            top = _GAP + index * (side + _TEXT)
            if one.neighbours:
                _draw_picture(figure, one.image, one.true or '', left, top, side, bold=True)
            for place, (image, name) in enumerate(one.neighbours, start=1):
                _draw_picture(figure, image, name, left + place * (side + _GAP), top, side)
        figure.savefig(content, format='png', dpi=100)
    write_file(pathlib.Path(path), content.getvalue())


def _add_axes(figure: Figure, x: float, y: float, width: float, height: float) -> Any:
    """Adds axes at a place in inches from the top left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes((x / across, 1 - (y + height) / down, width / across, height / down))


def _draw_picture(
    figure: Figure, image: np.ndarray, text: str, x: float, y: float, side: float, *, bold: bool = False
) -> None:
    """Draws an image and below it what it shows."""
    axes = _add_axes(figure, x, y, side, side)
    axes.set_axis_off()
    axes.imshow(image)
    style = {'weight': 'bold' if bold else 'normal', 'fontsize': 8, 'color': INK, 'parse_math': False}
    text = _shorten(text, round(12 * side))
    axes.text(0.5, -0.03, text, ha='center', va='top', transform=axes.transAxes, **style)


def _draw_bars(figure: Figure, one: Predicted, x: float, y: float) -> None:
    """Draws the most probable class above; names lie on their bars, as in the paper."""
    axes = _add_axes(figure, x, y, _SIDE, _BARS)
    axes.set(xlim=(0, 1), ylim=(4.6, -0.6), xticks=(), yticks=())
    for place, (name, probability) in enumerate(one.likeliest):
        axes.barh(place, probability, height=0.9, color=RIGHT if name == one.true else OTHER)
        axes.text(0.02, place, _shorten(name, 20), va='center', fontsize=8, color=INK, parse_math=False)
        axes.text(0.98, place, f'{probability:.0%}', va='center', ha='right', fontsize=7, color=INK)


def _shorten(text: str, letters: int) -> str:
    return text if len(text) <= letters else f'{text[: letters - 1]}…'
