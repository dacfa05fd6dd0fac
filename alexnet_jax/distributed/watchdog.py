"""Watches over the other processes of a run: when one is lost, this one leaves at once and says which.

JAX's own watch would end a process too, but with exit code 134, pages of C++ and no name; and where a device waits for
a word of a process that was stopped, nothing at all happens until then.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from typing import NoReturn

from alexnet_jax.distributed.hosts import ProcessGroup, get_store
from alexnet_jax.errors import FAILED, LOST

_BEAT = 1.0  # seconds between two signs of life
_SILENCE = 3.5  # seconds: how old the last sign must be to suspect a peer when a message to somebody has failed
_GRACE = 3.0  # seconds in which this process may end for the same reason as the one that left


class PeerWatchdog:
    """The signs of life of all processes, in `jax.distributed`'s key-value store."""

    def __init__(self, group: ProcessGroup, *, heartbeat: float) -> None:
        """Begins to give and to look for signs of life; `heartbeat` seconds without one, and a process is lost."""
        self._group, self._heartbeat = group, heartbeat
        self._store = get_store()
        self._heard = {index: time.monotonic() for index in range(group.count) if index != group.index}
        self._hosts: dict[int, str] = {}
        self._gone: dict[int, tuple[float, int, str]] = {}  # when it was noticed, their code, and what they said
        self._answered = time.monotonic()  # when the store last did
        self._ended = threading.Event()
        for watch in (self._exchange_signs, self._look):
            threading.Thread(target=watch, daemon=True, name=f'peers-{watch.__name__}').start()

    def _exchange_signs(self) -> None:
        beat, own = 0, f'{socket.gethostname()}, pid {os.getpid()}'
        beats: dict[int, int] = {}
        while not self._ended.is_set():
            beat += 1
            try:
                self._store.key_value_set(f'beat/{self._group.index}', json.dumps([beat, own]), allow_overwrite=True)
                signs, left = self._store.key_value_dir_get('beat/'), self._store.key_value_dir_get('left/')
            except Exception:  # whatever the store's failure is called: `_look` counts how long it lasts
                time.sleep(_BEAT / 4)
                continue
            now = self._answered = time.monotonic()
            for key, word in signs:
                index, (count, host) = int(key.rpartition('/')[2]), json.loads(word)
                self._hosts[index] = host
                if beats.get(index) != count:
                    beats[index], self._heard[index] = count, now
            for key, word in left:
                index = int(key.rpartition('/')[2])
                if index != self._group.index:
                    code, _, reason = word.partition(' ')
                    self._gone.setdefault(index, (now, int(code), reason))
            self._ended.wait(_BEAT)

    def _look(self) -> None:
        looked = time.monotonic()
        while not self._ended.wait(_BEAT / 4):
            now = time.monotonic()
            if (unseen := now - looked - _BEAT) > 0:  # this process itself was stopped: nobody else was silent for it
                self._answered += unseen
                self._heard = {index: heard + unseen for index, heard in self._heard.items()}
            looked = now
            if now - self._answered > self._heartbeat:
                self._leave(0, f'has not answered for {self._heartbeat:.0f} s')
            for index, (since, code, reason) in list(self._gone.items()):
                if code == FAILED and now - since > _GRACE:
                    self._fail(index, reason)
                if reason and now - since > _GRACE:
                    self._leave(index, f'left: {reason}')
                if now - since > self._heartbeat:
                    self._leave(index, 'has ended, and this one still needs it')
            if now - self._answered < 2 * _BEAT:
                for index, heard in self._heard.items():
                    if now - heard > self._heartbeat and index not in self._gone:
                        self._leave(index, f'gave no sign of life for {self._heartbeat:.0f} s')

    def blame(self) -> None:
        """After a device or the store has failed: names the peer behind it and leaves; returns if there is none."""
        deadline = time.monotonic() + self._heartbeat
        while time.monotonic() < deadline:
            now = time.monotonic()
            silent = [index for index, heard in self._heard.items() if now - heard > _SILENCE]
            if now - self._answered > _SILENCE:
                self._leave(0, 'is gone')
            for index in silent:
                if index not in self._gone:
                    self._leave(index, 'is gone')
            time.sleep(_BEAT / 4)

    def _leave(self, index: int, why: str) -> NoReturn:
        self.leave(f'lost process {index}', LOST)
        exit_now(format_lost(self._name(index), why), LOST)

    def _fail(self, index: int, reason: str) -> NoReturn:
        """With the code of the other's error: a launcher that sees the highest code only must not start all again."""
        self.leave(reason, FAILED)
        exit_now(f'error: process {self._name(index)} has failed: {reason}', FAILED)

    def _name(self, index: int) -> str:
        return f'{index} ({self._hosts[index]})' if index in self._hosts else str(index)

    def leave(self, reason: str, code: int) -> None:
        """Tells the others that this process ends now, with which code and why; '' for a good end."""
        self._ended.set()
        # In a thread of its own: where the store is the one that is gone, the call may not return.
        telling = threading.Thread(target=self._tell, args=(f'{code} {reason[:300]}',), daemon=True)
        telling.start()
        telling.join(timeout=1.0)

    def wait_for_others(self, seconds: float) -> None:
        """Until all others have said that they end too, at most so long: they hear of it by process 0's store."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(Exception):  # the store's failures have no common name
            while len(self._store.key_value_dir_get('left/')) < self._group.count and time.monotonic() < deadline:
                time.sleep(_BEAT / 4)

    def _tell(self, word: str) -> None:
        with contextlib.suppress(Exception):  # there may be nobody left to hear it
            self._store.key_value_set(f'left/{self._group.index}', word, allow_overwrite=True)


def format_lost(name: str, why: str) -> str:
    """What the person reads."""
    return (
        f'error: lost process {name}: it {why}; start all processes again, and the run goes on from its last checkpoint'
    )


def exit_now(line: str, code: int) -> NoReturn:
    """Ends this process with one line, without waiting for threads or peers that may never answer."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty():  # the bar, which is not ended either, has hidden the cursor
            sys.stderr.write('\r\x1b[K\x1b[?25h')
        print(line, file=sys.stderr, flush=True)
        sys.stdout.flush()
    os._exit(code)


class NativeLog:
    """Keeps what C++ writes to standard output and error, and turns JAX's abort over other processes into one line.

    When process 0 dies, another is replaced, or not all have come in time, JAX's client aborts in the same instant,
    from C++, with two pages and before Python hears of it. Here the person sees one line. Any other abort shows those
    pages and ends with the code it would have. Make one object for the life of the process: C calls it.
    """

    def __init__(self, line: str, code: int) -> None:
        """From now on file descriptors 1 and 2 lead to a file without a name; `sys.stdout`, `sys.stderr` as before.

        `line` and `code` are how such an abort ends; they may be changed.
        """
        self.line, self.code = line, code
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (open until the process ends)
        sys.stdout.flush()
        real, self._real = os.dup(1), os.dup(2)
        sys.stdout = os.fdopen(real, 'w', closefd=False)
        sys.stderr = os.fdopen(self._real, 'w', buffering=1, errors='backslashreplace', closefd=False)
        faulthandler.enable(file=sys.stderr)
        for descriptor in (1, 2):
            os.dup2(self._file.fileno(), descriptor)
        self._on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._aborted)
        ctypes.CDLL(None).signal(signal.SIGABRT, self._on_abort)  # Python's own handlers would run too late

    def text(self) -> str:
        """The last of what was written."""
        return os.pread(self._file.fileno(), 2**20, 0).decode(errors='replace')[-20000:]

    def _aborted(self, number: int) -> None:
        text = self.text()
        if 'JAX distributed service detected fatal errors' in text:
            line, code = self.line, self.code
            # A cluster replaced a lost process before anybody missed it.
            if again := re.search(r'(\d+) unexpectedly tried to connect with a different incarnation', text):
                line, code = format_lost(again[1], 'was started again by itself'), LOST
            os.write(self._real, f'{line}\n'.encode())
            os._exit(code)
        os.write(self._real, text.encode())
        os._exit(128 + number)
