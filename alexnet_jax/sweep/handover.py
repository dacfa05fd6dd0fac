"""Hands runs of a sweep, one after another, to a process that has imported, compiled and opened what they need.

Both ends of a socket: the sweep sends each run's arguments together with the log that it holds locked, and the process
prints to that log from then on, so that the lock lasts as long as the run. A process that fails ends with its run.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Hashable, Iterator, Sequence

_DONE = b'done\n'  # what the process sends when its run has ended well
_BYTES = 1 << 16
_PATIENCE = 30.0  # seconds for a process without runs to end


class RunProcess:
    """A process that makes one run, or several in turn: those of the same `kind`.

    Attributes:
      kind: what all of its runs have in common; None: it makes one run, and then ends.
    """

    def __init__(
        self, command: Sequence[str], *, kind: Hashable, log: int, environment: dict[str, str] | None = None
    ) -> None:
        """Starts `command`, which makes the first run, with the descriptor `log` as its output."""
        self.kind, self._idle = kind, False
        self._connection: socket.socket | None = None
        inherited: tuple[int, ...] = ()
        if kind is not None:
            self._connection, other = socket.socketpair()
            inherited = (other.fileno(),)
            command = [*command, f'--more_runs={other.fileno()}']
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=inherited,
            start_new_session=True,  # a terminal's Ctrl-C reaches the run once, through the sweep
        )
        if self._connection:
            other.close()
            self._connection.setblocking(False)

    def poll(self) -> int | None:
        """Returns the exit code of the process; 0 where it waits for another run; None while it makes one."""
        if not self._idle and self._connection:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                self._idle = self._connection.recv(len(_DONE)) == _DONE
        return 0 if self._idle else self._process.poll()

    @property
    def idle(self) -> bool:
        """Whether the process has ended its run well, and waits for another."""
        return self._idle and self._process.poll() is None

    def hand_over(self, arguments: Sequence[str], *, log: int) -> bool:
        """Gives an idle process its next run, which prints to `log`; False where it has ended meanwhile."""
        assert self.idle and self._connection
        try:
            socket.send_fds(self._connection, [json.dumps(list(arguments)).encode() + b'\n'], [log])
        except ConnectionError:
            return False
        self._idle = False
        return True

    def send_signal(self, number: int) -> None:
        """Sends the process a signal; does nothing where it makes no run."""
        if self.poll() is None:
            self._process.send_signal(number)

    def close(self) -> None:
        """Ends an idle process, and waits for its end: what it holds of the devices is free then."""
        if self._connection:
            self._connection.close()
            self._connection = None
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def iter_runs(descriptor: int) -> Iterator[list[str]]:
    """Yields the arguments of each further run of this process; says before each that the one before has ended well.

    `descriptor` is that of --more_runs. Standard output and standard error are the run's log from then on, and nothing
    between runs: another sweep of the folder may wait for a finished run's lock. Ends where the sweep closes its end of
    the socket, or is gone.
    """
    with socket.socket(fileno=descriptor) as connection, open(os.devnull, 'wb') as nothing:
        while True:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            _print_to(nothing.fileno())
            with contextlib.suppress(ConnectionError):  # nobody is to be told: then nothing comes either
                connection.sendall(_DONE)
            arguments = _receive(connection)
            if arguments is None:
                return
            yield arguments


def _receive(connection: socket.socket) -> list[str] | None:
    data, logs = b'', list[int]()
    while not data.endswith(b'\n'):
        try:
            part, files, *_ = socket.recv_fds(connection, _BYTES, 1)
        except ConnectionError:
            return None
        if not part:
            return None
        data, logs = data + part, logs + files
    (log,) = logs
    _print_to(log)
    os.close(log)
    return json.loads(data)


def _print_to(file: int) -> None:
    for shown in (1, 2):
        os.dup2(file, shown)
