"""SIGTERM and SIGINT: the run saves at the next step and leaves; a second signal leaves at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import jax

from alexnet_jax.distributed.hosts import allgather_str, get_store
from alexnet_jax.distributed.watchdog import exit_now
from alexnet_jax.errors import INTERRUPTED

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
NOTHING_NEW = 'nothing new to save'
_KEY = 'alexnet/interrupted'


class Preemption:
    """Whether this run was told to stop; a context manager, which takes the signals and gives them back.

    Python runs signal handlers between its own instructions, so while XLA compiles, or a device or another process is
    waited for, not at all. Here the handlers do nothing, and a thread reads the signals' numbers from a pipe that C
    writes to.
    """

    def __init__(self, info: Callable[[str], None], *, processes: int = 1) -> None:
        """`info` prints a line; of `processes` that have not met yet each leaves by itself, see `start_sync`."""
        self.info = info
        self._several, self._met = processes > 1, False
        self.name = ''  # of the signal, or of where it came from
        self.idle = True  # no step was made since the last checkpoint: there is nothing to save, whatever goes on
        self._polls, self._stop_at = 0, None if self._several else 0
        self._turn = threading.Lock()  # held while the processes agree on where they stop
        self._ended = threading.Event()

    def __enter__(self) -> Preemption:
        read, write = os.pipe()
        os.set_blocking(write, False)
        self._pipe = (read, write)
        self._before = self._take_signals()
        self._wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, daemon=True, name='signals').start()
        return self

    def _take_signals(self) -> dict[int, Any]:
        return {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}

    def start_sync(self) -> None:
        """From now on the processes, which have met, stop together."""
        self._take_signals()  # again: where processes meet, JAX takes SIGTERM for a watch of its own
        if self._several:
            self._met = True
            threading.Thread(target=self._follow, daemon=True, name='interruption').start()

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._pipe[1])

    def _listen(self) -> None:
        told = ''  # this process itself: of several, `name` may come from another
        while data := os.read(self._pipe[0], 1):
            number = data[0]
            if number not in _SIGNALS:
                continue
            if told:
                exit_now(f'{signal.Signals(number).name} again: left at once, without saving', 128 + number)
            self.name = told = signal.Signals(number).name
            if self.idle and not self._met:
                self._leave()
            self.info(f'{self.name}: saving at the next step, then leaving; a second one leaves at once')
            if self._met:
                with contextlib.suppress(Exception):  # of a store that is gone: distributed.watchdog will say so
                    get_store().key_value_set(
                        _KEY, f'{self.name} of process {jax.process_index()}', allow_overwrite=True
                    )
        os.close(self._pipe[0])

    def _follow(self) -> None:
        """In one of several processes: once any was told to stop, all settle on the same one of their polls."""
        while not self._ended.wait(0.5):
            try:
                told = dict(get_store().key_value_dir_get(os.path.dirname(_KEY))).get(_KEY)
            except Exception:  # of a store that is gone: distributed.watchdog will say so
                continue
            if told is None:
                continue
            with self._turn:
                # No process polls while it says how often it has, so the largest number has been passed by none.
                words = allgather_str('interruption', f'{self._polls} {self.idle}')
                self.name = self.name or told
                if any(word.endswith('True') for word in words):
                    time.sleep(jax.process_index() == 0)  # the others hear each other through process 0: it goes last
                    self._leave()
                self._stop_at = max(int(word.split()[0]) for word in words) + 1
            return

    def _leave(self) -> NoReturn:
        exit_now(f'interrupted by {self.name}: {NOTHING_NEW}; the same command goes on', INTERRUPTED)

    def requested(self) -> bool:
        """Whether to stop here. All processes must ask at the same places, and are answered the same at each."""
        with self._turn:
            self._polls += 1
            return bool(self.name) and self._stop_at is not None and self._polls >= self._stop_at
