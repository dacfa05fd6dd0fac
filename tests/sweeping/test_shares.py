"""Who has which cores, threads and GPUs."""

import os
import subprocess
import sys

import pytest

from alexnet_jax import InputError
from alexnet_jax.sweeping.shares import Share, shares


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
def test_cores_are_shared_out(machine, cores, jobs, parts):
    machine(cores)
    assert [share.cores for share in shares(jobs)] == parts


def test_gpus_are_shared_out(machine):
    machine(4, ['3', '5', '6', '7'])
    assert [share.gpus for share in shares(2)] == [('3', '5'), ('6', '7')]
    assert shares(2)[1].environment(1)['CUDA_VISIBLE_DEVICES'] == '6,7'
    with pytest.raises(InputError, match=r'--jobs=5: there are 4 GPUs'):
        shares(5)


def test_gpus_that_are_hidden_count_for_nothing(machine):
    """CUDA_VISIBLE_DEVICES=-1 hides all; CUDA reads the list up to the first that is none."""
    machine(4, ['-1'])
    assert [share.gpus for share in shares(2)] == [(), ()]
    machine(4, ['3', '5', '-1', '7'])
    assert [share.gpus for share in shares(2)] == [('3',), ('5',)]


def test_threads_are_enough_for_the_devices(machine, monkeypatch):
    machine(8)
    assert Share(cores=(0, 1)).environment(2) == {'PJRT_NPROC': '3'}
    assert Share(cores=(0, 1, 2, 3)).environment(2) == {'PJRT_NPROC': '4'}
    assert Share().environment(2) == {}
    monkeypatch.setenv('PJRT_NPROC', '6')
    assert Share(cores=(0, 1)).environment(2) == {}


def test_what_starts_within_has_the_cores_and_this_process_keeps_its_own():
    before = os.sched_getaffinity(0)
    core = max(before)
    with Share(cores=(core,)).confined():
        show = 'import os; print(*os.sched_getaffinity(0))'
        out = subprocess.run([sys.executable, '-S', '-c', show], capture_output=True, text=True).stdout
    assert out.split() == [str(core)]
    assert os.sched_getaffinity(0) == before
