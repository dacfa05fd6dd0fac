"""One picture of a sweep: each run a point, each setting a mean with its standard deviation."""

from __future__ import annotations

import io
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from alexnet_jax.sweeping.plan import shown
from alexnet_jax.sweeping.record import write_whole
from alexnet_jax.sweeping.results import Setting

_MOST_LINES = 8  # that can be told apart
_MOST_ROWS = 40  # of settings, the best ones


def draw(settings: list[Setting], path: pathlib.Path, *, searched: Sequence[str] = ()) -> None:
    """Writes a PNG of the centre top-1 errors of `settings`, each of which has a finished run.

    Where a key has three numbers or more it is the axis, and the other keys' settings are lines; otherwise the settings
    are rows, the best above. Of a search each key that is `searched` has a panel of all trials.
    """
    axis, lines = _layout(settings)
    if searched:
        figure = Figure(figsize=(7, 2.6 * len(searched)), layout='constrained')
        for axes, key in zip(figure.subplots(len(searched), squeeze=False)[:, 0], searched, strict=True):
            _draw_panel(axes, key, settings)
    elif axis:
        figure = Figure(figsize=(7, 4.2), layout='constrained')
        _draw_lines(figure.subplots(), axis, lines)
    else:
        figure = Figure(figsize=(7, 1.2 + 0.3 * min(len(settings), _MOST_ROWS)), layout='constrained')
        _draw_rows(figure.subplots(), settings[:_MOST_ROWS])
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=110)
    write_whole(path, content.getvalue())


def _layout(settings: list[Setting]) -> tuple[str | None, dict[str, list[Setting]]]:
    """The key that is the axis, and the settings of each line; None where rows are better."""
    keys = dict.fromkeys(key for one in settings for key in one.overrides)
    numbers = {
        key: {one.overrides[key] for one in settings}
        for key in keys
        if all(_is_number(one.overrides.get(key)) for one in settings)
    }
    if not numbers:
        return None, {}
    axis = max(numbers, key=lambda key: len(numbers[key]))
    lines: dict[str, list[Setting]] = {}
    for one in settings:
        rest = {key: value for key, value in one.overrides.items() if key != axis}
        name = ', '.join(f'{key} {shown(value)}' for key, value in rest.items())
        lines.setdefault(name, []).append(one)
    if len(numbers[axis]) < 3 or len(lines) > _MOST_LINES:
        return None, {}
    return axis, dict(sorted(lines.items()))


def _draw_panel(axes: Any, key: str, settings: list[Setting]) -> None:
    values = [one.overrides[key] for one in settings]
    if not all(map(_is_number, values)):
        values = [shown(value) for value in values]
    elif min(values) > 0 and max(values) / min(values) >= 10:
        axes.set_xscale('log')
    axes.plot(values, _means(settings), '.')
    axes.plot(values[:1], _means(settings[:1]), 'r*', markersize=12)  # the best
    axes.set(xlabel=key, ylabel='centre top-1 error, %', ylim=(0, None))
    axes.grid(alpha=0.3)


def _draw_lines(axes: Any, axis: str, lines: dict[str, list[Setting]]) -> None:
    low, high = (pick(one.overrides[axis] for line in lines.values() for one in line) for pick in (min, max))
    if low > 0 and high / low >= 10:
        axes.set_xscale('log')
    for name, line in lines.items():
        ordered = sorted(line, key=lambda one: one.overrides[axis])
        where = [one.overrides[axis] for one in ordered]
        means, spreads = _means(ordered), _spreads(ordered)
        drawn = axes.errorbar(where, means, yerr=spreads, capsize=4, marker='o', label=name or None)
        for one, x in zip(ordered, where, strict=True):
            axes.plot([x] * len(one.centre), _percent(one.centre), '.', color=drawn[0].get_color(), alpha=0.5)
    axes.set(xlabel=axis, ylabel='centre top-1 error, %', ylim=(0, None))
    axes.grid(alpha=0.3)
    if any(lines):
        axes.legend()


def _draw_rows(axes: Any, settings: list[Setting]) -> None:
    names = [', '.join(f'{key} {shown(value)}' for key, value in one.overrides.items()) or 'base' for one in settings]
    rows = list(range(len(settings)))
    axes.errorbar(_means(settings), rows, xerr=_spreads(settings), fmt='o', capsize=4)
    for row, one in enumerate(settings):
        axes.plot(_percent(one.centre), [row] * len(one.centre), 'k.', alpha=0.5)
    axes.set_yticks(rows, names)
    axes.set(xlabel='centre top-1 error, %', xlim=(0, None), ylim=(len(settings) - 0.5, -0.5))
    axes.grid(alpha=0.3)


def _percent(errors: list[float]) -> list[float]:
    return [100 * error for error in errors]


def _means(settings: list[Setting]) -> list[float]:
    return [100 * statistics.fmean(one.centre) for one in settings]


def _spreads(settings: list[Setting]) -> list[float]:
    return [100 * statistics.stdev(one.centre) if len(one.centre) > 1 else 0.0 for one in settings]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
