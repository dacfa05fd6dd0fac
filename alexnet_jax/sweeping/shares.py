"""The machine shared out between runs that go at the same time: CPU cores, threads, GPUs."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from alexnet_jax import InputError


@dataclasses.dataclass(frozen=True)
class Share:
    """What one job has of the machine.

    Attributes:
      cores: CPU cores; empty: all, as the system sees fit.
      gpus: names for CUDA_VISIBLE_DEVICES; empty: nothing to share out.
    """

    cores: tuple[int, ...] = ()
    gpus: tuple[str, ...] = ()

    def environment(self, devices: int) -> dict[str, str]:
        """Variables for a run of `devices` devices; what the user has set stays."""
        found = {}
        if self.cores and 'PJRT_NPROC' not in os.environ:
            # Threads of XLA:CPU; one more than there are virtual devices, see parallel/devices.py.
            found['PJRT_NPROC'] = str(max(len(self.cores), devices + 1))
        if self.gpus:
            found['CUDA_VISIBLE_DEVICES'] = ','.join(self.gpus)
        return found

    @contextlib.contextmanager
    def confined(self) -> Iterator[None]:
        """Processes that are started within have this share's cores."""
        if not self.cores:
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def shares(jobs: int) -> list[Share]:
    """The shares of `jobs` jobs, as even as can be; more jobs than cores take turns on them.

    Raises:
      InputError: there are GPUs, and fewer than jobs.
    """
    if jobs == 1:
        return [Share()]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
    gpus = _gpus()
    if 0 < len(gpus) < jobs:
        raise InputError(
            f'--jobs={jobs}: there are {len(gpus)} GPUs, and a run takes the memory of those it has; use fewer jobs, '
            f'or JAX_PLATFORMS=cpu where the runs shall not use them'
        )
    return [Share(tuple(_part(cores, job, jobs)), tuple(_part(gpus, job, jobs))) for job in range(jobs)]


def _part(items: Sequence[Any], index: int, count: int) -> Sequence[Any]:
    if 0 < len(items) < count:
        return [items[index % len(items)]]
    return items[index * len(items) // count : (index + 1) * len(items) // count]


def _gpus() -> list[str]:
    """NVIDIA's GPUs that a process started here would see."""
    if os.environ.get('JAX_PLATFORMS', '').startswith('cpu'):
        return []
    listed = os.environ.get('CUDA_VISIBLE_DEVICES')
    if listed is not None:
        names = listed.split(',')  # as CUDA reads it: those before the first that is none
        return list(itertools.takewhile(lambda name: name not in ('', '-1'), names))
    return [str(i) for i, _ in enumerate(pathlib.Path('/proc/driver/nvidia/gpus').glob('*'))]
