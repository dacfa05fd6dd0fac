"""Where the time goes: the parts of a start, and the throughput of training."""

import os
import pathlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from alexnet_jax.distributed.phases import PROGRESS
from alexnet_jax.files import write_json

STAT = pathlib.Path('/proc/self/stat')  # Linux's record of this process
CACHE_HIT = '/jax/compilation_cache/cache_hits'  # what jax.monitoring tells of a program read instead of compiled


class StartupTimer:
    """Measures the seconds of each part of a start, one after another, so that they add up to the whole.

    It begins with the process, as Linux recorded it to a hundredth of a second; elsewhere where the object is made,
    which leaves out the interpreter's own start. What the devices do in the background counts where it is waited for:
    most of it in the last part, 'step', which is the first step and what was left of creating the state.
    """

    def __init__(self, *, age: float | None = None) -> None:
        """`age` is how many seconds ago it began, 0 for a later run of a process; None: with the process."""
        self._seconds: dict[str, float] = {}
        self._since = time.perf_counter() - (_get_process_age() if age is None else age)
        self._cached = False

    def lap(self, part: str) -> None:
        """Notes that the time since the last lap was spent on `part`."""
        now = time.perf_counter()
        self._seconds[part] = now - self._since
        self._since = now

    def compile(self, lowered: Any) -> Any:
        """Returns `lowered.compile()`, the lap 'compile', and notes whether the compilation cache had the program."""
        import jax  # after the flags are read: a command that only prints its help does without

        def listen(event: str, **_: Any) -> None:
            self._cached |= event == CACHE_HIT

        PROGRESS.enter('compilation')
        jax.monitoring.register_event_listener(listen)
        try:
            compiled = lowered.compile()
        finally:
            jax.monitoring.unregister_event_listener(listen)
        self.lap('compile')
        return compiled

    def to_json(self) -> dict[str, Any]:
        """Returns what is written to startup.json: 'total' and 'parts' in seconds, 'compile_cached'."""
        parts = {part: round(seconds, 3) for part, seconds in self._seconds.items()}
        return {'total': round(sum(self._seconds.values()), 3), 'parts': parts, 'compile_cached': self._cached}

    def format_line(self) -> str:
        """Formats the parts and their sum for the person who waited."""
        names = {'compile': 'compile (cached)'} if self._cached else {}
        parts = ', '.join(f'{names.get(part, part)} {seconds:.1f}' for part, seconds in self._seconds.items())
        return f'first step after {sum(self._seconds.values()):.1f} s: {parts}'

    def log(self, path: pathlib.Path, info: Callable[[str], None]) -> None:
        """Ends the start with the first step's metrics: `info` gets the line, process 0 writes `path`; once."""
        import jax

        if 'step' not in self._seconds:  # not after a recovery
            self.lap('step')
            info(self.format_line())
            if jax.process_index() == 0:
                write_json(path, self.to_json())


class Stopwatch:
    """Counts images and the seconds spent training on them, leaving out tests, saves and compilation."""

    def __init__(self) -> None:
        self.images, self.seconds = 0, 0.0
        self.waited = 0.0  # of the seconds: for batches, while the devices had nothing to do
        self._recent: deque[tuple[int, float]] = deque(maxlen=50)
        self._since = time.perf_counter()

    def lap(self, images: int) -> None:
        """Adds `images` and the time since the last lap or `resume`."""
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        self.images, self.seconds = self.images + images, self.seconds + seconds
        self._recent.append((images, seconds))

    def resume(self) -> None:
        """Forgets the time since the last lap."""
        self._since = time.perf_counter()

    def get_data_wait(self) -> float:
        """Returns the share of the time, 0..1, in which the devices waited for a batch."""
        return self.waited / self.seconds if self.seconds else 0.0

    def get_recent_speed(self) -> float:
        """Returns images per second over the last laps."""
        images, seconds = (sum(column) for column in zip(*self._recent, strict=True))
        return images / seconds


def _get_process_age() -> float:
    """Returns seconds since this process was started; 0 where /proc does not say."""
    if not STAT.exists():
        return 0.0
    after_name = STAT.read_text().rpartition(')')[2].split()  # the name may hold blanks; field 22 is the 20th after it
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(after_name[19]) / os.sysconf('SC_CLK_TCK')
