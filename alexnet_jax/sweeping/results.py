"""What came of a sweep, from the folders of its runs: a row for each run, and one for each setting over its seeds."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import pathlib
import statistics
from typing import Any

from alexnet_jax.sweeping.plan import shown
from alexnet_jax.sweeping.progress import Progress, ended_as, result_of
from alexnet_jax.sweeping.record import Record, lock, write_whole

_TESTS = [(protocol, number) for protocol in ('centre', 'ten_view') for number in ('top1_error', 'top5_error', 'loss')]


@dataclasses.dataclass(frozen=True)
class Row:
    """A run, as its folder has it.

    Attributes:
      name: of the run.
      overrides: of its point.
      state: 'finished', 'running', 'waiting', or what its log ends with ('failed, exit code 1', 'stopped', ...).
      says: the last line of its log, where it has ended without a result.
      step: updates made.
      result: result.json, where it is finished.
      run: run.json, where it has begun.
      earlier: whether only an earlier start of the sweep asked for it.
    """

    name: str
    overrides: dict[str, Any]
    state: str
    says: str
    step: int
    result: dict[str, Any] | None
    run: dict[str, Any]
    earlier: bool


@dataclasses.dataclass(frozen=True)
class Setting:
    """The runs that differ in nothing but their seed; errors are fractions of the validation split.

    Attributes:
      overrides: what they have in common.
      centre, ten_view: top-1 errors of those that are finished.
      asked: how many runs there are of it, finished or not.
      earlier: whether only an earlier start of the sweep asked for it.
    """

    overrides: dict[str, Any]
    centre: list[float]
    ten_view: list[float]
    asked: int
    earlier: bool


def rows_of(record: Record) -> list[Row]:
    """A row for each point of the sweep, those of earlier starts last."""
    asked = [(name, overrides, False) for name, overrides in record.points.items()]
    asked += [(name, overrides, True) for name, overrides in record.earlier.items()]
    return [_row(record.root, name, overrides, earlier) for name, overrides, earlier in asked]


def _row(root: pathlib.Path, name: str, overrides: dict[str, Any], earlier: bool) -> Row:
    folder, log = root / name, root / f'{name}.log'
    result, progress, state, says = result_of(folder), Progress(folder), 'finished', ''
    progress.refresh()
    if result is None:
        note, says = ended_as(log)
        held = log.exists() and lock(root, name)
        if held:
            held.close()
        if log.exists() and not held:
            state, says = 'running', ''
        else:
            state = note or ('left unfinished' if folder.exists() or log.exists() else 'waiting')
    try:
        run = json.loads((folder / 'run.json').read_text())
    except (OSError, ValueError):
        run = {}
    return Row(name, overrides, state, says, progress.step, result, run, earlier)


def settings_of(rows: list[Row]) -> list[Setting]:
    """The rows put together by setting, the best mean centre error first, those without a finished run last."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        setting = {key: value for key, value in row.overrides.items() if key != 'seed'}
        groups.setdefault(json.dumps(setting, sort_keys=True), []).append(row)
    settings = []
    for group in groups.values():
        results = [row.result for row in group if row.result]
        settings.append(
            Setting(
                overrides={key: value for key, value in group[0].overrides.items() if key != 'seed'},
                centre=[result['centre']['top1_error'] for result in results],
                ten_view=[result['ten_view']['top1_error'] for result in results],
                asked=len(group),
                earlier=all(row.earlier for row in group),
            )
        )
    return sorted(settings, key=lambda one: statistics.fmean(one.centre) if one.centre else float('inf'))


def best_runs(rows: list[Row], most: int) -> list[str]:
    """Names of runs to look at side by side: the first finished one of each setting, the best settings first."""
    firsts: dict[str, str] = {}
    for row in rows:
        if row.result:
            setting = {key: value for key, value in row.overrides.items() if key != 'seed'}
            firsts.setdefault(json.dumps(setting, sort_keys=True), row.name)
    return [firsts[json.dumps(one.overrides, sort_keys=True)] for one in settings_of(rows) if one.centre][:most]


def csv_of(rows: list[Row]) -> str:
    """A line for each run: its overrides, its state, and all numbers of its tests."""
    keys = _keys(rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    tests = [f'{protocol}_{number}' for protocol, number in _TESTS]
    writer.writerow(['run', *keys, 'state', 'asked', 'step', *tests, 'images_per_second', 'params_sha256', 'last_line'])
    for row in rows:
        result = row.result or {}
        writer.writerow(
            [
                row.name,
                *(shown(row.overrides.get(key, '')) for key in keys),
                row.state,
                'earlier' if row.earlier else 'now',
                row.step,
                *(result[protocol][number] if result else '' for protocol, number in _TESTS),
                result.get('images_per_second', ''),
                result.get('params_sha256', ''),
                row.says,
            ]
        )
    return out.getvalue()


def markdown_of(rows: list[Row], *, title: str, command: str) -> str:
    """The table of settings, best first, what made it, and what is not finished."""
    settings = settings_of(rows)
    keys = [key for key in _keys(rows) if key != 'seed']
    finished = [row for row in rows if row.result]
    lines = [f'# {title}', '', f'    {command}', '', f'{len(finished)} of {len(rows)} runs are finished.', '']
    for what, found in (
        ('Commit', {str(row.run.get('commit')) for row in finished}),
        ('Devices', {str(row.run.get('devices')) for row in finished}),
        ('Steps', {str(row.result['steps']) for row in finished if row.result}),
    ):
        if found:
            lines.append(f'{what}: {", ".join(sorted(found))}.  ')
    lines += ['', 'Top-1 errors of the validation split in %, mean ± standard deviation over n seeds.', '']
    head = [*(keys or ['setting']), 'n', 'centre', 'best to worst', 'ten-view']
    lines += [_line(head), _line(['---'] * len(head))]
    for one in settings:
        values = [shown(one.overrides[key]) if key in one.overrides else '' for key in keys] if keys else ['base']
        if one.earlier:
            values[0] += ' (earlier)'
        n = str(len(one.centre)) if len(one.centre) == one.asked else f'{len(one.centre)} of {one.asked}'
        spread = f'{100 * min(one.centre):.2f} to {100 * max(one.centre):.2f}' if len(one.centre) > 1 else ''
        lines.append(_line([*values, n, mean_text(one.centre), spread, mean_text(one.ten_view)]))
    if any(row.earlier for row in rows):
        lines += ['', '(earlier): asked for by an earlier start of this sweep, and no longer.']
    left = [row for row in rows if not row.result]
    if left:
        lines += ['', '| not finished | state | step | last line |', '|---|---|---|---|']
        lines += [_line([row.name, row.state, str(row.step), row.says]) for row in left]
    return '\n'.join([*lines, '', '![The settings compared](results.png)', ''])


def mean_text(errors: list[float]) -> str:
    """Mean and standard deviation (of a sample) in %; only the number where there is one, nothing of none."""
    if not errors:
        return ''
    mean = f'{100 * statistics.fmean(errors):.2f}'
    return mean if len(errors) == 1 else f'{mean} ± {100 * statistics.stdev(errors):.2f}'


def write_results(record: Record, *, title: str, command: str) -> str:
    """Writes ROOT/results.csv, results.md and, if a run is finished, results.png; returns the Markdown."""
    from alexnet_jax.sweeping.figure import draw

    rows = rows_of(record)
    text = markdown_of(rows, title=title, command=command)
    settings = [one for one in settings_of(rows) if one.centre]
    if settings:
        draw(settings, record.root / 'results.png', searched=list(record.search or ()))
    else:
        text = text[: text.index('\n![')]
    write_whole(record.root / 'results.csv', csv_of(rows))
    write_whole(record.root / 'results.md', text)
    return text


def _keys(rows: list[Row]) -> list[str]:
    """All keys that runs override, in the order in which they come, the seed last."""
    keys = list(dict.fromkeys(key for row in rows for key in row.overrides))
    return sorted(keys, key=lambda key: key == 'seed')


def _line(cells: list[str]) -> str:
    return '| ' + ' | '.join(cell.replace('|', r'\|') for cell in cells) + ' |'
