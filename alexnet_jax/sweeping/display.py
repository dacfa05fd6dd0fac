"""What a person sees of a sweep that goes on: a table redrawn on a terminal, elsewhere a line for each event."""

from __future__ import annotations

import time
from collections import Counter

from rich.console import Console
from rich.live import Live
from rich.table import Table

from alexnet_jax.sweeping.runner import ENDED, Run
from alexnet_jax.training.logbook import clock

_COLUMNS = ('run', 'state', 'step', 'loss', 'validation error', 'time left')
_COLOURS = {'running': 'cyan', 'elsewhere': 'cyan', 'failed': 'red', 'finished': 'green', 'stopped': 'yellow'}
_FRAME = 8  # lines of a terminal that are not rows


class Display:
    """Standard error; a context manager."""

    def __init__(self, total: int, *, jobs: int, console: Console | None = None) -> None:
        """Of `total` runs, `jobs` at the same time."""
        self._total, self._jobs = total, jobs
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._ended = 0

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """One line, above the table where there is one."""
        self._console.print(text, markup=False)

    def report(self, run: Run) -> None:
        """A run that starts or ends."""
        self._ended += run.state in ENDED
        if self._live and run.state != 'failed':
            return  # the table has it
        text = f'{run.point.name}: {run.state}'
        if run.state == 'running' and run.tries > 1:
            text += f' again, try {run.tries}'
        elif run.state == 'elsewhere':
            text += ', in a process that another start of this sweep left; waiting for it'
        elif run.state == 'finished':
            text += f', {_error(run)} validation error, ' + (clock(run.seconds) if run.tries else 'by an earlier start')
        elif run.says:
            text += f' ({run.says})'
        self.say(f'{text}  [{self._ended} of {self._total}]' if run.state in ENDED else text)

    def show(self, runs: list[Run]) -> None:
        """Redraws the table."""
        if self._live:
            self._live.update(self.table(runs), refresh=True)

    def table(self, runs: list[Run]) -> Table:
        """All runs, or as many as the terminal has lines for: those that go on and those that failed first."""
        table = Table(*_COLUMNS, caption=self.summary(runs))
        first = sorted(runs, key=lambda run: (run.state in ENDED, run.state == 'finished'))
        room = max(3, self._console.height - _FRAME)
        chosen = first[:room]
        for run in runs:
            if run in chosen:
                table.add_row(*cells(run), style=_COLOURS.get(run.state))
        if len(runs) > len(chosen):
            table.add_row(f'and {len(runs) - len(chosen)} more')
        return table

    def summary(self, runs: list[Run]) -> str:
        """How many are in which state, and how long the rest may take."""
        counts = Counter(run.state for run in runs)
        counts['waiting'] += self._total - len(runs)
        text = ', '.join(f'{counts[state]} {state}' for state in sorted(counts) if counts[state])
        took = [run.seconds for run in runs if run.state == 'finished' and run.tries]
        if not took:
            return text
        mean = sum(took) / len(took)
        left = counts['waiting'] * mean
        left += sum(max(0.0, mean - (time.monotonic() - run.began)) for run in runs if run.state == 'running')
        return f'{text}; about {clock(left / self._jobs)} left'


def cells(run: Run) -> tuple[str, ...]:
    """A row of the table, as text."""
    progress, left = run.progress, ''
    if run.state == 'running' and progress.images_per_second:
        images = (run.steps - progress.step) * run.point.config.batch_size
        left = clock(images / progress.images_per_second)
    loss = '' if progress.loss is None else f'{progress.loss:.3f}'
    return run.point.name, run.state, f'{progress.step}/{run.steps}', loss, _error(run), left


def _error(run: Run) -> str:
    return '' if run.progress.error is None else f'{run.progress.error:.2%}'
