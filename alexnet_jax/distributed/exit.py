"""How a command ends: one line and an exit code that a launcher can act on.

0    done
1    an error that a person has to look at; starting again would end the same way
75   another process of the run was lost: start all of them again, the run goes on from its last checkpoint
76   told to stop by SIGTERM or SIGINT: everything is saved, the same command goes on
143  SIGTERM a second time, or 130 SIGINT: left at once
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from alexnet_jax.errors import FAILED, INTERRUPTED, LOST, InputError, Interrupted


class ExitHandler:
    """Turns whatever a run raises into its end, alone or among several processes."""

    def __init__(self) -> None:
        self._peers: Any = None
        self._native: Any = None
        self._index = 0

    def prepare(self, group: Any, *, timeout: float) -> None:
        """From now on it is one line when the processes of `group` do not meet in `timeout` seconds."""
        from alexnet_jax.distributed.watchdog import NativeLog

        if group.count > 1:
            met = f'met at {group.coordinator} in {timeout:.0f} s'
            self._native = NativeLog(f'error: not all {group.count} processes {met}: are all of them started?', FAILED)

    def watch(self, group: Any, *, heartbeat: float) -> None:
        """From now on the loss of another process of `group` ends this one; see distributed.watchdog."""
        from alexnet_jax.distributed.watchdog import PeerWatchdog, format_lost

        if group.count > 1:
            self._native.line, self._native.code = format_lost('0', 'is gone'), LOST
            self._peers = PeerWatchdog(group, heartbeat=heartbeat)
            self._index = group.index

    def exit_on_error(self, run: Callable[[], Any]) -> Any:
        """Returns what `run` returns; exits the process where it raises."""
        try:
            result = run()
        except InputError as error:
            if self._peers and getattr(error, 'perhaps_by_a_peer', False):
                self._peers.blame()
            self._leave(f'error: {error}', FAILED)
        except KeyboardInterrupt:
            self._leave('interrupted: training goes on from its last checkpoint with the same command', 130)
        except Interrupted as stop:
            self._leave_together()
            self._leave(f'interrupted: {stop}; the same command goes on', INTERRUPTED)
        except Exception:
            if self._peers is None:
                raise
            self._peers.blame()
            if self._native:
                sys.stderr.write(self._native.text())
            self._leave(traceback.format_exc(), FAILED)
        if self._peers is not None:
            self._peers.leave('', 0)
        return result

    def _leave_together(self) -> None:
        """Process 0 holds what the others hear each other by: it goes last."""
        if self._peers is not None:
            from alexnet_jax.distributed.hosts import allgather_str

            if allgather_str('stopped', str(self._index)) and self._index == 0:
                time.sleep(1.0)

    def _leave(self, line: str, code: int) -> None:
        if self._peers is None:
            print(line, file=sys.stderr)
            sys.exit(code)
        from alexnet_jax.distributed.watchdog import exit_now

        self._peers.leave('' if code == INTERRUPTED else line.splitlines()[-1].removeprefix('error: '), code)
        if code == FAILED and self._index == 0:
            # Else they would lose the store before they hear why, and a launcher would start all again for nothing.
            self._peers.wait_for_others(6.0)
        exit_now(line, code)
