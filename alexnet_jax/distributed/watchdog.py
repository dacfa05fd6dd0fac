"""Watches over the processes of a run: when one is lost, or alive and stuck, all exit at once and say which.

JAX's own watch would end a process too, but late, with exit code 134, pages of C++ and no name.
"""

import contextlib
import ctypes
import faulthandler
import json
import math
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from typing import Any, NoReturn

from alexnet_jax.distributed.hosts import ProcessGroup, get_store, sync_hosts
from alexnet_jax.distributed.phases import PROGRESS
from alexnet_jax.errors import FAILED, INTERRUPTED, LOST

_BEAT = 1.0  # seconds between two heartbeats
_SILENCE = 3.5  # seconds: how old the last heartbeat must be to suspect a peer when a message to somebody has failed
_GRACE = 3.0  # seconds in which this process may end for the same reason as the one that left


class PeerWatchdog:
    """Watches over the other processes by their heartbeats in `jax.distributed`'s key-value store."""

    def __init__(self, group: ProcessGroup, *, heartbeat: float, stuck_after: float) -> None:
        """Starts to give heartbeats and to look for them.

        After `heartbeat` seconds without one a process is lost, and after `stuck_after` seconds in a step that others
        wait for, or `phases.SLOW` times that elsewhere; this process too.
        """
        self._group, self._heartbeat, self._stuck_after = group, heartbeat, stuck_after
        self._store = get_store()
        self._heard = {index: time.monotonic() for index in range(group.count) if index != group.index}
        self._hosts: dict[int, str] = {}
        self._places: dict[int, list[Any]] = {}  # `Progress.report` of each process, this one among them
        self._behind: dict[int, tuple[int, float]] = {}  # their marks, and since when others have passed more
        self._gone: dict[int, tuple[float, int, str]] = {}  # when it was noticed, their exit code and reason
        self._answered = time.monotonic()  # when the store last did
        self._ended = threading.Event()
        for target in (self._exchange_heartbeats, self._check_peers):
            threading.Thread(target=target, daemon=True, name=f'peers-{target.__name__}').start()

    def _exchange_heartbeats(self) -> None:
        beat, own = 0, f'{socket.gethostname()}, pid {os.getpid()}'
        beats: dict[int, int] = {}
        while not self._ended.is_set():
            beat += 1
            sign = json.dumps([beat, own, *PROGRESS.report(self._stuck_after)])
            try:
                self._store.key_value_set(f'beat/{self._group.index}', sign, allow_overwrite=True)
                signs, exits = self._store.key_value_dir_get('beat/'), self._store.key_value_dir_get('left/')
            except Exception:  # whatever the store's failure is called: `_check_peers` counts how long it lasts
                time.sleep(_BEAT / 4)
                continue
            now = self._answered = time.monotonic()
            for key, text in signs:
                index = int(key.rpartition('/')[2])
                count, self._hosts[index], *self._places[index] = json.loads(text)
                if beats.get(index) != count:
                    beats[index], self._heard[index] = count, now
            for key, text in exits:
                index = int(key.rpartition('/')[2])
                if index != self._group.index:
                    code, _, reason = text.partition(' ')
                    self._gone.setdefault(index, (now, int(code), reason))
            self._ended.wait(_BEAT)

    def _check_peers(self) -> None:
        checked = time.monotonic()
        while not self._ended.wait(_BEAT / 4):
            now = time.monotonic()
            if (unseen := now - checked - _BEAT) > 0:  # this process itself was stopped: nobody was silent for it
                self._answered += unseen
                self._heard = {index: heard + unseen for index, heard in self._heard.items()}
                self._behind = {index: (count, since + unseen) for index, (count, since) in self._behind.items()}
            checked = now
            if now - self._answered > self._heartbeat:
                self._exit_as_lost(0, f'has not answered for {self._heartbeat:.0f} s')
            for index, (since, code, reason) in list(self._gone.items()):
                if code == FAILED and now - since > _GRACE:
                    # With that code: a launcher that sees the highest only must not start all again.
                    self.announce_exit(reason, FAILED)
                    exit_now(f'error: process {self._name(index)} has failed: {reason}', FAILED)
                if code == LOST:  # it has found before this one who is lost
                    self._exit_when_heard(f'error: {reason}')
                if reason and now - since > _GRACE:
                    self._exit_as_lost(index, f'left: {reason}')
                if now - since > self._heartbeat:
                    self._exit_as_lost(index, 'has ended, and this one still needs it')
            if now - self._answered < 2 * _BEAT:
                for index, heard in self._heard.items():
                    if now - heard > self._heartbeat and index not in self._gone:
                        self._exit_as_lost(index, f'gave no sign of life for {self._heartbeat:.0f} s')
                self._exit_if_stuck(now)

    def _exit_if_stuck(self, now: float) -> None:
        """Exits, naming the process that has come least far, where others have waited too long for it."""
        places = dict(self._places)
        if not all(map(places.get, range(self._group.count))):  # not here yet, or of another version
            return
        furthest = max(count for count, _, _ in places.values())
        for index, (count, _, _) in places.items():
            if count == furthest or count != self._behind.get(index, (None,))[0]:
                self._behind[index] = (count, now)
        index, (_, phase, seconds) = min(places.items(), key=lambda item: item[1][0])
        if index not in self._gone and now - self._behind[index][1] > seconds:
            self._exit_as_lost(index, f'is alive, and the others have waited {seconds:.0f} s for its {phase}')

    def exit_if_peer_lost(self) -> None:
        """Exits, naming the peer, where one is gone after a device or the store has failed; returns if none is."""
        deadline = time.monotonic() + self._heartbeat
        while time.monotonic() < deadline:
            latest = time.monotonic() - _SILENCE
            if self._ended.is_set():  # another thread has found out, and exits
                latest = -math.inf
            if self._answered < latest:
                self._exit_as_lost(0, 'is gone')
            for index, heard in self._heard.items():
                if heard < latest and index not in self._gone:
                    self._exit_as_lost(index, 'is gone')
            time.sleep(_BEAT / 4)

    def _exit_as_lost(self, index: int, why: str) -> NoReturn:
        self._exit_when_heard(format_lost(self._name(index), why))

    def _exit_when_heard(self, line: str) -> NoReturn:
        self.announce_exit(line.removeprefix('error: '), LOST)
        own, latest = self._group.index, time.monotonic() - _SILENCE
        self._wait_for_exits(1 + sum(heard > latest for index, heard in self._heard.items() if index != own))
        exit_now(line, LOST)

    def _name(self, index: int) -> str:
        return f'{index} ({self._hosts[index]})' if index in self._hosts else str(index)

    def announce_exit(self, reason: str, code: int) -> None:
        """Tells the others that this process ends now, with which exit code and why; '' for a good end."""
        self._ended.set()

        def announce() -> None:
            with contextlib.suppress(Exception):  # there may be nobody left
                self._store.key_value_set(f'left/{self._group.index}', f'{code} {reason[:300]}', allow_overwrite=True)

        # In a thread of its own: where the store is the one that is gone, the call may not return.
        thread = threading.Thread(target=announce, daemon=True)
        thread.start()
        thread.join(timeout=1.0)

    def exit(self, line: str, code: int, *, reason: str) -> NoReturn:
        """Exits with `line` and `code` when the others know the reason; '' for a good end."""
        if code == INTERRUPTED:  # as all are
            sync_hosts('stopped')
            time.sleep(self._group.index == 0)  # it holds the store, so it goes last
        self.announce_exit(reason, code)
        if code == FAILED:  # else a launcher would start all again for nothing
            self._wait_for_exits(self._group.count)
        exit_now(line, code)

    def _wait_for_exits(self, count: int) -> None:
        """Waits until `count` processes, this among them, have said that they end, in the process with the store.

        Else they would lose the store before they hear why.
        """
        if self._group.index:
            return
        deadline = time.monotonic() + 2 * _GRACE
        with contextlib.suppress(Exception):  # the store's failures have no common name
            while len(self._store.key_value_dir_get('left/')) < count and time.monotonic() < deadline:
                time.sleep(_BEAT / 4)


def format_lost(name: str, why: str) -> str:
    """Formats what the person reads when a process is lost."""
    return (
        f'error: lost process {name}: it {why}; start all processes again, and the run goes on from its last checkpoint'
    )


def exit_now(line: str, code: int) -> NoReturn:
    """Exits with one line, without waiting for threads or peers that may never answer."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty():  # the bar, which is not ended either, has hidden the cursor
            sys.stderr.write('\r\x1b[K\x1b[?25h')
        print(line, file=sys.stderr, flush=True)
        sys.stdout.flush()
    os._exit(code)


class NativeLog:
    """Keeps what C++ writes to standard output and error, and turns JAX's abort over other processes into one line.

    When process 0 dies, another is replaced, or not all have come in time, JAX's client aborts in the same instant,
    from C++, with two pages and before Python hears of it. Any other abort shows those pages and ends with its own
    code. Make one object for the life of the process: C calls it.
    """

    def __init__(self, line: str, code: int) -> None:
        """Leads file descriptors 1 and 2 to a file without a name; `sys.stdout` and `sys.stderr` stay as they were.

        Such an abort ends with `line` and `code`, which may be changed.
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
        """Returns the end of what was written, 20,000 characters at most."""
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
