"""One point of a sweep in this process: a task of a job array, a pod of an indexed job."""

from __future__ import annotations

import os
import pathlib
import sys

from alexnet_jax import InputError
from alexnet_jax.sweeping.plan import Point
from alexnet_jax.sweeping.progress import result_of
from alexnet_jax.sweeping.record import lock


def become(point: Point, root: pathlib.Path, *, command: list[str]) -> None:
    """This process goes on as `command`, so that signals and exit codes are the run's own; returns if it is finished.

    Raises:
      InputError: another process runs the point.
    """
    if result_of(root / point.name):
        print(f'{point.name}: finished before', file=sys.stderr)
        return
    log = lock(root, point.name)
    if log is None:
        raise InputError(f'{point.name} is being run by another process: wait for it, or stop it')
    os.set_inheritable(log.fileno(), True)  # held for as long as the run lives
    print(f'{point.name}: running', file=sys.stderr, flush=True)
    os.execv(command[0], command)
