"""Parts of the machine for runs at the same time: CPU cores, threads, GPUs."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from alexnet_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Resources:
    """The part of the machine that one job has."""

    cores: tuple[int, ...] = ()  # empty: all, as the system schedules them
    gpus: tuple[str, ...] = ()  # names for CUDA_VISIBLE_DEVICES; empty: the variable stays as it is

    def make_environment(self, devices: int) -> dict[str, str]:
        """Makes the variables for a run of `devices` devices; a variable that the user has set stays."""
        variables = {}
        if self.cores and 'PJRT_NPROC' not in os.environ:
            # Threads of XLA:CPU; one more than there are virtual devices, see sharding/backend.py. One device waits for
            # no other, and a second thread on its core only takes from the first: a tenth of a small network's step.
            variables['PJRT_NPROC'] = str(max(len(self.cores), devices + (devices > 1)))
        if self.gpus:
            variables['CUDA_VISIBLE_DEVICES'] = ','.join(self.gpus)
        return variables

    @contextlib.contextmanager
    def pin(self) -> Iterator[None]:
        """Pins the processes that are started within to the cores."""
        if not self.cores:
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def split_machine(jobs: int) -> list[Resources]:
    """Splits the machine evenly between `jobs` jobs; where there are more jobs than cores, jobs share cores.

    Raises:
      InputError: there are GPUs, but fewer than jobs.
    """
    if jobs == 1:
        return [Resources()]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
    gpus = _list_gpus()
    if 0 < len(gpus) < jobs:
        raise InputError(
            f'--jobs={jobs}: there are {len(gpus)} GPUs, and a run takes the memory of those it has; use fewer jobs, '
            f'or JAX_PLATFORMS=cpu where the runs shall not use them'
        )
    return [Resources(tuple(_get_part(cores, i, jobs)), tuple(_get_part(gpus, i, jobs))) for i in range(jobs)]


def _get_part(items: Sequence[Any], index: int, count: int) -> Sequence[Any]:
    if 0 < len(items) < count:
        return [items[index % len(items)]]
    return items[index * len(items) // count : (index + 1) * len(items) // count]


def _list_gpus() -> list[str]:
    """Lists NVIDIA's GPUs that a process started here would see."""
    if os.environ.get('JAX_PLATFORMS', '').startswith('cpu'):
        return []
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible is not None:  # CUDA ignores what follows the first invalid name
        return list(itertools.takewhile(lambda name: name not in ('', '-1'), visible.split(',')))
    return [str(i) for i, _ in enumerate(pathlib.Path('/proc/driver/nvidia/gpus').glob('*'))]
