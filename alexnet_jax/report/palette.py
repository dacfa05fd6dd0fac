"""Defines the colours of every figure, for light and for dark paper.

Figures are drawn in the light colours. In the page each of them becomes a CSS variable, which follows the reader's
preference; in a PNG they stay.
"""

from __future__ import annotations

import re

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


def insert_css_variables(svg: str) -> str:
    """Replaces each colour of the palette in an SVG by its CSS variable, --NAME."""
    return re.sub('|'.join(_NAMES), lambda match: f'var(--{_NAMES[match[0]]})', svg)
