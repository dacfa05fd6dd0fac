"""launch/slurm.sbatch in a SLURM cluster of one machine, which is started here.

It needs Debian's slurm-wlm and munge, which .ci/run installs; SLURM=required makes their absence a failure.
"""

import json
import os
import re
import sys

import checkout
import cli
import pytest
from slurm_cluster import Cluster, find_missing_programs, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

RUN = (
    *('launch/slurm.sbatch', '--config=configs/two_device.py:tiny', '--config.deterministic=True', '--config.seed=3'),
    *('--config.variant=released', '--config.width=0.05', '--config.batch_size=8', '--config.steps=60'),
    *('--config.checkpoint_every=20', '--config.evaluate_every=40', '--config.log_every=10'),
)
TWO_TASKS = ('--nodes=1', '--ntasks-per-node=2')  # of the one machine there is; on a cluster --nodes=2


@pytest.fixture(scope='module')
def cluster(tmp_path_factory, program_cache):
    if missing := find_missing_programs():
        reason = f'not installed: {", ".join(missing)}'
        pytest.fail(reason) if os.environ.get('SLURM') == 'required' else pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp('slurm'), environment=cli.environment(program_cache))
    yield cluster
    cluster.stop()


@pytest.fixture(scope='module')
def top(tmp_path_factory):
    return checkout.copy(tmp_path_factory.mktemp('checkout'))


@pytest.fixture(scope='module')
def submit(cluster, top, tiny_dir):
    """Submits a run by its folder; returns the number of the job."""

    def command(workdir, *options, sbatch=TWO_TASKS):
        run = (*RUN, f'--config.data_dir={tiny_dir}', f'--workdir={workdir}', *options)
        return cluster.run('sbatch', '--parsable', *sbatch, *run, cwd=top)

    return command


def wait_for_end(cluster, job, *, seconds=90):
    """Waits for the job; returns the states in which it ended."""
    wait_until(
        lambda: not cluster.get_states(job) & {'PENDING', 'RUNNING', 'COMPLETING'}, seconds=seconds, what='the end'
    )
    return cluster.get_states(job)


def read_log(top, job):
    return (top / f'alexnet-{job}.log').read_text()


def read_result(top, workdir):
    return json.loads((top / workdir / 'result.json').read_text())


@pytest.fixture(scope='module')
def undisturbed(cluster, top, submit):
    """(job, state) of two tasks that are left alone, in runs/undisturbed."""
    job = submit('runs/undisturbed')
    return job, wait_for_end(cluster, job)


def test_slurm_job_trains_a_tower_in_each_task(undisturbed, top):
    job, state = undisturbed
    log = read_log(top, job)
    assert state == {'COMPLETED'}, log
    assert read_result(top, 'runs/undisturbed')['steps'] == 60
    rows = re.findall(r'^ +([01]) +\S+ +\d+ +1 x cpu +\((\d),(\d)\)$', log, re.MULTILINE)
    assert rows == [('0', '0', '0'), ('1', '0', '1')], log  # a process for each tower
    assert '2 processes (SLURM), mesh 1x2' in log


def test_slurm_requeue_resumes_to_the_same_numbers(cluster, top, submit, undisturbed):
    assert undisturbed[1] == {'COMPLETED'}
    job = submit('runs/requeued')
    metrics = top / 'runs/requeued/metrics.jsonl'
    wait_until(lambda: metrics.exists() and '"step": 10' in metrics.read_text(), seconds=60, what='step 10')
    cluster.run('scontrol', 'requeue', job)
    assert wait_for_end(cluster, job) == {'COMPLETED'}, read_log(top, job)
    saved = re.findall(r'interrupted: saved step (\d+)', read_log(top, job))
    assert saved and 10 <= int(saved[0]) < 60, read_log(top, job)
    assert f'resuming from step {saved[0]} of 60' in read_log(top, job)
    assert read_result(top, 'runs/requeued')['steps'] == 60
    assert read_result(top, 'runs/requeued')['params_sha256'] == read_result(top, 'runs/undisturbed')['params_sha256']


def test_slurm_error_is_not_requeued(cluster, top, submit):
    job = submit('runs/error', '--config.momentum=2')
    assert wait_for_end(cluster, job) == {'FAILED'}, read_log(top, job)
    assert 'Restarts=0' in cluster.run('scontrol', 'show', 'job', job)
    log = read_log(top, job)
    assert log.count('error: config.momentum is 2.0') == 2 and 'requeued' not in log


def test_slurm_array_runs_a_sweep(cluster, top, tiny_dir):
    """launch/slurm_sweep.sbatch: one task a point, and the table from their run folders."""
    sweep = (
        *('--config=configs/one_device.py', '--sweep.seed=0,1', '--workdir=runs/sweep', '--config.width=0.01'),
        *(f'--config.data_dir={tiny_dir}', '--config.dataset=tiny', '--config.variant=released'),
        *('--config.batch_size=8', '--config.steps=2', '--config.evaluate_every=2'),
    )
    python = (sys.executable, '-m', 'alexnet_jax', 'sweep', *sweep)
    assert cluster.run(*python, '--count', cwd=top) == '2'
    job = cluster.run('sbatch', '--parsable', '--array=0-1', 'launch/slurm_sweep.sbatch', *sweep, cwd=top)
    assert wait_for_end(cluster, job) == {'COMPLETED'}, [path.read_text() for path in top.glob('alexnet-sweep-*.log')]
    assert len(list(top.glob(f'alexnet-sweep-{job}_[01].log'))) == 2
    assert {path.parent.name for path in (top / 'runs/sweep').glob('*/result.json')} == {'seed=0', 'seed=1'}
    table = cluster.run(*python, '--table', cwd=top)
    assert table and (top / 'runs/sweep/results.csv').read_text().count('finished') == 2
