"""Draws the charts of a report: curves, colour shares, confusion matrix, the towers and their exchanges."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator

from alexnet_jax.model.colour import COLOURLESS_NOISE
from alexnet_jax.report.drawing import EXCHANGE, INK, LINE, MUTED, PAPER, RUN_COLOURS, TOWER_COLOURS, Chart, new_axes
from alexnet_jax.report.pictures import Specialisation

_CHART = (3.4, 2.6)  # inches, three to a line on a desktop; two to a line: _HALF
_HALF = (4.6, 2.5)
_MAX_TICKS = 6  # of a logarithmic axis, each with a label of its own
_OVERLAP = math.log(1.5)  # tick labels overlap where they are nearer than this
_STRONG = {'marker': 'o', 'markersize': 3, 'linewidth': 1.6}
_THIN = {'linewidth': 1, 'alpha': 0.5}
_CENTRED = {'ha': 'center', 'va': 'center'}


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line of a chart: a `strong` one is thick, with its points, and may be `dashed`; another is thin."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: str
    strong: bool = True
    dashed: bool = False


def draw_curves(
    curves: Sequence[Curve],
    *,
    title: str,
    xlabel: str,
    description: str = '',
    log: bool = False,
    level: tuple[float, str] | None = None,
    limits: tuple[float | None, float | None] = (0, None),
    half: bool = False,
) -> Chart:
    """Draws curves over `xlabel`.

    Args:
      curves: the lines.
      title: the text above the chart.
      xlabel: the text below it.
      description: for readers who do not see the chart; '': the title without its unit, over training.
      log: whether the y axis is logarithmic and the curves are steps.
      level: (height, label) of a dotted line.
      limits: of a linear y axis; None is chosen by the data.
      half: whether the chart is wider, two to a line of the page.
    """
    with new_axes(*(_HALF if half else _CHART)) as axes:
        for curve in curves:
            options = (_STRONG if curve.strong else _THIN) | {'linestyle': '--' if curve.dashed else '-'}
            drawstyle = 'steps-post' if log else 'default'
            axes.plot(curve.xs, curve.ys, color=curve.colour, label=curve.label or None, drawstyle=drawstyle, **options)
        if level:
            axes.axhline(level[0], color=MUTED, linestyle=':', linewidth=1.2, label=level[1])
        if log:
            axes.set_yscale('log')
            axes.yaxis.set_minor_locator(NullLocator())
            ticks = _select_ticks([y for curve in curves for y in curve.ys])
            if 1 <= len(ticks) <= _MAX_TICKS:
                axes.set_yticks(ticks, [f'{tick:g}' for tick in ticks])
                axes.set_ylim(ticks[0] / 2, ticks[-1] * 2)
            else:
                axes.yaxis.set_major_formatter(lambda y, _: f'{y:g}')
        else:
            axes.set_ylim(*limits)
        axes.set(title=title, xlabel=xlabel)
        axes.set_xlim(0, None)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if level or any(curve.label for curve in curves):
            axes.legend()
    return Chart(axes.figure, description or f'{title.split(",")[0]} over training')


def _select_ticks(heights: Sequence[float]) -> list[float]:
    """Selects heights, the most frequent first, and drops those whose labels would overlap a selected one's."""
    ticks: list[float] = []
    for height, _ in Counter(heights).most_common():
        if all(abs(math.log(height / tick)) > _OVERLAP for tick in ticks):
            ticks.append(height)
    return sorted(ticks)


def draw_colour_shares(stats: Specialisation) -> Chart:
    """Draws each filter as a point between grey (0) and colour (1), a row for each tower, with their means."""
    with new_axes(*_HALF) as axes:
        for tower, (shares, colour) in enumerate(zip(stats.shares, TOWER_COLOURS, strict=True)):
            # Spread up and down so that points do not hide one another; the height means nothing.
            offsets = 0.24 * np.sin(2.4 * np.arange(len(shares)))
            axes.plot(shares, tower + offsets, 'o', color=colour, markersize=5, alpha=0.6, markeredgewidth=0)
            axes.plot([stats.means[tower]] * 2, [tower - 0.42, tower + 0.42], color=colour, linewidth=3)
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
    means = ' and '.join(f'{mean:.2f} in tower {tower}' for tower, mean in enumerate(stats.means))
    return Chart(axes.figure, f'Share of chromatic energy of each first-layer filter: on average {means}')


def draw_confusion_matrix(matrix: np.ndarray, names: Sequence[str]) -> Chart:
    """Draws int (classes, classes) counts, right class by row and answer by column; darker is more of the row."""
    n, shares = len(names), matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = max(3.9, 0.36 * n + 1.2)
    with new_axes(side, side) as axes:
        for (row, column), count in np.ndenumerate(matrix):
            box = (column - 0.46, row - 0.46)
            axes.add_patch(Rectangle(box, 0.92, 0.92, color=LINE, alpha=0.35, linewidth=0))
            if count:
                colour = RUN_COLOURS[0] if row == column else EXCHANGE
                strength = 0.15 + 0.75 * shares[row, column]
                axes.add_patch(Rectangle(box, 0.92, 0.92, color=colour, alpha=strength, linewidth=0))
                axes.text(column, row, str(count), color=PAPER if strength > 0.55 else INK, fontsize=8, **_CENTRED)
        axes.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), aspect='equal')
        axes.set(xlabel='the network’s answer', ylabel='right class')
        axes.set_xticks(range(n), names, rotation=90)
        axes.set_yticks(range(n), names)
        axes.grid(visible=False)
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set_visible(False)
    return Chart(axes.figure, 'Confusion matrix: images by right class and by answer', wide=n > 12)


def draw_layers(
    rows: Mapping[str, Sequence[float | None]], steps: Sequence[int], *, title: str, log: bool, description: str
) -> Chart:
    """Draws a number of each layer against steps, a row for each layer: the darker, the larger.

    Args:
      rows: {layer: its number at each of `steps`}, None where it was not finite; crossed out.
      steps: of the columns, in order.
      title: the text above.
      log: whether shades are of the logarithm, between the smallest and the largest above 0; else they go from 0 to 1.
      description: for readers who do not see the chart.
    """
    values = [value for row in rows.values() for value in row if value is not None and (value > 0 or not log)]
    low, high = (min(values, default=1.0), max(values, default=1.0)) if log else (0.0, 1.0)

    def shade(value: float) -> float:
        if not log:
            return value
        return math.log(value / low) / math.log(high / low) if value > 0 and high > low else float(value > 0)

    with new_axes(_HALF[0], 0.26 * len(rows) + 0.9) as axes:
        for y, row in enumerate(rows.values()):
            for x, value in enumerate(row):
                if value is None:
                    axes.text(x, y, '×', color=EXCHANGE, fontsize=8, **_CENTRED)
                else:
                    box, alpha = (x - 0.5, y - 0.46), 0.06 + 0.9 * shade(value)
                    axes.add_patch(Rectangle(box, 1, 0.92, color=RUN_COLOURS[0], alpha=alpha, linewidth=0))
        axes.set(xlim=(-0.5, len(steps) - 0.5), ylim=(len(rows) - 0.5, -0.5), title=title, xlabel='updates')
        shown = np.unique(np.linspace(0, len(steps) - 1, min(6, len(steps))).round().astype(int))
        axes.set_xticks(shown, [str(steps[place]) for place in shown])
        axes.set_yticks(range(len(rows)), list(rows))
        axes.grid(visible=False)
        axes.tick_params(length=0, labelsize=8)
        scale = f'pale {low:.1e}, dark {high:.1e}' if log else 'pale 0 %, dark 100 %'
        axes.text(1, 1.01, scale, transform=axes.transAxes, ha='right', va='bottom', fontsize=8, color=MUTED)
    return Chart(axes.figure, description)


def draw_towers(layers: Sequence[tuple[str, int]], exchanges: Mapping[str, str]) -> Chart:
    """Draws the two towers as boxes from left to right, crossed by an exchange before each layer of `exchanges`.

    Args:
      layers: (name, channels or units of both towers together) in order, the classifier last.
      exchanges: {layer: label of its exchange}, such as its bytes; {} where nothing is sent.
    """
    rows, between = (1.57, 0.27), 0.92  # middles of the towers' boxes, and of what both devices have whole
    with new_axes(9.2, 2.7) as axes:

        def draw_box(x: float, y: float, name: str, count: int, colour: str) -> None:
            corner = (x - 0.26, y - 0.27)
            axes.add_patch(Rectangle(corner, 0.52, 0.54, color=colour, alpha=0.14, linewidth=0))
            axes.add_patch(Rectangle(corner, 0.52, 0.54, fill=False, edgecolor=colour))
            axes.text(x, y + 0.09, name, color=INK, fontweight='bold', **_CENTRED)
            axes.text(x, y - 0.12, f'{count:,}', color=MUTED, fontsize=8, **_CENTRED)

        def draw_arrow(start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
            arrow = FancyArrowPatch(start, end, arrowstyle='-|>', mutation_scale=8, color=colour, shrinkA=0, shrinkB=0)
            axes.add_patch(arrow)

        axes.set(xlim=(-1.05, len(layers) - 0.45), ylim=(-0.34, 2.05))
        axes.set_axis_off()
        axes.text(-0.75, between, 'image', color=INK, **_CENTRED)
        axes.add_patch(Rectangle((-1.0, 0.72), 0.5, 0.4, fill=False, edgecolor=MUTED, linewidth=1.2))
        for x, (name, units) in enumerate(layers):
            last = x == len(layers) - 1  # both devices compute it whole
            if last:
                draw_box(x, between, name, units, MUTED)
            for y, other, colour in zip(rows, rows[::-1], TOWER_COLOURS, strict=True):
                if last:
                    draw_arrow((x - 0.74, y), (x - 0.28, between), EXCHANGE if exchanges else MUTED)
                    continue
                draw_box(x, y, name, units // 2, colour)
                draw_arrow((x - 0.74, y) if x else (-0.5, between), (x - 0.28, y), MUTED)
                if name in exchanges:
                    draw_arrow((x - 0.74, other), (x - 0.28, y), EXCHANGE)
            if name in exchanges:
                axes.text(x - 0.5, 1.93, exchanges[name], color=EXCHANGE, fontsize=8.5, **_CENTRED)
        for tower, (y, colour) in enumerate(zip((1.93, -0.2), TOWER_COLOURS, strict=True)):
            axes.text(-1.0, y, f'tower {tower}', color=colour, fontweight='bold', va='center', fontsize=10)
    return Chart(axes.figure, 'The two towers and the layers before which they exchange their channels', wide=True)


def get_uniform_loss(classes: int) -> tuple[float, str]:
    """Returns the loss of equal probabilities for all classes, in nats, and its label: a `level` of draw_curves."""
    return math.log(classes), f'guessing, ln {classes} = {math.log(classes):.2f}'
