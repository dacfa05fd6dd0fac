"""Ctrl-C: a command ends with one line and exit code 130 wherever it strikes, also while it imports or compiles.

Imports nothing heavy: it has to be there before what is.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import NoReturn

EXIT_CODE = 128 + signal.SIGINT
_PATIENCE = 1.0  # seconds in which half-written files are deleted and workers end


class Interrupts:
    """Ends the process at SIGINT; a context manager around all that a command does.

    Python raises KeyboardInterrupt between two of its own instructions: not while XLA compiles, and imports may make
    another error of it, print it and go on, or abort. Here it only starts the cleaning up, after imports. A thread
    reads the signal from a pipe that C writes to, prints the line, mutes what this process prints after it, and leaves
    after one second.

    An interactive interpreter, such as a notebook's, lives on: there only the line is printed and SystemExit raised.
    Nothing is done in a thread, or where SIGINT is ignored or is another's.
    """

    def __init__(self) -> None:
        self.describe: Callable[[], str] = lambda: 'the same command starts it again'  # the end of the line
        self._lock = threading.RLock()
        self._struck = self._raised = False

    def __enter__(self) -> Interrupts:
        in_main = threading.current_thread() is threading.main_thread()
        own = in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler and not hasattr(sys, 'ps1')
        self._pipe = os.pipe() if own else None
        if self._pipe:
            os.set_blocking(self._pipe[1], False)
            threading.Thread(target=self._listen, args=[self._pipe[0]], daemon=True, name='interrupts').start()
            self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            signal.signal(signal.SIGINT, self._raise)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._struck:  # `error` is KeyboardInterrupt, or what was made of it
            traceback.clear_frames(tb)  # closes generators, and with them pools of processes
            os._exit(EXIT_CODE)
        if self._pipe:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._pipe[1])
            # What JAX does at the interpreter's end takes time too. Registered last, this comes first.
            atexit.register(signal.signal, signal.SIGINT, self._leave)
        elif isinstance(error, KeyboardInterrupt):
            print(self._format_line(), file=sys.stderr)
            raise SystemExit(EXIT_CODE) from None

    def _format_line(self) -> str:
        return f'interrupted: {self.describe()}'

    def _raise(self, _: int, frame: FrameType | None) -> None:
        self._announce()
        # What C++ imports may abort where that fails. A second one does not disturb the cleaning up.
        if not self._raised and not _is_importing(frame):
            self._raised = True
            raise KeyboardInterrupt

    def _leave(self, *_: object) -> NoReturn:
        self._announce()
        os._exit(EXIT_CODE)

    def _listen(self, pipe: int) -> None:
        while data := os.read(pipe, 1):
            # The handler is another's where a command hands signals on to its processes.
            if data[0] == signal.SIGINT and signal.getsignal(signal.SIGINT) == self._raise:
                self._announce()
                until = time.monotonic() + _PATIENCE
                # Training, which takes the signal from here, is not begun any more.
                while time.monotonic() < until and signal.getsignal(signal.SIGINT) == self._raise:
                    if not self._raised:
                        signal.raise_signal(signal.SIGINT)
                    time.sleep(_PATIENCE / 20)
                os._exit(EXIT_CODE)
        os.close(pipe)

    def _announce(self) -> None:
        """Prints the line and mutes standard error, once."""
        with self._lock:
            if self._struck:
                return
            self._struck = True
            with contextlib.suppress(OSError, ValueError, AttributeError):  # it is closed: nobody is to be told
                shown = sys.stderr.fileno()
                real, null = os.dup(shown), os.open(os.devnull, os.O_WRONLY)
                for descriptor in {shown, 2}:
                    os.dup2(null, descriptor)
                start = '\r\x1b[K\x1b[?25h' if os.isatty(real) else ''  # a bar that is not ended has hidden the cursor
                os.write(real, f'{start}{self._format_line()}\n'.encode())


def _is_importing(frame: FrameType | None) -> bool:
    """Returns whether the code in `frame` was called by an import."""
    while frame and not frame.f_code.co_filename.startswith('<frozen importlib'):
        frame = frame.f_back
    return frame is not None
