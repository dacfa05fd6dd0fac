"""The colours of every picture, once for light and once for dark paper, and how an SVG comes to follow the reader's.

Pictures are drawn in the light colours. In the page each of those becomes a CSS variable, which the reader's browser
fills in; in a PNG they stay.
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
INK, MUTED, LINE, PAPER = (COLOURS[name][0] for name in ('ink', 'muted', 'line', 'paper'))
TOWER_COLOURS = (COLOURS['tower0'][0], COLOURS['tower1'][0])
EXCHANGE = COLOURS['exchange'][0]
RUN_COLOURS = tuple(light for name, (light, _) in COLOURS.items() if name.startswith('run'))
_NAMES = {light: name for name, (light, _) in COLOURS.items()}


def css() -> str:
    """The variables --NAME of all colours, light and dark as the reader prefers."""
    light, dark = (' '.join(f'--{name}: {pair[i]};' for name, pair in COLOURS.items()) for i in (0, 1))
    return (
        f':root {{ color-scheme: light dark; {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n'
    )


def themed(svg: str) -> str:
    """The SVG with each colour of the palette as its CSS variable."""
    return re.sub('|'.join(_NAMES), lambda found: f'var(--{_NAMES[found[0]]})', svg)


def rgb(colour: str) -> tuple[int, int, int]:
    """'#rrggbb' as three numbers, 0..255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
