"""Runs the points of a sweep as processes of their own, so many at a time, and keeps what became of each."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Protocol

from alexnet_jax import FAILED, INTERRUPTED, LOST
from alexnet_jax.sweeping.plan import Point
from alexnet_jax.sweeping.progress import MARK, Progress, ended_as, result_of
from alexnet_jax.sweeping.record import lock
from alexnet_jax.sweeping.shares import Share

TRIES = 3  # of a run that ends with code 75: another of its processes was lost
_TICK = 0.2  # seconds between looks at the processes
_LOOK = 1.0  # and between looks into their folders
ENDED = ('finished', 'failed', 'stopped', 'pruned')


@dataclasses.dataclass
class Run:
    """A point, and what became of it in this start of the sweep.

    Attributes:
      point: what is run.
      steps: updates of the whole run.
      progress: what its folder says.
      state: 'waiting', 'running', 'elsewhere' (in a process that another sweep started), or one of ENDED.
      says: where it failed or stopped, how, and its last line.
      code: its process's exit code.
      seconds: that its process took, in this start.
    """

    point: Point
    steps: int
    progress: Progress
    state: str = 'waiting'
    says: str = ''
    code: int | None = None
    seconds: float = 0.0
    began: float = 0.0
    tries: int = 0
    share: Share | None = None
    process: subprocess.Popen | None = None
    log: IO[str] | None = None

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Sends its process a signal; the first SIGTERM or SIGINT makes it save and leave."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)


class Source(Protocol):
    """Where points come from: a list, or a search that makes them up as it goes."""

    def next(self) -> Point | None:
        """The next point to run; None where there is none now. After None it may be asked again."""
        ...

    def watch(self, run: Run) -> bool:
        """Looks at a run that goes on; whether it is to be stopped, for good."""
        ...

    def ended(self, run: Run) -> None:
        """Learns what became of a run, whose state is one of ENDED."""
        ...


class Listed:
    """The source that is a list."""

    def __init__(self, points: Iterable[Point]) -> None:
        self._left = deque(points)

    def next(self) -> Point | None:
        """The next of the list."""
        return self._left.popleft() if self._left else None

    def watch(self, run: Run) -> bool:
        """Lets it go on."""
        return False

    def ended(self, run: Run) -> None:
        """Needs not know."""


class Runner:
    """A sweep that goes on.

    Attributes:
      runs: all of them, in the order in which they came.
      told: the signal that this process was told to stop by, 0 while it was not.
    """

    def __init__(
        self,
        root: pathlib.Path,
        source: Source,
        *,
        command: Callable[[Point], Sequence[str]],
        steps: Callable[[Point], int],
        shares: Sequence[Share],
        report: Callable[[Run], None],
        show: Callable[[list[Run]], None],
    ) -> None:
        """What it needs to run points.

        Args:
          root: the sweep's folder.
          source: of the points.
          command: what runs a point, to its end or on from where it was.
          steps: updates of a point's run.
          shares: of the machine, one for each run that goes at the same time.
          report: called with each run that starts, and once more when it ends.
          show: called now and then with all runs.
        """
        self.runs: list[Run] = []
        self.told = 0
        self._root, self._source, self._command, self._steps = root, source, command, steps
        self._free, self._report, self._show = list(shares), report, show
        self._signals: deque[int] = deque()
        self._looked = 0.0

    def run(self) -> int:
        """Runs all points; returns 0 if they are finished, 76 if told to stop, 75 if only losses are left, else 1."""
        before = {number: signal.signal(number, lambda number, _: self._signals.append(number))
                  for number in (signal.SIGTERM, signal.SIGINT)}  # fmt: skip
        try:
            while self._turn():
                time.sleep(_TICK)
            self._show(self.runs)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        codes = {run.code for run in self.runs if run.state in ('failed', 'stopped')}
        if self.told or INTERRUPTED in codes:
            return INTERRUPTED
        return 0 if not codes else LOST if codes == {LOST} else FAILED

    def _turn(self) -> bool:
        """One look at everything; whether there is more to do."""
        while self._signals:
            self.told = self._signals.popleft()
            for run in self._going():
                run.stop(self.told)  # once for each that came: a second one makes runs leave at once
        for run in self._going():
            self._look_at(run)
        while self._free and not self.told and (point := self._source.next()):
            run = Run(point, self._steps(point), Progress(self._root / point.name))
            self.runs.append(run)
            self._begin(run)
        if time.monotonic() - self._looked > _LOOK:
            self._looked = time.monotonic()
            for run in self._going():
                run.progress.refresh()
                if run.state == 'running' and self._source.watch(run):
                    run.state = 'pruned'
                    run.stop()
            self._show(self.runs)
        # What another sweep runs is its own to end.
        return bool([run for run in self._going() if run.process or not self.told])

    def _going(self) -> list[Run]:
        return [run for run in self.runs if run.state in ('running', 'elsewhere') or run.process]

    def _begin(self, run: Run) -> None:
        """Starts a run's process, unless it is finished, or runs already."""
        if run.state == 'waiting':
            if result_of(self._root / run.point.name):
                self._end(run, 'finished')
                return
            run.share = self._free.pop(0)
        run.log = lock(self._root, run.point.name)
        if run.log is None:
            if run.state != 'elsewhere':
                run.state = 'elsewhere'
                self._report(run)
            return
        if result_of(self._root / run.point.name):  # since another sweep's process has left
            self._end(run, 'finished')
            return
        mesh, share = run.point.config.mesh, run.share or Share()
        with share.confined():
            run.process = subprocess.Popen(
                self._command(run.point),
                env=os.environ | share.environment(mesh[0] * mesh[1]),
                stdin=subprocess.DEVNULL,
                stdout=run.log,
                stderr=run.log,
                start_new_session=True,  # a terminal's Ctrl-C reaches it once, through this process
            )
        run.state, run.began, run.tries = 'running', time.monotonic(), run.tries + 1
        self._report(run)

    def _look_at(self, run: Run) -> None:
        if run.process is None:
            if not self.told:
                self._begin(run)
            return
        code = run.process.poll()
        if code is None:
            return
        run.seconds += time.monotonic() - run.began
        run.process, run.code = None, code
        if code == LOST and run.tries < TRIES and not self.told and run.state != 'pruned':
            self._close(run)
            self._begin(run)
            return
        if code == 0 and result_of(self._root / run.point.name):
            self._end(run, 'finished')  # even if it was to be pruned: it was faster
        elif run.state == 'pruned':
            self._end(run, 'pruned')
        elif code == INTERRUPTED or (self.told and code != FAILED):
            self._end(run, 'stopped')
        else:
            self._end(run, 'failed')

    def _end(self, run: Run, state: str) -> None:
        if run.share is not None:
            self._free.append(run.share)
        run.state, run.share = state, None
        run.progress.refresh()
        if run.log:
            if state != 'finished':
                how = f'{state}, {_meaning(run.code)}' if state == 'failed' else state
                with contextlib.suppress(OSError):  # a full disk, for which the run may have failed
                    run.log.write(f'{MARK}{how}\n')
            self._close(run)
        if state != 'finished':
            run.says = ended_as(self._root / f'{run.point.name}.log')[1]
        self._source.ended(run)
        self._report(run)

    def _close(self, run: Run) -> None:
        if run.log:
            with contextlib.suppress(OSError):  # as in `_end`: a line is written here at the latest
                run.log.close()
            run.log = None


def _meaning(code: int | None) -> str:
    if code is not None and code < 0:
        return f'ended by {signal.Signals(-code).name}'
    return 'without a result' if code == 0 else f'exit code {code}'
