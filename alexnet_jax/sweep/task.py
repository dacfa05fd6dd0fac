"""One point of a sweep in this process: a task of a job array, a pod of an indexed job."""

from __future__ import annotations

import os
import pathlib
import sys

from alexnet_jax.errors import InputError
from alexnet_jax.sweep.plan import Point
from alexnet_jax.sweep.record import lock_point
from alexnet_jax.sweep.run_progress import read_result


def become_run(point: Point, root: pathlib.Path, *, command: list[str]) -> None:
    """This process goes on as `command`, so that signals and exit codes are the run's own; returns if it is finished.

    Raises:
      InputError: another process runs the point.
    """
    if read_result(root / point.name):
        print(f'{point.name}: finished before', file=sys.stderr)
        return
    log = lock_point(root, point.name)
    if log is None:
        raise InputError(f'{point.name} is being run by another process: wait for it, or stop it')
    os.set_inheritable(log.fileno(), True)  # held for as long as the run lives
    print(f'{point.name}: running', file=sys.stderr, flush=True)
    os.execv(command[0], command)
