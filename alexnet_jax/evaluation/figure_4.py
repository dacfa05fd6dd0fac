"""The paper's figure 4: what a network takes images for (left), and their nearest training images (right)."""

from __future__ import annotations

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
    """

    image: np.ndarray
    true: str | None
    likeliest: Sequence[tuple[str, float]]


@dataclasses.dataclass(frozen=True)
class Neighbour:
    """A training image: uint8 (h, w, 3), its class, and how far away its features are."""

    image: np.ndarray
    name: str
    distance: float


def draw_figure_4(
    path: str | pathlib.Path, shown: Sequence[Predicted], neighbours: Sequence[Sequence[Neighbour]] | None = None
) -> None:
    """Writes a PNG of `format_value`, with `neighbours` beside it a row for each image.

    Raises:
      InputError: the file cannot be written.
    """
    columns = min(COLUMNS, len(shown))
    if neighbours is not None:  # three rows of them are about as high as one of predictions
        columns = min(COLUMNS, -(-len(shown) // -(-len(shown) // 3)))
    rows = -(-len(shown) // columns)
    width, height = columns * (_SIDE + _GAP) + _GAP, rows * (_SIDE + _TEXT + _BARS + 2 * _GAP)
    side, left = 0.0, width + 2 * _GAP
    if neighbours is not None:
        height = max(height, len(shown) * (_SMALL + _TEXT) + _GAP)
        side = min(_LARGE, (height - _GAP) / len(shown) - _TEXT)
        width = left + (1 + max(map(len, neighbours))) * (side + _GAP)
    sheet = _Sheet(Figure((width, height)))
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Glyph')  # a class name that the font lacks a letter of
        for index, one in enumerate(shown):
            row, column = divmod(index, columns)
            x, y = _GAP + column * (_SIDE + _GAP), _GAP + row * (_SIDE + _TEXT + _BARS + 2 * _GAP)
            sheet.picture(one.image, one.true or '', x, y, _SIDE)
            sheet.bars(one, x, y + _SIDE + _TEXT)
        for index, near in enumerate(neighbours or ()):
            y = _GAP + index * (side + _TEXT)
            sheet.picture(shown[index].image, shown[index].true or '', left, y, side, bold=True)
            for place, other in enumerate(near, start=1):
                sheet.picture(other.image, other.name, left + place * (side + _GAP), y, side)
        sheet.figure.savefig(content, format='png', dpi=100)
    write_file(pathlib.Path(path), content.getvalue())


@dataclasses.dataclass(frozen=True)
class _Sheet:
    """Draws at places that are given in inches from the top left corner."""

    figure: Figure

    def _axes(self, x: float, y: float, width: float, height: float) -> Any:
        across, down = self.figure.get_size_inches()
        return self.figure.add_axes((x / across, 1 - (y + height) / down, width / across, height / down))

    def picture(self, image: np.ndarray, text: str, x: float, y: float, side: float, *, bold: bool = False) -> None:
        """An image and what it shows, below it."""
        axes = self._axes(x, y, side, side)
        axes.set_axis_off()
        axes.imshow(image)
        style = {'weight': 'bold' if bold else 'normal', 'fontsize': 8, 'color': INK, 'parse_math': False}
        text = _short(text, round(12 * side))
        axes.text(0.5, -0.03, text, ha='center', va='top', transform=axes.transAxes, **style)

    def bars(self, one: Predicted, x: float, y: float) -> None:
        """The most probable class above; names lie on their bars, as in the paper."""
        axes = self._axes(x, y, _SIDE, _BARS)
        axes.set(xlim=(0, 1), ylim=(4.6, -0.6), xticks=(), yticks=())
        for place, (name, probability) in enumerate(one.likeliest):
            axes.barh(place, probability, height=0.9, color=RIGHT if name == one.true else OTHER)
            axes.text(0.02, place, _short(name, 20), va='center', fontsize=8, color=INK, parse_math=False)
            axes.text(0.98, place, f'{probability:.0%}', va='center', ha='right', fontsize=7, color=INK)


def _short(text: str, letters: int) -> str:
    return text if len(text) <= letters else f'{text[: letters - 1]}…'
