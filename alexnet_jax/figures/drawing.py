"""How pictures are drawn and put into a page: Matplotlib's for the charts, pixels for filters and maps."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import html
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from alexnet_jax.figures.palette import INK, LINE, MUTED, PAPER, themed

_STYLE: dict[Any, Any] = {
    'font.family': 'sans-serif',
    'font.size': 9,
    'text.color': INK,
    'text.parse_math': False,  # names are names, whatever signs they hold
    'axes.facecolor': 'none',
    'axes.edgecolor': LINE,
    'axes.labelcolor': MUTED,
    'axes.titlecolor': INK,
    'axes.titlesize': 10,
    'axes.titleweight': 'bold',
    'axes.titlelocation': 'left',
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'axes.axisbelow': True,
    'grid.color': LINE,
    'grid.linewidth': 0.6,
    'xtick.color': LINE,
    'ytick.color': LINE,
    'xtick.labelcolor': MUTED,
    'ytick.labelcolor': MUTED,
    'legend.frameon': False,
    'legend.fontsize': 8,
    'svg.fonttype': 'none',  # text stays text, in the page's font
    'svg.hashsalt': 'alexnet_jax',  # the same picture is the same file
}
_PNG_SCALE = 2  # of pictures of pixels


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Matplotlib's settings for drawing and for saving, which are its defaults again afterwards."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # Of names in scripts that the font here lacks: the reader's browser has its own.
        warnings.filterwarnings('ignore', message='Glyph .* missing from')
        yield


@dataclasses.dataclass(frozen=True)
class Chart:
    """A drawn figure; `wide` where it must not be squeezed into a phone's width but scrolled."""

    figure: Figure
    says: str
    wide: bool = False

    def html(self) -> str:
        """An inline SVG in the page's own colours."""
        out = io.StringIO()
        with style():
            self.figure.savefig(out, format='svg', transparent=True, metadata={'Date': None})
        svg = out.getvalue()
        svg = re.sub(r' id="[a-z][\w.]*_\d+"', '', svg)  # names of its groups, which other charts have too
        svg = re.sub(r'<metadata>.*?</metadata>|<style .*?</style>', '', svg[svg.index('<svg') :], flags=re.DOTALL)
        label = f'<svg role="img" aria-label="{html.escape(self.says)}" '
        svg = re.sub(r'<svg (?:width|height)="\S+" |<svg ', label, svg, count=1)
        svg = re.sub(r'(<svg[^>]*?) width="[^"]*pt"', r'\1', svg, count=1)
        svg = re.sub(r'(<svg[^>]*?) height="[^"]*pt"', r'\1', svg, count=1)
        return f'<div class="{"chart wide" if self.wide else "chart"}">{themed(svg)}</div>'

    def png(self) -> bytes:
        """For slides: on light paper, 200 pixels an inch."""
        out = io.BytesIO()
        with style():
            self.figure.savefig(out, format='png', dpi=200, facecolor=PAPER)
        return out.getvalue()


@dataclasses.dataclass(frozen=True)
class Pixels:
    """A picture of uint8 (h, w, 3 or 4), in the page as wide as its place, each pixel a sharp square."""

    pixels: np.ndarray
    says: str

    def html(self) -> str:
        """An inline PNG, pixel for pixel."""
        height, width = self.pixels.shape[:2]
        return (
            f'<img class="pixels" width="{width}" height="{height}" alt="{html.escape(self.says)}" '
            f'src="data:image/png;base64,{base64.b64encode(_encoded(self.pixels)).decode()}">'
        )

    def png(self) -> bytes:
        """For slides: each pixel a square of some more."""
        return _encoded(self.pixels.repeat(_PNG_SCALE, axis=0).repeat(_PNG_SCALE, axis=1))


def photo_html(pixels: np.ndarray, says: str, *, side: int) -> str:
    """An inline JPEG of `side` x `side` of a photograph, uint8 (h, w, 3)."""
    out = io.BytesIO()
    small = Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)
    small.save(out, format='JPEG', quality=85)
    return (
        f'<img class="photo" width="{side}" height="{side}" alt="{html.escape(says)}" '
        f'src="data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}">'
    )


def _encoded(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format='PNG', optimize=True)
    return out.getvalue()


Picture = Chart | Pixels


def new_figure(width: float, height: float) -> tuple[Figure, Any]:
    """A figure of inches with one set of axes; to be used within `style`."""
    figure = Figure(figsize=(width, height), layout='constrained')
    return figure, figure.subplots()
