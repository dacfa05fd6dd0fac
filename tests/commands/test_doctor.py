"""The doctor command in processes of its own: output of a healthy and a broken run, exit codes, one-line mistakes."""

import dataclasses
import json
import subprocess

import cli
import numpy as np
import pytest
from random_networks import network_of, save_run

from alexnet_jax.files import hash_file

# Without norms, which take most of compiling.
CONFIG = '--config=configs/one_device.py:tiny'
SMALL = ('--config.variant=no_norm', '--config.width=0.0625', '--config.batch_size=8', '--config.clip_norm=1.0')


def hash_files(folder):
    """Returns {file: digest} of all files in a folder."""
    return {str(path): hash_file(path) for path in folder.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def broken(tiny, tiny_dir, tmp_path_factory):
    """Makes a run folder whose mean image is zero."""
    workdir, network = tmp_path_factory.mktemp('runs') / 'broken', network_of('no_norm')
    save_run(dataclasses.replace(network, mean_image=np.zeros_like(network.mean_image)), workdir, tiny, tiny_dir)
    return workdir


@pytest.fixture(scope='module')
def processes(broken, tiny_dir, program_cache):
    """Runs the command on a fresh run and on the broken one, side by side; returns the two ended processes."""
    before = hash_files(broken)
    given = {
        'fresh': (CONFIG, f'--config.data_dir={tiny_dir}', *SMALL, '--steps=3'),
        'broken': (f'--workdir={broken}', '--steps=2', '--json'),
    }
    started = {name: cli.start('doctor', *options, cache=program_cache) for name, options in given.items()}
    ended = {}
    for name, process in started.items():
        out, err = process.communicate(timeout=300)
        ended[name] = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    assert hash_files(broken) == before
    return ended


def check_screen(lines):
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines if line.startswith(('conv', 'fc'))] == [
        *('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8')
    ]


@pytest.mark.slow
def test_doctor_of_fresh_run_finds_nothing(processes):
    process = processes['fresh']
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    check_screen(lines)
    assert lines[0].startswith('configs/one_device.py:tiny: no_norm, width 0.0625, on tiny (40 images, 3 classes),')
    assert lines[-1] == 'verdict   nothing found that would keep it from learning'
    assert process.stderr.splitlines()[0] == 'reading 40 training images'
    assert process.stderr.splitlines()[-1].startswith('training step 3 of 3: loss 1.')


@pytest.mark.slow
def test_doctor_of_broken_run_names_cause_and_keeps_folder(processes, broken):
    process = processes['broken']
    assert process.returncode == 3, process.stderr
    *lines, last = process.stdout.splitlines()
    check_screen(lines)
    (verdict,) = [line for line in lines if line.startswith('verdict ')]
    assert verdict.startswith('verdict   mean not subtracted: of pixels with a mean of ')
    found = json.loads(last)
    assert found['verdict'] == 'mean not subtracted' and len(found['findings']) == 1
    assert found['run'] | {'name': str(broken), 'dataset': 'tiny', 'variant': 'no_norm', 'step': 0} == found['run']
    assert found['run']['chance_loss'] == pytest.approx(1.0986, abs=1e-4)  # ln 3
    assert len(found['network']['losses']) == 2
    assert min(found['network']['inputs']['mean']) > 50


# Other mistakes in settings and run folders end the same way: tests/doctor/test_snapshot.py has their messages.
MISTAKES = {
    'neither': ((), 'give --config=FILE.py, or --workdir=runs/NAME, one of them'),
    'both': (('--config=configs/two_device.py', '--workdir=x'), 'give --config=FILE.py, or --workdir=runs/NAME'),
    'no config file': (('--config=nowhere.py',), 'no such config file'),
    'a wrong value': (('--config=configs/two_device.py', '--config.width=9.0'), 'config.width'),
    'no dataset': (('--config=configs/two_device.py:nowhere',), "no dataset 'nowhere'"),
    'no steps': (('--workdir=x', '--steps=0'), '--steps=0'),
    'a stray word': (('--workdir=x', 'stray'), "unexpected argument 'stray'"),
}


REPEATS = ('a wrong value', 'no dataset')  # they end as the others do, after some seconds


@pytest.mark.parametrize(
    'mistake', [pytest.param(name, marks=[pytest.mark.repeats] * (name in REPEATS)) for name in MISTAKES]
)
def test_doctor_reports_mistake_in_one_line(mistake, program_cache):
    options, text = MISTAKES[mistake]
    process = cli.run('doctor', *options, cache=program_cache)
    assert process.returncode == 1
    assert process.stderr.startswith('error: ') and text in process.stderr and process.stderr.count('\n') == 1
    assert process.stdout == ''


def test_doctor_help_lists_options(program_cache):
    process = cli.run('doctor', '--help', cache=program_cache)
    options = ('--config=VALUE', '--workdir=VALUE', '--steps=VALUE', '--json ')
    for text in ('Why does it not learn?', *options, 'Exit code'):
        assert text in process.stdout
    assert process.stderr == ''
