"""Puts a sweep together: its record, where its points come from, the runner and what a person sees of it."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from alexnet_jax import InputError
from alexnet_jax.sweeping.display import Display
from alexnet_jax.sweeping.plan import Plan, Point, steps_of
from alexnet_jax.sweeping.record import Record
from alexnet_jax.sweeping.results import best_runs, rows_of, write_results
from alexnet_jax.sweeping.runner import Listed, Runner, Source
from alexnet_jax.sweeping.search import Search, Space, described, space_of
from alexnet_jax.sweeping.shares import shares
from alexnet_jax.sweeping.task import become
from alexnet_jax.training.logbook import to_stderr

REPORTED = 6  # runs on one page: the report tells no more apart
Command = Callable[[Point], list[str]]


def task(root: pathlib.Path, plan: Plan, points: Sequence[Point], *, index: int, command: Command) -> int:
    """Becomes the run of one point; returns 0 where it is finished. InputError where there is no such point."""
    if index >= len(points):
        raise InputError(f'--index={index}: there are {len(points)} points, the last is {len(points) - 1}')
    Record(root, plan, points)
    become(points[index], root, command=command(points[index]))
    return 0


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
        self._space: Space | None = None if texts is None else space_of(plan.base, texts)
        self._record = Record(root, plan, points, search=None if self._space is None else described(self._space))

    def run(self, *, jobs: int, trials: int) -> int:
        """Runs what is not finished, `jobs` at the same time; returns the exit code, see `Runner.run`.

        Raises:
          InputError: a dataset is not prepared, or the machine cannot be shared out so.
        """
        parts = shares(jobs)
        for point in self._points:
            steps_of(point)  # datasets are opened, or rendered, before the first run
        if self._record.earlier:
            to_stderr(f'{self._record.new} points are new; {len(self._record.earlier)} of earlier starts are no '
                      f'longer asked for: they stay in the table, marked')  # fmt: skip
        total, source = len(self._points), self._source(trials)
        if isinstance(source, Search):
            total = source.left
        with Display(total, jobs=jobs) as display:
            return Runner(
                self._root,
                source,
                command=self._command,
                steps=steps_of,
                shares=parts,
                report=display.report,
                show=display.show,
            ).run()

    def _source(self, trials: int) -> Source:
        if self._space is None:
            return Listed(self._points)
        return Search(self._root, self._plan.base, self._space, trials=trials, say=to_stderr, started=self._record.add)

    def results(self) -> str:
        """Writes results.csv, results.md and results.png; returns the Markdown."""
        return write_results(self._record, title=self._root.name, command=self._again)

    def report(self) -> None:
        """Writes report.html, which compares the best runs, by alexnet_jax.report in a process that says so itself."""
        names = best_runs(rows_of(self._record), REPORTED)
        if not names:
            to_stderr('no report: no run is finished')
            return
        command = [sys.executable, '-m', 'alexnet_jax.report', f'--output={self._root / "report.html"}']
        subprocess.run([*command, *(f'--workdir={self._root / name}' for name in names)], check=False)
