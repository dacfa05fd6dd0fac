"""Progress of a sweep on standard error: a table on a terminal, otherwise a line for each start and end of a run."""

import time
from collections import Counter
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from alexnet_jax.console import format_duration
from alexnet_jax.sweep.runner import ENDED, SweepRun

_COLUMNS = ('run', 'state', 'step', 'loss', 'validation error', 'time left')
_COLOURS = {'running': 'cyan', 'external': 'cyan', 'failed': 'red', 'finished': 'green', 'stopped': 'yellow'}
_FRAME_LINES = 8  # lines of a terminal that are not rows


class Display:
    """Shows a sweep on standard error; a context manager."""

    def __init__(self, total: int, *, jobs: int, console: Console | None = None) -> None:
        """Shows `total` runs, `jobs` of them at the same time."""
        self._total, self._jobs = total, jobs
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._ended = 0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def report(self, run: SweepRun) -> None:
        """Prints a line about a run that starts or ends; above the table only one that failed."""
        self._ended += run.state in ENDED
        if self._live and run.state != 'failed':
            return
        text = f'{run.point.name}: {run.state}'
        if run.state == 'running' and run.attempts > 1:
            text += f' again, attempt {run.attempts}'
        elif run.state == 'external':
            text += ', in a process that another start of this sweep left; waiting for it'
        elif run.state == 'finished':
            duration = format_duration(run.seconds) if run.attempts else 'by an earlier start'
            text += f', {_format_error(run)} validation error, {duration}'
        elif run.last_line:
            text += f' ({run.last_line})'
        count = f'  [{self._ended} of {self._total}]' if run.state in ENDED else ''
        self._console.print(text + count, markup=False)

    def show(self, runs: list[SweepRun]) -> None:
        """Redraws the table."""
        if self._live:
            self._live.update(self.make_table(runs), refresh=True)

    def make_table(self, runs: list[SweepRun]) -> Table:
        """Makes a table of all runs, or of as many as the terminal has lines for: active and failed ones first."""
        table = Table(*_COLUMNS, caption=self.format_summary(runs))
        by_state = sorted(runs, key=lambda run: (run.state in ENDED, run.state == 'finished'))
        shown = by_state[: max(3, self._console.height - _FRAME_LINES)]
        for run in runs:
            if run in shown:
                table.add_row(*format_cells(run), style=_COLOURS.get(run.state))
        if len(runs) > len(shown):
            table.add_row(f'and {len(runs) - len(shown)} more')
        return table

    def format_summary(self, runs: list[SweepRun]) -> str:
        """Formats the number of runs in each state, and an estimate of the time left."""
        counts = Counter(run.state for run in runs)
        counts['waiting'] += self._total - len(runs)
        text = ', '.join(f'{counts[state]} {state}' for state in sorted(counts) if counts[state])
        durations = [run.seconds for run in runs if run.state == 'finished' and run.attempts]
        if not durations:
            return text
        mean = sum(durations) / len(durations)
        left = counts['waiting'] * mean
        left += sum(max(0.0, mean - (time.monotonic() - run.started)) for run in runs if run.state == 'running')
        return f'{text}; about {format_duration(left / self._jobs)} left'


def format_cells(run: SweepRun) -> tuple[str, ...]:
    """Formats a row of the table."""
    progress, left = run.progress, ''
    if run.state == 'running' and progress.images_per_second:
        images = (run.steps - progress.step) * run.point.config.batch_size
        left = format_duration(images / progress.images_per_second)
    loss = '' if progress.loss is None else f'{progress.loss:.3f}'
    return run.point.name, run.state, f'{progress.step}/{run.steps}', loss, _format_error(run), left


def _format_error(run: SweepRun) -> str:
    return '' if run.progress.error is None else f'{run.progress.error:.2%}'
