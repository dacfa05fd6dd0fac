"""SIGTERM and SIGINT: the run saves at the next step and exits; a second signal exits at once."""

from __future__ import annotations

import contextlib
import json
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

    Python runs signal handlers between its own instructions, so not while XLA compiles, or a device or another process
    is waited for. Here the handlers do nothing, and a thread reads the signals' numbers from a pipe that C writes to.
    """

    def __init__(self, info: Callable[[str], None], *, processes: int = 1) -> None:
        """`info` prints a line; each of several `processes` stops by itself until `start_sync`."""
        self.info = info
        self._several, self._synced = processes > 1, False
        self.name = ''  # of the signal, or of where it came from
        self.idle = True  # no step was made since the last checkpoint: there is nothing to save
        self._polls, self._stop_at = 0, None if self._several else 0
        self._lock = threading.Lock()  # held while the processes agree on where they stop
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
        """Lets the processes, which are connected now, stop at the same step."""
        self._take_signals()  # again: JAX takes SIGTERM for a watch of its own when it connects processes
        if self._several:
            self._synced = True
            threading.Thread(target=self._sync, daemon=True, name='interruption').start()

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._pipe[1])

    def _listen(self) -> None:
        received = ''  # by this process: `name` may come from another
        while data := os.read(self._pipe[0], 1):
            number = data[0]
            if number not in _SIGNALS:
                continue
            if received:
                exit_now(f'{signal.Signals(number).name} again: left at once, without saving', 128 + number)
            self.name = received = signal.Signals(number).name
            if self.idle and not self._synced:
                self._exit()
            self.info(f'{self.name}: saving at the next step, then leaving; a second one leaves at once')
            if self._synced:
                source = f'{self.name} of process {jax.process_index()}'
                with contextlib.suppress(Exception):  # of a store that is gone: the watchdog exits
                    get_store().key_value_set(_KEY, source, allow_overwrite=True)
        os.close(self._pipe[0])

    def _sync(self) -> None:
        """Waits until any process was told to stop; then all settle on the same one of their polls."""
        while not self._ended.wait(0.5):
            try:
                source = dict(get_store().key_value_dir_get(os.path.dirname(_KEY))).get(_KEY)
            except Exception:  # of a store that is gone: the watchdog exits
                continue
            if source is None:
                continue
            with self._lock:
                # No process polls while it gives its count, so none has passed the largest.
                answers = [json.loads(text) for text in allgather_str('stop', json.dumps([self._polls, self.idle]))]
                self.name = self.name or source
                if any(idle for _, idle in answers):
                    time.sleep(jax.process_index() == 0)  # it holds the store, so it goes last
                    self._exit()
                self._stop_at = max(polls for polls, _ in answers) + 1
            return

    def _exit(self) -> NoReturn:
        exit_now(f'interrupted by {self.name}: {NOTHING_NEW}; the same command goes on', INTERRUPTED)

    def requested(self) -> bool:
        """Returns whether to stop here, on all processes the same; all must ask at the same places."""
        with self._lock:
            self._polls += 1
            return bool(self.name) and self._stop_at is not None and self._polls >= self._stop_at
