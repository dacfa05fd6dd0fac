"""The checkpoint command on a real run folder: list, verify, export."""

import hashlib
import json
import shutil

import cli
import numpy as np
import pytest
from run.test_loop import run


@pytest.fixture(scope='module')
def finished(tiny, tmp_path_factory):
    """A run folder with checkpoints of steps 2 and 4, the second tested; and its result."""
    workdir = tmp_path_factory.mktemp('runs') / 'run'
    result = run(tiny, workdir, steps=4, checkpoint_every=2, evaluate_every=4)
    (workdir / 'config.json').write_text('{"variant": "released"}')
    return workdir, result


@pytest.fixture
def spoilt(finished, tmp_path):
    """A copy of it in which one bit of checkpoint 4 is another."""
    copy = shutil.copytree(finished[0], tmp_path / 'run')
    path = max((copy / 'checkpoints/4/state').rglob('*'), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return copy


@pytest.fixture
def checkpoint(program_cache):
    return lambda *options: cli.run('checkpoint', *options, cache=program_cache)


def split_rows(process):
    return [line.split() for line in process.stdout.splitlines()]


def test_checkpoint_lists_and_verifies_each_step(finished, checkpoint):
    workdir, result = finished
    for what in ('list', 'verify'):
        process = checkpoint(what, f'--workdir={workdir}')
        assert process.returncode == 0, process.stderr
        title, second, fourth = split_rows(process)
        assert title == ['step', 'saved', 'MB', 'top-1', 'error', 'state']
        assert (second[0], fourth[0]) == ('2', '4')
        assert (second[-1], fourth[-1]) == ('ok', 'ok')
        assert fourth[-2] == f'{result["centre"]["top1_error"]:.2%}'


def test_checkpoint_verify_finds_a_flipped_bit(spoilt, checkpoint):
    process = checkpoint('verify', f'--workdir={spoilt}')
    assert process.returncode == 1
    (line,) = [line for line in process.stdout.splitlines() if line.startswith('4 ')]
    assert 'damaged: ' in line
    assert ' ok' in process.stdout.splitlines()[1]
    assert 'Traceback' not in process.stderr


def test_checkpoint_export_writes_what_was_trained(finished, checkpoint, tmp_path):
    workdir, result = finished
    process = checkpoint('export', f'--workdir={workdir}', f'--to={tmp_path / "w.npz"}')
    assert process.returncode == 0, process.stderr
    assert result['params_sha256'] in process.stdout
    with np.load(tmp_path / 'w.npz') as archive:
        arrays = {name: archive[name] for name in archive.files}
    about = json.loads(str(arrays.pop('about')))
    assert about == {'step': 4, 'params_sha256': result['params_sha256'], 'config': {'variant': 'released'}}
    assert arrays.pop('mean_image').shape == (224, 224, 3)
    assert arrays['conv1/kernel'].shape == (11, 11, 3, 6)
    # The run's own hash, computed anew from the file: sha256 of a line per array.
    lines = [
        f'{name} {hashlib.sha256(f"{x.dtype.str} {x.shape}".encode() + x.tobytes()).hexdigest()}'
        for name, x in sorted(arrays.items())
    ]
    assert hashlib.sha256('\n'.join(lines).encode()).hexdigest() == result['params_sha256']


def test_checkpoint_export_refuses_a_damaged_checkpoint(spoilt, checkpoint, tmp_path):
    process = checkpoint('export', f'--workdir={spoilt}', f'--to={tmp_path / "w.npz"}')
    assert process.returncode == 1
    assert process.stderr.startswith('error: ') and process.stderr.count('\n') == 1, process.stderr
    assert list(tmp_path.glob('*npz*')) == []


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        (('list', '--workdir=nowhere'), 'nowhere has no checkpoints'),
        (('export', '--workdir=RUN', '--step=3', '--to=w.npz'), 'has no checkpoint 3: it has 2, 4'),
        (('export', '--workdir=RUN'), '--to=None: name the file to write, --to=FILE.npz'),
        (('delete', '--workdir=RUN'), 'delete cannot be done: give list, verify or export'),
    ],
)
def test_checkpoint_reports_a_mistake_in_one_line(finished, checkpoint, options, says):
    process = checkpoint(*[option.replace('RUN', str(finished[0])) for option in options])
    assert process.returncode == 1
    assert process.stdout == ''
    assert process.stderr.startswith('error: ') and says in process.stderr and process.stderr.count('\n') == 1
