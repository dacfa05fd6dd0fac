"""How cores, threads and GPUs are split between jobs."""

import os
import subprocess
import sys

import pytest

from alexnet_jax.errors import InputError
from alexnet_jax.sweep.resources import Resources, split_machine


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many cores and GPUs, of which this process sees all."""

    def make(cores, gpus=None):
        monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(cores)))
        monkeypatch.delenv('JAX_PLATFORMS', raising=False)
        monkeypatch.delenv('PJRT_NPROC', raising=False)
        if gpus is None:
            monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
        else:
            monkeypatch.setenv('CUDA_VISIBLE_DEVICES', ','.join(gpus))

    return make


@pytest.mark.parametrize(
    ('cores', 'jobs', 'parts'),
    [
        (2, 1, [()]),  # alone: the system sees to it
        (2, 2, [(0,), (1,)]),
        (8, 3, [(0, 1), (2, 3, 4), (5, 6, 7)]),
        (2, 3, [(0,), (1,), (0,)]),
    ],
)
def test_split_machine_splits_cores(machine, cores, jobs, parts):
    machine(cores)
    assert [part.cores for part in split_machine(jobs)] == parts


def test_split_machine_splits_gpus(machine):
    machine(4, ['3', '5', '6', '7'])
    assert [part.gpus for part in split_machine(2)] == [('3', '5'), ('6', '7')]
    assert split_machine(2)[1].make_environment(1)['CUDA_VISIBLE_DEVICES'] == '6,7'
    with pytest.raises(InputError, match=r'--jobs=5: there are 4 GPUs'):
        split_machine(5)


def test_split_machine_ignores_hidden_gpus(machine):
    """CUDA_VISIBLE_DEVICES=-1 hides all; CUDA reads the list up to the first that is none."""
    machine(4, ['-1'])
    assert [part.gpus for part in split_machine(2)] == [(), ()]
    machine(4, ['3', '5', '-1', '7'])
    assert [part.gpus for part in split_machine(2)] == [('3',), ('5',)]


def test_make_environment_gives_a_thread_more_than_devices(machine, monkeypatch):
    machine(8)
    assert Resources(cores=(0, 1)).make_environment(2) == {'PJRT_NPROC': '3'}
    assert Resources(cores=(0, 1, 2, 3)).make_environment(2) == {'PJRT_NPROC': '4'}
    assert Resources().make_environment(2) == {}
    monkeypatch.setenv('PJRT_NPROC', '6')
    assert Resources(cores=(0, 1)).make_environment(2) == {}


def test_pin_restores_the_cores_of_this_process():
    before = os.sched_getaffinity(0)
    core = max(before)
    with Resources(cores=(core,)).pin():
        show = 'import os; print(*os.sched_getaffinity(0))'
        out = subprocess.run([sys.executable, '-S', '-c', show], capture_output=True, text=True).stdout
    assert out.split() == [str(core)]
    assert os.sched_getaffinity(0) == before
