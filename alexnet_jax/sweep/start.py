"""Puts a sweep together: its record, where its points come from, the runner and what a person sees of it."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from alexnet_jax.console import info
from alexnet_jax.errors import InputError
from alexnet_jax.files import write_file
from alexnet_jax.sweep.display import Display
from alexnet_jax.sweep.plan import Plan, Point, count_steps
from alexnet_jax.sweep.plot import plot_sweep
from alexnet_jax.sweep.record import SweepRecord
from alexnet_jax.sweep.results import choose_best_runs, format_csv, format_markdown, group_by_setting, load_rows
from alexnet_jax.sweep.runner import ListedPoints, PointSource, Runner
from alexnet_jax.sweep.search import Search, Space, format_space, parse_space
from alexnet_jax.sweep.shares import shares
from alexnet_jax.sweep.task import become_run

REPORTED = 6  # runs on one page: the report tells no more apart
Command = Callable[[Point], list[str]]


def task(root: pathlib.Path, plan: Plan, points: Sequence[Point], *, index: int, command: Command) -> int:
    """Becomes the run of one point; returns 0 where it is finished. InputError where there is no such point."""
    if index >= len(points):
        raise InputError(f'--index={index}: there are {len(points)} points, the last is {len(points) - 1}')
    SweepRecord(root, plan, points)
    become_run(points[index], root, command=command(points[index]))
    return 0


def write_results(record: SweepRecord, *, title: str, command: str) -> str:
    """Writes ROOT/results.csv, results.md and, if a run is finished, results.png; returns the Markdown."""
    rows = load_rows(record)
    text = format_markdown(rows, title=title, command=command)
    settings = [one for one in group_by_setting(rows) if one.centre]
    if settings:
        plot_sweep(settings, record.root / 'results.png', searched=list(record.search or ()))
    else:
        text = text[: text.index('\n![')]
    write_file(record.root / 'results.csv', format_csv(rows))
    write_file(record.root / 'results.md', text)
    return text


class Sweep:
    """A sweep, or a search, in its folder."""

    def __init__(
        self,
        root: pathlib.Path,
        plan: Plan,
        points: Sequence[Point],
        *,
        texts: Mapping[str, str] | None,
        command: Command,
        again: str,
    ) -> None:
        """Takes the folder.

        Args:
          root: the folder.
          plan: what all runs have in common.
          points: to run; empty for a search.
          texts: {key: text} of --sweep.KEY for a search; None for points.
          command: what runs a point.
          again: the command line that this sweep was started by.

        Raises:
          InputError: the folder holds something else, or the search's texts are none.
        """
        self._root, self._plan, self._points, self._command, self._again = root, plan, points, command, again
        self._space: Space | None = None if texts is None else parse_space(plan.base, texts)
        self._record = SweepRecord(
            root, plan, points, search=None if self._space is None else format_space(self._space)
        )

    def run(self, *, jobs: int, trials: int) -> int:
        """Runs what is not finished, `jobs` at the same time; returns the exit code, see `Runner.run`.

        Raises:
          InputError: a dataset is not prepared, or the machine cannot be shared out so.
        """
        parts = shares(jobs)
        for point in self._points:
            count_steps(point)  # datasets are opened, or rendered, before the first run
        if self._record.earlier:
            info(f'{self._record.new} points are new; {len(self._record.earlier)} of earlier starts are no '
                      f'longer asked for: they stay in the table, marked')  # fmt: skip
        total, source = len(self._points), self._source(trials)
        if isinstance(source, Search):
            total = source.left
        with Display(total, jobs=jobs) as display:
            return Runner(
                self._root,
                source,
                command=self._command,
                steps=count_steps,
                shares=parts,
                report=display.report,
                show=display.show,
            ).run()

    def _source(self, trials: int) -> PointSource:
        if self._space is None:
            return ListedPoints(self._points)
        return Search(self._root, self._plan.base, self._space, trials=trials, say=info, started=self._record.add)

    def results(self) -> str:
        """Writes results.csv, results.md and results.png; returns the Markdown."""
        return write_results(self._record, title=self._root.name, command=self._again)

    def report(self) -> None:
        """Writes report.html, which compares the best runs, by alexnet report in a process that says so itself."""
        names = choose_best_runs(load_rows(self._record), REPORTED)
        if not names:
            info('no report: no run is finished')
            return
        command = [sys.executable, '-m', 'alexnet_jax', 'report', f'--output={self._root / "report.html"}']
        subprocess.run([*command, *(f'--workdir={self._root / name}' for name in names)], check=False)
