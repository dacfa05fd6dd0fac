"""Turns figures into HTML and PNG: Matplotlib's for charts, pixels for filters and maps, JPEG for photographs.

Each kind has `__html__`, by which a template takes it as markup and escapes nothing of it. Figures are drawn in the
colours for light paper. In the page each of these becomes a CSS variable, which follows the reader's preference; in a
PNG they stay.
"""

import base64
import contextlib
import dataclasses
import io
import itertools
import pathlib
import re
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import escape
from matplotlib.figure import Figure
from PIL import Image

from alexnet_jax.files import write_file

# name: (on light paper, on dark). The towers have those of docs/figures/two_towers.svg. No two names share a light one.
COLOURS = {
    'ink': ('#1c2128', '#e6e9ee'),
    'muted': ('#5a6472', '#9aa5b4'),
    'line': ('#d5dae1', '#343c48'),
    'paper': ('#fdfdfc', '#14181e'),
    'panel': ('#f3f4f2', '#1c222b'),
    'tower0': ('#2b6cb0', '#63a9ee'),
    'tower1': ('#c05621', '#f0935a'),
    'exchange': ('#c53030', '#f47174'),
    'run0': ('#6b46c1', '#ac8ff2'),
    'run1': ('#0f766e', '#3cbfb1'),
    'run2': ('#b83280', '#ee79b7'),
    'run3': ('#6f6a12', '#cdc446'),
    'run4': ('#4a6b2a', '#94c266'),
    'run5': ('#7b341e', '#d99a7f'),
}
INK, MUTED, LINE, PAPER, EXCHANGE = (COLOURS[name][0] for name in ('ink', 'muted', 'line', 'paper', 'exchange'))
TOWER_COLOURS = (COLOURS['tower0'][0], COLOURS['tower1'][0])
RUN_COLOURS = tuple(light for name, (light, _) in COLOURS.items() if name.startswith('run'))
_NAMES = {light: name for name, (light, _) in COLOURS.items()}
_STYLE: dict[Any, Any] = {
    'font.family': 'sans-serif',
    'font.size': 9,
    'text.color': INK,
    'text.parse_math': False,  # names are shown as they are, whatever signs they hold
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
    'svg.hashsalt': 'alexnet_jax',  # the same figure is the same file
}
_PNG_SCALE = 2  # enlarges figures made of pixels


@contextlib.contextmanager
def use_style() -> Iterator[None]:
    """Sets Matplotlib's defaults for drawing and saving, and restores them afterwards."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # Names may be in scripts that the font here lacks: the reader's browser has its own.
        warnings.filterwarnings('ignore', message='Glyph .* missing from')
        yield


@contextlib.contextmanager
def new_axes(width: float, height: float) -> Iterator[Any]:
    """Makes one set of axes in a figure of so many inches, and applies the style while it is drawn."""
    with use_style():
        yield Figure(figsize=(width, height), layout='constrained').subplots()


@dataclasses.dataclass(frozen=True)
class Chart:
    """A drawn Matplotlib figure; a `wide` one is scrolled on a phone and not squeezed into its width."""

    figure: Figure
    description: str
    wide: bool = False

    def __html__(self) -> str:
        """Formats an inline SVG in the page's colours."""
        svg = self._save(format='svg', transparent=True, metadata={'Date': None}).decode()
        svg = re.sub(r' id="[a-z][\w.]*_\d+"', '', svg)  # names of groups, which other charts have too
        svg = re.sub(r'<metadata>.*?</metadata>|<style .*?</style>', '', svg[svg.index('<svg') :], flags=re.DOTALL)
        attributes, content = svg.removeprefix('<svg').split('>', 1)
        attributes = re.sub(r' (?:width|height)="[^"]*"', '', attributes)
        svg = f'<svg role="img" aria-label="{escape(self.description)}"{attributes}>{content}'
        return f'<div class="{"chart wide" if self.wide else "chart"}">{_insert_css_variables(svg)}</div>'

    def to_png(self) -> bytes:
        """Encodes the figure for slides: on light paper, 200 pixels an inch."""
        return self._save(format='png', dpi=200, facecolor=PAPER)

    def _save(self, **options: Any) -> bytes:
        out = io.BytesIO()
        with use_style():
            self.figure.savefig(out, **options)
        return out.getvalue()


@dataclasses.dataclass(frozen=True)
class Pixels:
    """An image of uint8 (h, w, 3 or 4), in the page as wide as its place, each pixel a sharp square."""

    pixels: np.ndarray
    description: str

    def __html__(self) -> str:
        """Formats an inline PNG, pixel for pixel."""
        return _format_image(Image.fromarray(self.pixels), 'PNG', 'pixels', self.description)

    def to_png(self) -> bytes:
        """Encodes the image for slides, each pixel enlarged to a square."""
        return _encode(Image.fromarray(self.pixels.repeat(_PNG_SCALE, axis=0).repeat(_PNG_SCALE, axis=1)), 'PNG')


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photograph, uint8 (h, w, 3), shown as a square of `side` pixels."""

    pixels: np.ndarray
    description: str
    side: int

    def __html__(self) -> str:
        """Formats an inline JPEG."""
        small = Image.fromarray(self.pixels).resize((self.side, self.side), Image.Resampling.LANCZOS)
        return _format_image(small, 'JPEG', 'photo', self.description)


class FigureCollection:
    """Figures by name, each name fit for a file."""

    def __init__(self) -> None:
        self._figures: dict[str, Chart | Pixels] = {}

    def add(self, name: str, figure: Chart | Pixels) -> Chart | Pixels:
        """Adds a figure and returns it; `name` may hold any characters, and a repeated name gets a number."""
        name = re.sub(r'[^A-Za-z0-9_-]+', '_', name).strip('_') or 'picture'
        names = (f'{name}_{number}' if number > 1 else name for number in itertools.count(1))
        self._figures[next(free for free in names if free not in self._figures)] = figure
        return figure

    def write(self, folder: pathlib.Path) -> int:
        """Writes each figure to NAME.png in `folder`; returns the number of figures.

        Raises:
          InputError: a file cannot be written.
        """
        for name, figure in self._figures.items():
            write_file(folder / f'{name}.png', figure.to_png())
        return len(self._figures)


def _insert_css_variables(svg: str) -> str:
    """Replaces each colour of the palette in an SVG by its CSS variable, --NAME."""
    return re.sub('|'.join(_NAMES), lambda match: f'var(--{_NAMES[match[0]]})', svg)


def _format_image(image: Image.Image, kind: str, css_class: str, description: str) -> str:
    return (
        f'<img class="{css_class}" width="{image.width}" height="{image.height}" alt="{escape(description)}" '
        f'src="data:image/{kind.lower()};base64,{base64.b64encode(_encode(image, kind)).decode()}">'
    )


def _encode(image: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    image.save(out, format=kind, **({'optimize': True} if kind == 'PNG' else {'quality': 85}))
    return out.getvalue()
