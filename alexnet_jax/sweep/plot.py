"""The picture of a sweep: each run a point, each setting a mean with its standard deviation."""

import io
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from alexnet_jax.files import write_file
from alexnet_jax.sweep.plan import format_value
from alexnet_jax.sweep.results import SweepSetting

_MAX_LINES = 8  # that can be told apart
_MAX_ROWS = 40  # of settings, the best ones


def plot_sweep(settings: list[SweepSetting], path: pathlib.Path, *, searched: Sequence[str] = ()) -> None:
    """Writes a PNG of the centre top-1 errors of `settings`, each of which has a finished run.

    A key with three numbers or more is the axis, and settings of the other keys are lines; otherwise settings are rows,
    the best above. Of a search, each key in `searched` has a panel of all trials.
    """
    axis, lines = _choose_layout(settings)
    if searched:
        figure = Figure(figsize=(7, 2.6 * len(searched)), layout='constrained')
        for axes, key in zip(figure.subplots(len(searched), squeeze=False)[:, 0], searched, strict=True):
            _draw_panel(axes, key, settings)
    elif axis:
        figure = Figure(figsize=(7, 4.2), layout='constrained')
        _draw_lines(figure.subplots(), axis, lines)
    else:
        figure = Figure(figsize=(7, 1.2 + 0.3 * min(len(settings), _MAX_ROWS)), layout='constrained')
        _draw_rows(figure.subplots(), settings[:_MAX_ROWS])
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=110)
    write_file(path, content.getvalue())


def _choose_layout(settings: list[SweepSetting]) -> tuple[str | None, dict[str, list[SweepSetting]]]:
    """Returns the key that is the axis, and {name of a line: its settings}; None where rows are better."""
    keys = dict.fromkeys(key for one in settings for key in one.overrides)
    columns = {key: [one.overrides.get(key) for one in settings] for key in keys}
    numbers = {key: set(values) for key, values in columns.items() if all(map(_is_number, values))}
    axis = max(numbers, key=lambda key: len(numbers[key]), default=None)
    lines: dict[str, list[SweepSetting]] = {}
    for one in settings:
        lines.setdefault(_make_label(one, without=axis), []).append(one)
    if axis is None or len(numbers[axis]) < 3 or len(lines) > _MAX_LINES:
        return None, {}
    return axis, dict(sorted(lines.items()))


def _draw_panel(axes: Any, key: str, settings: list[SweepSetting]) -> None:
    values = [one.overrides[key] for one in settings]
    if all(map(_is_number, values)):
        _set_scale(axes, values)
    else:
        values = [format_value(value) for value in values]
    means, _ = _summarise(settings)
    axes.plot(values, means, '.')
    axes.plot(values[:1], means[:1], 'r*', markersize=12)  # the best
    _label(axes, key)


def _draw_lines(axes: Any, axis: str, lines: dict[str, list[SweepSetting]]) -> None:
    _set_scale(axes, [one.overrides[axis] for line in lines.values() for one in line])
    for name, line in lines.items():
        line = sorted(line, key=lambda one: one.overrides[axis])
        values, (means, deviations) = [one.overrides[axis] for one in line], _summarise(line)
        drawn = axes.errorbar(values, means, yerr=deviations, capsize=4, marker='o', label=name or None)
        for one, value in zip(line, values, strict=True):
            errors = _get_percents(one)
            axes.plot([value] * len(errors), errors, '.', color=drawn[0].get_color(), alpha=0.5)
    _label(axes, axis)
    if any(lines):
        axes.legend()


def _draw_rows(axes: Any, settings: list[SweepSetting]) -> None:
    rows, (means, deviations) = list(range(len(settings))), _summarise(settings)
    axes.errorbar(means, rows, xerr=deviations, fmt='o', capsize=4)
    for row, one in enumerate(settings):
        errors = _get_percents(one)
        axes.plot(errors, [row] * len(errors), 'k.', alpha=0.5)
    axes.set_yticks(rows, [_make_label(one) or 'base' for one in settings])
    axes.set(xlabel='centre top-1 error, %', xlim=(0, None), ylim=(len(settings) - 0.5, -0.5))
    axes.grid(alpha=0.3)


def _label(axes: Any, key: str) -> None:
    axes.set(xlabel=key, ylabel='centre top-1 error, %', ylim=(0, None))
    axes.grid(alpha=0.3)


def _set_scale(axes: Any, values: list[float]) -> None:
    if min(values) > 0 and max(values) / min(values) >= 10:
        axes.set_xscale('log')


def _make_label(setting: SweepSetting, *, without: str | None = None) -> str:
    return ', '.join(f'{key} {format_value(value)}' for key, value in setting.overrides.items() if key != without)


def _get_percents(setting: SweepSetting) -> list[float]:
    return [100 * error for error in setting.get_errors()]


def _summarise(settings: list[SweepSetting]) -> tuple[list[float], list[float]]:
    """Computes each setting's mean and standard deviation (of a sample; 0 of one) of centre top-1 errors in %."""
    errors = [_get_percents(one) for one in settings]
    return list(map(statistics.fmean, errors)), [statistics.stdev(e) if len(e) > 1 else 0.0 for e in errors]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
