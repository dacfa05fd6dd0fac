"""The charts of a report: curves, how colourful the filters are, confusions, the towers and what they exchange."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator

from alexnet_jax.figures.drawing import Chart, new_figure, style
from alexnet_jax.figures.filters import Specialisation
from alexnet_jax.figures.palette import EXCHANGE, INK, LINE, MUTED, PAPER, RUN_COLOURS, TOWER_COLOURS
from alexnet_jax.model.filters import COLOURLESS_NOISE

_CHART = (3.4, 2.6)  # inches, three to a line on a desktop; two to a line: _HALF
_HALF = (4.6, 2.5)
_MOST_TICKS = 6  # of a logarithmic axis, each with a label of its own
_OVERLAP = math.log(1.5)  # of those labels, where they are nearer than this


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line of a chart: `tested` ones are drawn strong, with their points; the others thin."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: str
    tested: bool = True


def curves(
    lines: Sequence[Curve],
    *,
    title: str,
    xlabel: str,
    says: str,
    log: bool = False,
    level: tuple[float, str] | None = None,
    limits: tuple[float | None, float | None] = (0, None),
    half: bool = False,
) -> Chart:
    """Lines over `xlabel`; `level` is a dotted one at a height, with its name; `half`: wider, two to a page."""
    with style():
        figure, axes = new_figure(*(_HALF if half else _CHART))
        for line in lines:
            look: dict[str, Any] = (
                {'marker': 'o', 'markersize': 3, 'linewidth': 1.6} if line.tested else {'linewidth': 1, 'alpha': 0.5}
            )
            if log:
                look['drawstyle'] = 'steps-post'
            axes.plot(line.xs, line.ys, color=line.colour, label=line.label or None, **look)
        if level:
            axes.axhline(level[0], color=MUTED, linestyle=':', linewidth=1.2, label=level[1])
        if log:
            axes.set_yscale('log')
            axes.yaxis.set_minor_locator(NullLocator())
            heights = _apart([y for line in lines for y in line.ys])
            if 1 <= len(heights) <= _MOST_TICKS:
                axes.set_yticks(heights, [f'{height:g}' for height in heights])
                axes.set_ylim(heights[0] / 2, heights[-1] * 2)
            else:
                axes.yaxis.set_major_formatter(lambda y, _: f'{y:g}')
        else:
            axes.set_ylim(*limits)
        axes.set(title=title, xlabel=xlabel)
        axes.set_xlim(0, None)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if level or any(line.label for line in lines):
            axes.legend()
    return Chart(figure, says)


def _apart(heights: Sequence[float]) -> list[float]:
    """The heights, the most frequent first, without those so near to one before that their labels would overlap."""
    kept: list[float] = []
    for height, _ in Counter(heights).most_common():
        if all(abs(math.log(height / other)) > _OVERLAP for other in kept):
            kept.append(height)
    return sorted(kept)


def colour_strip(found: Specialisation) -> Chart:
    """Each filter a point between grey (0) and colour (1), a row for each tower, with their means."""
    with style():
        figure, axes = new_figure(*_HALF)
        for tower, (shares, colour) in enumerate(zip(found.shares, TOWER_COLOURS, strict=True)):
            # Spread up and down so that points do not hide one another; where, means nothing.
            offsets = 0.24 * np.sin(2.4 * np.arange(len(shares)))
            axes.plot(shares, tower + offsets, 'o', color=colour, markersize=5, alpha=0.6, markeredgewidth=0)
            axes.plot([found.means[tower]] * 2, [tower - 0.42, tower + 0.42], color=colour, linewidth=3)
        axes.axvline(COLOURLESS_NOISE, color=MUTED, linestyle=':', linewidth=1.2)
        axes.text(COLOURLESS_NOISE, -0.62, 'random weights', color=MUTED, ha='center', va='bottom', fontsize=8)
        axes.set(xlim=(-0.02, 1.02), ylim=(1.55, -0.6))
        axes.set_yticks([0, 1], ['tower 0', 'tower 1'])
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ['0: grey', '0.25', '0.5', '0.75', '1: colour'])
        for label, colour in zip(axes.get_yticklabels(), TOWER_COLOURS, strict=True):
            label.set(color=colour, fontweight='bold')
        axes.grid(visible=False, axis='y')
        axes.spines['left'].set_visible(False)
        axes.tick_params(axis='y', length=0)
        for label, side in zip(axes.get_xticklabels(), ('left', *['center'] * 3, 'right'), strict=True):
            label.set_ha(side)
    means = ' and '.join(f'{mean:.2f} in tower {tower}' for tower, mean in enumerate(found.means))
    return Chart(figure, f'Share of chromatic energy of each first-layer filter: on average {means}')


def confusion_chart(matrix: np.ndarray, names: Sequence[str]) -> Chart:
    """A matrix of images, right class by row and answer by column; the darker, the more of the row's images."""
    n, shares = len(names), matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = max(3.9, 0.36 * n + 1.2)
    with style():
        figure, axes = new_figure(side, side)
        for row in range(n):
            for column in range(n):
                share = shares[row, column]
                colour = RUN_COLOURS[0] if row == column else EXCHANGE
                box = (column - 0.46, row - 0.46)
                axes.add_patch(Rectangle(box, 0.92, 0.92, color=LINE, alpha=0.35, linewidth=0))
                if matrix[row, column]:
                    strength = 0.15 + 0.75 * share
                    axes.add_patch(Rectangle(box, 0.92, 0.92, color=colour, alpha=strength, linewidth=0))
                    ink = PAPER if strength > 0.55 else INK
                    axes.text(column, row, str(matrix[row, column]), color=ink, ha='center', va='center', fontsize=8)
        axes.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), aspect='equal')
        axes.set(xlabel='the network’s answer', ylabel='right class')
        axes.set_xticks(range(n), names, rotation=90)
        axes.set_yticks(range(n), names)
        axes.grid(visible=False)
        axes.tick_params(length=0, labelsize=8)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return Chart(figure, 'Confusion matrix: images by right class and by answer', wide=n > 12)


def tower_diagram(layers: Sequence[tuple[str, int]], exchanges: dict[str, str]) -> Chart:
    """The two towers as boxes from left to right, crossed by an exchange before each layer of `exchanges`.

    Args:
      layers: (name, channels or units of both towers together) in order, the classifier last.
      exchanges: {layer: what to write at its exchange}, such as the bytes; {} where nothing is sent.
    """
    with style():
        figure, axes = new_figure(9.2, 2.7)
        axes.set(xlim=(-1.05, len(layers) - 0.45), ylim=(-0.34, 2.05))
        axes.set_axis_off()
        heights = (1.3, 0.0)
        axes.text(-0.75, 0.92, 'image', ha='center', va='center', color=INK)
        axes.add_patch(Rectangle((-1.0, 0.72), 0.5, 0.4, fill=False, edgecolor=MUTED, linewidth=1.2))
        for index, (name, units) in enumerate(layers):
            last = index == len(layers) - 1
            for tower, (height, colour) in enumerate(zip(heights, TOWER_COLOURS, strict=True)):
                middle = height + 0.27
                if last:  # both devices compute it whole
                    colour, height, middle = MUTED, 0.65, 0.92
                axes.add_patch(Rectangle((index - 0.26, height), 0.52, 0.54, color=colour, alpha=0.14, linewidth=0))
                axes.add_patch(Rectangle((index - 0.26, height), 0.52, 0.54, fill=False, edgecolor=colour))
                axes.text(index, middle + 0.09, name, ha='center', va='center', color=INK, fontweight='bold')
                count = units if last else units // 2
                axes.text(index, middle - 0.12, f'{count:,}', ha='center', va='center', color=MUTED, fontsize=8)
                if last:
                    break
                own = (0.92, 0.92) if not index else (middle, middle)
                start = (-0.5, own[0]) if not index else (index - 0.74, own[0])
                _arrow(axes, start, (index - 0.28, middle), MUTED)
                if name in exchanges:
                    other = heights[1 - tower] + 0.27
                    _arrow(axes, (index - 0.74, other), (index - 0.28, middle), EXCHANGE)
            if last:
                for height in heights:
                    _arrow(axes, (index - 0.74, height + 0.27), (index - 0.28, 0.92), EXCHANGE if exchanges else MUTED)
            if name in exchanges:
                axes.text(index - 0.5, 1.93, exchanges[name], ha='center', va='center', color=EXCHANGE, fontsize=8.5)
        for tower, (height, colour) in enumerate(zip((1.93, -0.2), TOWER_COLOURS, strict=True)):
            axes.text(-1.0, height, f'tower {tower}', color=colour, fontweight='bold', va='center', fontsize=10)
    return Chart(figure, 'The two towers and the layers before which they exchange their channels', wide=True)


def _arrow(axes: object, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    arrow = FancyArrowPatch(start, end, arrowstyle='-|>', mutation_scale=8, color=colour, shrinkA=0, shrinkB=0)
    axes.add_patch(arrow)  # type: ignore[attr-defined]


def guessing(classes: int) -> tuple[float, str]:
    """The loss of one that gives every class the same probability, as a `level`."""
    return math.log(classes), f'guessing, ln {classes} = {math.log(classes):.2f}'
