"""Takes samples: how long a program takes, how much others used the machine meanwhile, and how much memory was held.

Standard library only; the counters are Linux's, and None elsewhere.
"""

import collections
import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import pathlib
import time
from collections.abc import Callable, Iterator

_STAT, _STATUS, _CLEAR = (pathlib.Path('/proc', name) for name in ('stat', 'self/status', 'self/clear_refs'))


@dataclasses.dataclass(frozen=True)
class Program:
    """A function that is timed, and the work that one call of it does; 0 where that does not matter."""

    call: Callable[[], object]  # returns when its result is computed
    flop: int = 0  # floating-point operations, a multiply-accumulate counting as two
    moved: int = 0  # bytes that must at least be read and written
    settle: Callable[[], object] = lambda: None  # called before the clock starts: work done beforehand is not counted
    peak: Callable[[], int | None] | None = None  # counts an accelerator's bytes; None: this process's are meant


@dataclasses.dataclass(frozen=True)
class Sample:
    """Measurements of calls of one program, one after the other; None where the system does not count."""

    calls: int  # at least 1
    seconds: float  # wall-clock time of one call, the mean
    cpu_seconds: float  # CPU time of all threads of this process and of its own processes in one call, the mean
    foreign: float | None  # 0..1, share of the cores that others used meanwhile (other guests of the hypervisor too)
    peak_bytes: int | None  # the largest resident set during the calls, or what `Program.peak` counts


def make_iterator_program(iterator: Iterator[object], *, skip: int) -> Program:
    """Makes a program of an iterator's next element; first skips `skip`, which it may have read ahead of the clock."""
    skipped = collections.deque[object](maxlen=0)
    return Program(lambda: next(iterator), settle=lambda: skipped.extend(itertools.islice(iterator, skip)))


def take_sample(program: Program, *, seconds: float) -> Sample:
    """Calls `program` once, and again until `seconds` have passed."""
    program.settle()
    if _CLEAR.exists():  # the high-water mark of the resident set starts again from its size now (proc(5), clear_refs)
        _CLEAR.write_text('5')
    calls, busy, own, start = 0, _get_busy_seconds(), _get_own_seconds(), time.perf_counter()
    while not calls or time.perf_counter() - start < seconds:
        program.call()
        calls += 1
    elapsed = time.perf_counter() - start
    own = _get_own_seconds() - own
    others = None if busy is None else (_get_busy_seconds() or 0) - busy - own
    foreign = None if others is None else min(1.0, max(0.0, others / (elapsed * (os.cpu_count() or 1))))
    return Sample(calls, elapsed / calls, own / calls, foreign, program.peak() if program.peak else _get_peak_bytes())


def wait_until_idle(*, longest: float = 5.0) -> None:
    """Waits until this process and those it started compute nothing, such as reading ahead, or `longest` seconds."""
    end = time.perf_counter() + longest
    while time.perf_counter() < end:
        before = _get_own_seconds()
        time.sleep(0.05)
        if _get_own_seconds() - before < 0.01:
            return


def _get_own_seconds() -> float:
    """Returns the CPU time of this process and of those that run for it, by multiprocessing."""
    ticks = 0
    for child in multiprocessing.active_children():
        with contextlib.suppress(OSError):  # it has ended since, or the system has no such file
            fields = pathlib.Path(f'/proc/{child.pid}/stat').read_text().rpartition(')')[2].split()
            ticks += int(fields[11]) + int(fields[12])  # user, system: the 14th and 15th (proc(5), stat)
    return time.process_time() + (ticks / os.sysconf('SC_CLK_TCK') if ticks else 0.0)


def _get_busy_seconds() -> float | None:
    """Returns the time that the machine's cores were not idle since it was started."""
    if not _STAT.exists():
        return None
    user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, _STAT.read_text().split(maxsplit=9)[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf('SC_CLK_TCK')


def _get_peak_bytes() -> int | None:
    if not _STATUS.exists():
        return None
    lines = dict(line.split(':', 1) for line in _STATUS.read_text().splitlines())
    return int(lines['VmHWM'].removesuffix('kB')) * 1024
