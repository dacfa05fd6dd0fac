"""Runs the points of a sweep in processes, several at a time, each of which may make several runs in turn."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import IO

from alexnet_jax.console import info
from alexnet_jax.errors import FAILED, INTERRUPTED, LOST, InputError
from alexnet_jax.sweep.handover import RunProcess
from alexnet_jax.sweep.plan import Plan, Point
from alexnet_jax.sweep.record import lock_point
from alexnet_jax.sweep.resources import Resources
from alexnet_jax.sweep.results import NOTE, RunProgress, load_progress, read_log_end, read_result

MAX_ATTEMPTS = 3  # of a run that ends with code 75: it lost another of its processes
_POLL_SECONDS = 0.2  # between checks of the processes
_REFRESH_SECONDS = 1.0  # between reads of their folders
ENDED = ('finished', 'failed', 'stopped', 'pruned')


@dataclasses.dataclass(eq=False)
class _Slot:
    """A part of the machine, and the process there that waits for another run."""

    resources: Resources
    process: RunProcess | None = None

    def close(self) -> None:
        if self.process:
            self.process.close()
            self.process = None


@dataclasses.dataclass
class SweepRun:
    """The run of a point in this start of the sweep."""

    point: Point
    steps: int  # updates of the whole run
    progress: RunProgress
    state: str = 'waiting'  # or 'running', 'external' (in a process that an earlier start left), or one of ENDED
    last_line: str = ''  # of the log of a run that ended without a result
    code: int | None = None  # of the last process's exit
    seconds: float = 0.0  # duration of the processes in this start
    started: float = 0.0  # time.monotonic() at the start of the last process
    attempts: int = 0  # number of processes that have begun it
    slot: _Slot | None = None  # while the run is active
    process: RunProcess | None = None
    log: IO[str] | None = None

    def send_signal(self, number: int) -> None:
        """Sends the run's process a signal; the first SIGTERM or SIGINT makes it save and leave."""
        if self.process:
            self.process.send_signal(number)


class PointSource:
    """Gives the points of a list; a search overrides the methods."""

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self._points = iter(points)

    def next_point(self) -> Point | None:
        """Returns the next point to run; None where there is none now."""
        return next(self._points, None)

    def should_prune(self, run: SweepRun) -> bool:
        """Returns whether a run that goes on is to be stopped for good."""
        return False

    def record_end(self, run: SweepRun) -> None:
        """Records the end of a run, whose state is one of ENDED."""


@dataclasses.dataclass
class Runner:
    """Runs the points of a source."""

    root: pathlib.Path  # the sweep's folder
    source: PointSource
    _: dataclasses.KW_ONLY
    command: Callable[[Point], Sequence[str]]  # returns what starts or resumes a point's run
    steps: Callable[[Point], int]  # returns the number of updates of a point's run
    resources: Sequence[Resources]  # one part of the machine for each run at the same time
    report: Callable[[SweepRun], None]  # called with each run that starts, and again when it ends
    show: Callable[[list[SweepRun]], None]  # called about every second with all runs
    # Returns the arguments of a point's run, for a process that has ended another; None: each has its own process.
    arguments: Callable[[Point], Sequence[str]] | None = None

    def __post_init__(self) -> None:
        self.runs: list[SweepRun] = []  # in the order of their points
        self.stop_signal = 0  # the signal that asked this process to stop
        self._free = list(map(_Slot, self.resources))
        self._signals: deque[int] = deque()
        self._refreshed = 0.0

    def run(self) -> int:
        """Runs all points; returns 0 if all finished, 76 if asked to stop, 75 if only losses are left, else 1."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        handlers = [signal.signal(number, lambda number, _: self._signals.append(number)) for number in numbers]
        try:
            while self._poll():
                time.sleep(_POLL_SECONDS)
            self.show(self.runs)
        finally:
            for slot in (*self._free, *(run.slot for run in self.runs if run.slot)):
                slot.close()
            for number, handler in zip(numbers, handlers, strict=True):
                signal.signal(number, handler)
        codes = {run.code for run in self.runs if run.state in ('failed', 'stopped')}
        if self.stop_signal or INTERRUPTED in codes:
            return INTERRUPTED
        return 0 if not codes else LOST if codes == {LOST} else FAILED

    def _poll(self) -> bool:
        """Handles signals, ended runs and free resources once; returns whether there is more to do."""
        while self._signals:
            self.stop_signal = self._signals.popleft()
            for run in self._list_active():
                run.send_signal(self.stop_signal)  # every signal is forwarded: a second one makes runs leave at once
        for run in self._list_active():
            self._poll_run(run)
        while self._free and not self.stop_signal and (point := self.source.next_point()):
            run = SweepRun(point, self.steps(point), RunProgress())
            self.runs.append(run)
            self._start(run)
        if time.monotonic() - self._refreshed > _REFRESH_SECONDS:
            self._refreshed = time.monotonic()
            for run in self._list_active():
                run.progress = load_progress(self.root / run.point.name)
                if run.state == 'running' and self.source.should_prune(run):
                    run.state = 'pruned'
                    run.send_signal(signal.SIGTERM)
            self.show(self.runs)
        # A stopped sweep does not wait for processes of another one.
        return any(run.process or not self.stop_signal for run in self._list_active())

    def _list_active(self) -> list[SweepRun]:
        return [run for run in self.runs if run.state in ('running', 'external') or run.process]

    def _start(self, run: SweepRun) -> None:
        """Starts a run's process, unless the run is finished or another process runs it."""
        folder = self.root / run.point.name
        if run.state == 'waiting':
            if read_result(folder):
                self._end(run, 'finished')
                return
            run.slot = self._take_slot(run.point)
        run.log = lock_point(self.root, run.point.name)
        if run.log is None:
            if run.state != 'external':
                run.state = 'external'
                self.report(run)
            return
        if read_result(folder):  # written by the other process, which has ended
            self._end(run, 'finished')
            return
        assert run.slot is not None, 'a run that is not waiting has a slot'
        run.process = self._begin(run.point, run.slot, run.log.fileno())
        run.state, run.started, run.attempts = 'running', time.monotonic(), run.attempts + 1
        self.report(run)

    def _take_slot(self, point: Point) -> _Slot:
        """Takes the free slot whose process can make the point's run; else one without a process, else any."""
        kind = self._get_kind(point)
        slot = min(self._free, key=lambda slot: (slot.process is None or slot.process.kind != kind, bool(slot.process)))
        self._free.remove(slot)
        return slot

    def _get_kind(self, point: Point) -> Hashable:
        """Returns what a process can have only once: the devices and threads of its backend; None: it is not shared."""
        config = point.config
        if self.arguments is None or config.tracking:  # trackers leave processes behind, which hold a run's log
            return None
        return config.mesh[0] * config.mesh[1], config.deterministic

    def _begin(self, point: Point, slot: _Slot, log: int) -> RunProcess:
        """Begins a point's run in the process that waits in the slot, or in a new one."""
        kind, process = self._get_kind(point), slot.process
        if self.arguments and process and process.kind == kind and process.idle:
            slot.process = None
            if process.hand_over(self.arguments(point), log=log):
                return process
        slot.close()
        devices = point.config.mesh[0] * point.config.mesh[1]
        environment = os.environ | slot.resources.make_environment(devices)
        with slot.resources.pin():
            return RunProcess(self.command(point), kind=kind, log=log, environment=environment)

    def _poll_run(self, run: SweepRun) -> None:
        """Ends a run whose process has ended, or starts it again."""
        if run.process is None:
            if not self.stop_signal:
                self._start(run)
            return
        run.code = run.process.poll()
        if run.code is None:
            return
        run.seconds += time.monotonic() - run.started
        if run.slot is not None and run.process.idle:
            run.slot.process = run.process
        run.process = None
        if run.code == LOST and run.attempts < MAX_ATTEMPTS and not self.stop_signal and run.state != 'pruned':
            self._close_log(run)
            self._start(run)
        elif run.code in (0, INTERRUPTED) and read_result(self.root / run.point.name):
            self._end(run, 'finished')  # also a pruned run that was faster than the signal
        elif run.state == 'pruned':
            self._end(run, 'pruned')
        elif run.code == INTERRUPTED or (self.stop_signal and run.code != FAILED):
            self._end(run, 'stopped')
        else:
            self._end(run, 'failed')

    def _end(self, run: SweepRun, state: str) -> None:
        """Records a run's end: frees its resources, appends a note to its log, informs the source and the user."""
        if run.slot is not None:
            self._free.append(run.slot)
        run.state, run.slot = state, None
        run.progress = load_progress(self.root / run.point.name)
        if state != 'finished':
            reason = f', {_format_exit(run.code)}' if state == 'failed' else ''
            if run.log:
                with contextlib.suppress(OSError):  # a full disk, for which the run may have failed
                    run.log.write(f'{NOTE}{state}{reason}\n')
        self._close_log(run)
        if state != 'finished':
            run.last_line = read_log_end(self.root / f'{run.point.name}.log')[1]
        self.source.record_end(run)
        self.report(run)

    def _close_log(self, run: SweepRun) -> None:
        if run.log:
            with contextlib.suppress(OSError):  # a full disk again: closing writes what is in the buffer
                run.log.close()
            run.log = None


def exec_point(plan: Plan, point: Point) -> None:
    """Replaces this process by the run of one point, so that its signals and exit codes are the run's own.

    Returns if the run is finished. For a task of a job array, or a pod of an indexed job.

    Raises:
      InputError: another process runs the point.
    """
    if read_result(plan.root / point.name):
        info(f'{point.name}: finished before')
        return
    log = lock_point(plan.root, point.name)
    if log is None:
        raise InputError(f'{point.name} is being run by another process: wait for it, or stop it')
    os.set_inheritable(log.fileno(), True)  # the run holds the lock as long as it lives
    info(f'{point.name}: running')
    argv = plan.make_command(point)
    os.execv(argv[0], argv)


def _format_exit(code: int | None) -> str:
    if code is not None and code < 0:
        return f'ended by {signal.Signals(-code).name}'
    return 'without a result' if code == 0 else f'exit code {code}'
