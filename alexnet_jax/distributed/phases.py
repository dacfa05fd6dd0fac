"""How far this process has come: its heartbeats tell the others, so that one which is alive and stuck is found.

All processes of a run do the same in the same order, so they pass the same marks, and who has passed fewest holds the
others up. Marks stand before what waits for other processes, or for devices that do: who waits has passed its mark.
"""

import threading
import time

SLOW = 10  # how many times longer than in a step a process may stay where a disk or a compiler sets the pace
_LONGEST = 3  # and in a step, how many times the longest that this process has made


class Progress:
    """The marks that the main thread of a process passes, alike in all of them."""

    def __init__(self) -> None:
        self._place = (0, 'start', True)  # marks passed, phase, whether that is slow: one value, as threads read it
        self._since, self._longest = time.monotonic(), 0.0

    def enter(self, phase: str, *, slow: bool = True) -> None:
        """Passes a mark and begins `phase`, a name for people; False for `slow`: it waits for devices only."""
        count, _, was_slow = self._place
        now = time.monotonic()
        if not was_slow:
            self._longest = max(self._longest, now - self._since)
        self._since, self._place = now, (count + 1, phase, slow)

    def advance(self) -> None:
        """Passes a mark within a phase; does nothing in other threads, whose order is not the same everywhere."""
        if threading.current_thread() is threading.main_thread():
            count, phase, slow = self._place
            self._place = (count + 1, phase, slow)

    def report(self, limit: float) -> tuple[int, str, float]:
        """Returns (marks passed, phase, how many seconds others wait for its end); `limit` is that of a step."""
        count, phase, slow = self._place
        return count, phase, SLOW * limit if slow else min(max(limit, _LONGEST * self._longest), SLOW * limit)


PROGRESS = Progress()  # one, as the process has one main thread, and `jax.distributed` one connection
