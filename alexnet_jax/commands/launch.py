"""Runs several processes of one training run on this machine, over loopback, as hosts of a cluster would.

    alexnet launch --processes=2 -- --config=configs/two_device.py
    alexnet launch --processes=2,1 --restarts=3 -- --config=configs/two_device.py --workdir=runs/x

Everything after -- is for alexnet_jax.main. When a process is lost, those that are left leave with code 75, and with
--restarts all are started again from the last whole checkpoint: the first time as many as the first number of
--processes says, then as the second, and so on; the last number stays. SIGTERM and SIGINT (Ctrl-C) are handed on once,
as is the loss of the terminal (unless nohup hides it): the run saves and leaves with code 76, and is not started again.
Exit code: that of the run. It needs nothing but this checkout and its environment, and costs this machine's cores,
which the processes share.
"""

import os
import signal
import socket
import subprocess
import sys
import time

from absl import flags

from alexnet_jax.commands.command_line import parse_arguments
from alexnet_jax.errors import INTERRUPTED, LOST, InputError

_PROCESSES = flags.DEFINE_list('processes', ['2'], 'How many; after a restart the next number of the list.')
_RESTARTS = flags.DEFINE_integer('restarts', 0, 'How often to start again after a loss.', lower_bound=0)
_PAUSE = flags.DEFINE_float('pause', 1.0, 'Seconds before starting again.', lower_bound=0.0)
_VERB = flags.DEFINE_enum('verb', 'train', ['train', 'evaluate'], 'What the processes do together.')
_MODULE = flags.DEFINE_string('module', None, 'A module to run, in place of a verb.')
parse = parse_arguments

_PATIENCE = 60  # seconds that processes have to leave once one has: a heartbeat, and time to say so


class Run:
    """All processes of one start."""

    def __init__(self, count: int, arguments: list[str]) -> None:
        with socket.create_server(('127.0.0.1', 0)) as probe:
            port = probe.getsockname()[1]
        self.signalled = False
        what = [_MODULE.value] if _MODULE.value else ['alexnet_jax', _VERB.value]
        command = [sys.executable, '-m', *what, *arguments, f'--coordinator=127.0.0.1:{port}']
        self.processes = [
            # In sessions of their own, so that a terminal's Ctrl-C reaches them once, through this process.
            subprocess.Popen([*command, f'--processes={count}', f'--process_id={index}'], start_new_session=True)
            for index in range(count)
        ]

    def send_signal(self, number: int) -> None:
        """Sends a signal to the processes that have not ended."""
        self.signalled = True
        for process in self.processes:
            process.send_signal(number)

    def wait(self) -> int:
        """Waits for all; returns 0 if all are well, else the exit code of the process that failed by itself."""
        first: float | None = None
        while any(process.poll() is None for process in self.processes):
            time.sleep(0.05)
            if first is None and any(process.poll() for process in self.processes):
                first = time.monotonic()
            if first is not None and time.monotonic() - first > _PATIENCE:
                print(f'alexnet launch: {_PATIENCE} s after the first had left, the others are killed', file=sys.stderr)
                for process in self.processes:
                    process.kill()
                    process.wait()
        codes = [process.returncode for process in self.processes]
        if INTERRUPTED in codes:
            return INTERRUPTED
        own = [code for code in codes if code not in (0, LOST)]
        if not own:
            return LOST if LOST in codes else 0
        # A signal (-9: killed, by a person or for want of memory) is a loss; an error of its own is for a person.
        return next((code for code in own if 0 < code < 128), LOST)


def main(argv: list[str]) -> None:
    """Starts, waits, and starts again as often as it may."""
    os.environ.setdefault('PYTHONUNBUFFERED', '1')
    if not _PROCESSES.value or not all(count.isdecimal() and int(count) for count in _PROCESSES.value):
        raise InputError(f'--processes={",".join(_PROCESSES.value)}: it must be a number, or several with commas')
    if not argv[1:]:
        raise InputError('nothing to run: put the options of alexnet_jax.main after --')
    counts = list(map(int, _PROCESSES.value))
    run: Run | None = None
    received: list[int] = []  # signals

    def forward(number: int, _: object) -> None:
        received.append(signal.SIGTERM if number == signal.SIGHUP else number)
        if run:
            run.send_signal(received[-1])

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, forward)
    for start in range(_RESTARTS.value + 1):
        count = counts[min(start, len(counts) - 1)]
        run = Run(count, argv[1:])
        if received and not run.signalled:  # it came while the processes were being started
            run.send_signal(received[-1])
        code = run.wait()
        if code == LOST and received:  # in the first seconds a signal ends a process before it can answer with a code
            code = INTERRUPTED
        if code != LOST or received or start == _RESTARTS.value:
            sys.exit(code)
        left = _RESTARTS.value - start - 1
        again = counts[min(start + 1, len(counts) - 1)]
        print(f'alexnet launch: a process was lost; starting {again} again ({left} restarts left)', file=sys.stderr)
        until = time.monotonic() + _PAUSE.value
        while time.monotonic() < until and not received:
            time.sleep(0.05)
        if received:  # nothing runs, and the last checkpoint is whole
            sys.exit(INTERRUPTED)
