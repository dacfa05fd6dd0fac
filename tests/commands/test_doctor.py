"""The doctor command in processes of its own: what a healthy and a sick run print, exit codes, mistakes in one line."""

import dataclasses
import hashlib
import json
import subprocess

import cli
import numpy as np
import pytest
from random_networks import network_of, save_run

# Without norms, which take most of compiling.
CONFIG = '--config=configs/one_device.py:tiny'
SMALL = ('--config.variant=no_norm', '--config.width=0.0625', '--config.batch_size=8', '--config.clip_norm=1.0')


def contents(folder):
    """{file: digest} of all there is in it."""
    files = sorted(path for path in folder.rglob('*') if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope='module')
def sick(tiny, tiny_dir, tmp_path_factory):
    """A run folder whose mean image is zero."""
    workdir, network = tmp_path_factory.mktemp('runs') / 'sick', network_of('no_norm')
    save_run(dataclasses.replace(network, mean_image=np.zeros_like(network.mean_image)), workdir, tiny, tiny_dir)
    return workdir


@pytest.fixture(scope='module')
def done(sick, tiny_dir, program_cache):
    """The processes on a fresh run and on the sick one, side by side."""
    before = contents(sick)
    given = {
        'fresh': (CONFIG, f'--config.data_dir={tiny_dir}', *SMALL, '--steps=3'),
        'sick': (f'--workdir={sick}', '--steps=2', '--json'),
    }
    started = {name: cli.start('doctor', *options, cache=program_cache) for name, options in given.items()}
    ended = {}
    for name, process in started.items():
        out, err = process.communicate(timeout=300)
        ended[name] = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    assert contents(sick) == before
    return ended


def check_screen(lines):
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines if line.startswith(('conv', 'fc'))] == [
        *('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8')
    ]


def test_of_a_fresh_run_nothing_is_found(done):
    process = done['fresh']
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    check_screen(lines)
    assert lines[0].startswith('configs/one_device.py:tiny: no_norm, width 0.0625, on tiny (40 images, 3 classes),')
    assert lines[-1] == 'verdict   nothing found that would keep it from learning'
    assert process.stderr.splitlines()[0] == 'reading 40 training images'
    assert process.stderr.splitlines()[-1].startswith('training step 3 of 3: loss 1.')


def test_of_a_sick_run_the_cause_is_named_and_its_folder_left_alone(done, sick):
    process = done['sick']
    assert process.returncode == 3, process.stderr
    *lines, last = process.stdout.splitlines()
    check_screen(lines)
    (verdict,) = [line for line in lines if line.startswith('verdict ')]
    assert verdict.startswith('verdict   mean not subtracted: of pixels with a mean of ')
    found = json.loads(last)
    assert found['verdict'] == 'mean not subtracted' and len(found['findings']) == 1
    assert found['run'] | {'name': str(sick), 'dataset': 'tiny', 'variant': 'no_norm', 'step': 0} == found['run']
    assert found['run']['chance_loss'] == pytest.approx(1.0986, abs=1e-4)  # ln 3
    assert len(found['network']['losses']) == 2
    assert min(found['network']['inputs']['mean']) > 50


MISTAKES = {
    'neither': ((), 'give --config=FILE.py, or --workdir=runs/NAME, one of them'),
    'both': (('--config=configs/two_device.py', '--workdir=x'), 'give --config=FILE.py, or --workdir=runs/NAME'),
    'no run folder': (('--workdir=nowhere',), 'nowhere is no run folder'),
    'no config file': (('--config=nowhere.py',), 'no such config file'),
    'no dataset': (('--config=configs/two_device.py:nowhere',), "no dataset 'nowhere'"),
    'a wrong value': (('--config=configs/two_device.py', '--config.width=9'), 'config.width'),
    'no steps': (('--workdir=x', '--steps=0'), '--steps=0'),
    'a stray word': (('--workdir=x', 'stray'), "unexpected argument 'stray'"),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_one_line(mistake, program_cache):
    options, words = MISTAKES[mistake]
    process = cli.run('doctor', *options, cache=program_cache)
    assert process.returncode == 1
    assert process.stderr.startswith('error: ') and words in process.stderr and process.stderr.count('\n') == 1
    assert process.stdout == ''


def test_help_tells_of_the_options(program_cache):
    process = cli.run('doctor', '--help', cache=program_cache)
    options = ('--config=VALUE', '--workdir=VALUE', '--steps=VALUE', '--json ')
    for words in ('Why does it not learn?', *options, 'Exit code'):
        assert words in process.stdout
    assert process.stderr == ''
