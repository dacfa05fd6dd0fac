"""Results of a sweep, read from its runs' folders: progress, a row for each run, one for each setting over seeds."""

import csv
import dataclasses
import io
import json
import math
import pathlib
import statistics
from typing import Any

from alexnet_jax.logs.writers import iter_metrics
from alexnet_jax.sweep.plan import format_value
from alexnet_jax.sweep.record import SweepRecord, lock_point
from alexnet_jax.training.config_rules import MAX_STEPS

NOTE = 'alexnet sweep: '  # begins the line that a sweep appends to a run's log
_TAIL_BYTES = 8192  # of a log, searched for its last lines


@dataclasses.dataclass
class RunProgress:
    """The numbers in a run's metrics.jsonl so far."""

    step: int = 0  # of the last line
    loss: float | None = None  # mean in nats of the last training line
    errors: dict[int, float] = dataclasses.field(default_factory=dict)  # step: centre top-1, validation split
    images_per_second: float | None = None  # of the last training line

    @property
    def error(self) -> float | None:
        """The last centre top-1 error of the validation split; None before there is one."""
        return self.errors[max(self.errors)] if self.errors else None


def load_progress(folder: pathlib.Path) -> RunProgress:
    """Loads a run's progress; takes 14 ms for the 4,500 lines of 90 epochs of ImageNet."""
    progress = RunProgress()
    for _, entry in iter_metrics(folder / 'metrics.jsonl', MAX_STEPS):
        progress.step = entry['step']
        if entry['split'] == 'train':
            progress.loss, progress.images_per_second = entry['loss'], entry['images_per_second']
        elif (entry['split'], entry.get('protocol')) == ('validation', 'centre'):
            progress.errors[progress.step] = entry['top1_error']
    return progress


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object that a run writes; {} where the file is missing or cut off."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_result(folder: pathlib.Path) -> dict[str, Any] | None:
    """Reads result.json of a finished run; None where it is missing or incomplete."""
    result = read_json(folder / 'result.json')
    return result if all(map(result.get, ('steps', 'centre', 'ten_view'))) else None


def read_log_end(log: pathlib.Path) -> tuple[str, str]:
    """Reads the sweep's note at the end of a run's log and the run's own last line; '' for each that is missing.

    A note above other lines does not count: the run was resumed after it.
    """
    if not log.exists():
        return '', ''
    with log.open('rb') as file:
        file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
        lines = [line for line in file.read().decode(errors='replace').splitlines() if line.strip()]
    note = lines.pop().removeprefix(NOTE) if lines and lines[-1].startswith(NOTE) else ''
    return note, next((line for line in reversed(lines) if not line.startswith(NOTE)), '')


_TESTS = [(protocol, number) for protocol in ('centre', 'ten_view') for number in ('top1_error', 'top5_error', 'loss')]


@dataclasses.dataclass(frozen=True)
class Row:
    """A run, as its folder has it."""

    name: str
    overrides: dict[str, Any]
    state: str  # 'finished', 'running', 'waiting', or the note in its log: 'failed, exit code 1', 'stopped', ...
    last_line: str  # of the log of a run that ended without a result
    step: int  # number of updates made
    result: dict[str, Any] | None  # result.json of a finished run
    run: dict[str, Any]  # run.json of a run that has begun
    previous: bool  # whether only an earlier start of the sweep requested the run


@dataclasses.dataclass(frozen=True)
class SweepSetting:
    """Runs that differ in nothing but their seed, finished or not."""

    overrides: dict[str, Any]  # common to the runs
    rows: list[Row]

    def get_errors(self, protocol: str = 'centre') -> list[float]:
        """Returns the top-1 errors of the finished runs, fractions of the validation split."""
        return [row.result[protocol]['top1_error'] for row in self.rows if row.result]

    @property
    def previous(self) -> bool:
        """Whether only earlier starts of the sweep requested the runs."""
        return all(row.previous for row in self.rows)


def load_rows(record: SweepRecord) -> list[Row]:
    """Loads a row for each point of the sweep, those that only earlier starts requested last."""
    points = record.points | record.previous_points
    return [_load_row(record.root, name, points[name], name in record.previous_points) for name in points]


def _load_row(root: pathlib.Path, name: str, overrides: dict[str, Any], previous: bool) -> Row:
    folder, log = root / name, root / f'{name}.log'
    result, state, last_line = read_result(folder), 'finished', ''
    if result is None:
        note, last_line = read_log_end(log)
        lock = lock_point(root, name) if log.exists() else None
        if lock:
            lock.close()
        elif log.exists():
            note, last_line = 'running', ''
        state = note or ('left unfinished' if folder.exists() or log.exists() else 'waiting')
    step, run = load_progress(folder).step, read_json(folder / 'run.json')
    return Row(name, overrides, state, last_line, step, result, run, previous)


def group_by_setting(rows: list[Row]) -> list[SweepSetting]:
    """Groups runs by setting: the best mean centre error first, settings without a finished run last."""
    settings: dict[str, SweepSetting] = {}
    for row in rows:
        overrides = {key: value for key, value in row.overrides.items() if key != 'seed'}
        settings.setdefault(json.dumps(overrides, sort_keys=True), SweepSetting(overrides, [])).rows.append(row)
    return sorted(
        settings.values(),
        key=lambda setting: statistics.fmean(setting.get_errors()) if setting.get_errors() else math.inf,
    )


def choose_best_runs(rows: list[Row], count: int) -> list[str]:
    """Returns the names of up to `count` runs to compare: the first finished one of each setting, the best first."""
    finished = [row for row in rows if row.result]
    return [setting.rows[0].name for setting in group_by_setting(finished)][:count]


def format_csv(rows: list[Row]) -> str:
    """Formats a line for each run: its overrides, its state, and all numbers of its tests."""
    keys, out = _list_keys(rows), io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    tests = [f'{protocol}_{number}' for protocol, number in _TESTS]
    writer.writerow(['run', *keys, 'state', 'asked', 'step', *tests, 'images_per_second', 'params_sha256', 'last_line'])
    for row in rows:
        result = row.result or {}
        writer.writerow(
            [
                row.name,
                *(format_value(row.overrides.get(key, '')) for key in keys),
                row.state,
                'earlier' if row.previous else 'now',
                row.step,
                *(result[protocol][number] if result else '' for protocol, number in _TESTS),
                result.get('images_per_second', ''),
                result.get('params_sha256', ''),
                row.last_line,
            ]
        )
    return out.getvalue()


def format_markdown(rows: list[Row], *, title: str, command: str) -> str:
    """Formats the table of settings, best first, with the command that made it and the runs that are not finished."""
    keys = [key for key in _list_keys(rows) if key != 'seed']
    finished = [row for row in rows if row.result]
    lines = [f'# {title}', '', f'    {command}', '', f'{len(finished)} of {len(rows)} runs are finished.', '']
    for what, values in (
        ('Commit', {str(row.run.get('commit')) for row in finished}),
        ('Devices', {str(row.run.get('devices')) for row in finished}),
        ('Steps', {str(row.result['steps']) for row in finished if row.result}),
    ):
        if values:
            lines.append(f'{what}: {", ".join(sorted(values))}.  ')
    lines += ['', 'Top-1 errors of the validation split in %, mean ± standard deviation over n seeds.', '']
    head = [*(keys or ['setting']), 'n', 'centre', 'best to worst', 'ten-view']
    lines += [_format_line(head), _format_line(['---'] * len(head))]
    for setting in group_by_setting(rows):
        cells = [format_value(setting.overrides.get(key, '')) for key in keys] or ['base']
        if setting.previous:
            cells[0] += ' (earlier)'
        errors = setting.get_errors()
        n = str(len(errors)) if len(errors) == len(setting.rows) else f'{len(errors)} of {len(setting.rows)}'
        spread = f'{100 * min(errors):.2f} to {100 * max(errors):.2f}' if len(errors) > 1 else ''
        lines.append(
            _format_line([*cells, n, format_mean(errors), spread, format_mean(setting.get_errors('ten_view'))])
        )
    if any(row.previous for row in rows):
        lines += ['', '(earlier): asked for by an earlier start of this sweep, and no longer.']
    if unfinished := [row for row in rows if not row.result]:
        lines += ['', '| not finished | state | step | last line |', '|---|---|---|---|']
        lines += [_format_line([row.name, row.state, str(row.step), row.last_line]) for row in unfinished]
    if finished:
        lines += ['', '![The settings compared](results.png)']
    return '\n'.join([*lines, ''])


def format_mean(errors: list[float]) -> str:
    """Formats mean ± standard deviation (of a sample) of fractions in %; of one its value, of none ''."""
    if not errors:
        return ''
    mean = f'{100 * statistics.fmean(errors):.2f}'
    return mean if len(errors) == 1 else f'{mean} ± {100 * statistics.stdev(errors):.2f}'


def _list_keys(rows: list[Row]) -> list[str]:
    """Lists all keys that runs override, in their order of appearance, the seed last."""
    keys = dict.fromkeys(key for row in rows for key in row.overrides)
    return sorted(keys, key=lambda key: key == 'seed')


def _format_line(cells: list[str]) -> str:
    return '| ' + ' | '.join(cell.replace('|', r'\|') for cell in cells) + ' |'
