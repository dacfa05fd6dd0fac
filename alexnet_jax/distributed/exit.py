"""How a command ends: one line and an exit code that a launcher can act on.

0    done
1    an error that a person has to look at; starting again would end the same way
75   a process of the run was lost, or is stuck: start all of them again, the run goes on from its last checkpoint
76   told to stop by SIGTERM or SIGINT: everything is saved, the same command goes on
143  SIGTERM a second time, or 130 SIGINT: left at once; 130 too where nothing is trained
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from alexnet_jax.errors import FAILED, INTERRUPTED, LOST, InputError, Interrupted

if TYPE_CHECKING:
    from alexnet_jax.distributed.hosts import ProcessGroup
    from alexnet_jax.distributed.watchdog import PeerWatchdog


class ExitHandler:
    """Ends the process where a run raises, alone or among several; made before anything imports JAX."""

    def __init__(self) -> None:
        self._peers: PeerWatchdog | None = None

    def connect(self, group: ProcessGroup, *, heartbeat: int, timeout: float, stuck_after: float) -> ProcessGroup:
        """Connects to the other processes as `hosts.initialize` does, and exits with one line where one is lost."""
        from alexnet_jax.distributed.hosts import initialize
        from alexnet_jax.distributed.watchdog import NativeLog, PeerWatchdog, format_lost

        if group.count > 1:
            met = f'met at {group.coordinator} in {timeout:.0f} s'
            self._native = NativeLog(f'error: not all {group.count} processes {met}: are all of them started?', FAILED)
            group = initialize(group, heartbeat=heartbeat, timeout=timeout)
            self._native.line, self._native.code = format_lost('0', 'is gone'), LOST
            self._peers = PeerWatchdog(group, heartbeat=heartbeat, stuck_after=stuck_after)
        return group

    def exit_on_error(self, run: Callable[[], Any]) -> Any:
        """Returns what `run` returns; exits the process where it raises."""
        try:
            result = run()
        except InputError as error:
            if self._peers and getattr(error, 'may_be_lost_peer', False):
                self._peers.exit_if_peer_lost()
            self._exit(f'error: {error}', FAILED)
        except KeyboardInterrupt:
            if self._peers is None:
                raise  # the command line tells
            self._exit('interrupted by SIGINT', 128 + signal.SIGINT)
        except Interrupted as stop:
            self._exit(f'interrupted: {stop}; the same command goes on', INTERRUPTED)
        except Exception:
            if self._peers is None:
                raise
            self._peers.exit_if_peer_lost()
            sys.stderr.write(self._native.text())
            self._exit(traceback.format_exc(), FAILED)
        if self._peers:
            self._peers.announce_exit('', 0)
        return result

    def _exit(self, line: str, code: int) -> NoReturn:
        if self._peers is None:
            print(line, file=sys.stderr)
            sys.exit(code)
        reason = '' if code == INTERRUPTED else line.splitlines()[-1].removeprefix('error: ')
        self._peers.exit(line, code, reason=reason)
