"""The checkpoint command on a run folder: list, verify, export."""

import dataclasses
import hashlib
import json
import shutil

import cli
import jax
import numpy as np
import pytest
from builders import run_with

from alexnet_jax.checkpoints import inspect
from alexnet_jax.checkpoints.checkpointer import Checkpointer
from alexnet_jax.checkpoints.manifest import DamagedError
from alexnet_jax.errors import InputError
from alexnet_jax.weights.open_weights import open_weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A run folder with checkpoints of steps 2 and 4, the second tested; and the arrays in that one."""
    workdir = tmp_path_factory.mktemp('runs') / 'run'
    mean_image = np.random.default_rng(0).uniform(0, 255, (224, 224, 3)).astype(np.float32)
    workdir.mkdir()
    with Checkpointer(workdir, keep=2) as checkpoints:
        for step, error in ((2, None), (4, 3 / 13)):
            state = run_with(variant='released', width=0.0625, seed=step).create_state(mean_image)
            checkpoints.save(dataclasses.replace(state, step=state.step + step), top1_error=error)
    (workdir / 'config.json').write_text('{"variant": "released"}')
    params = {f'{layer}/{part}': x for layer, both in jax.device_get(state.params).items() for part, x in both.items()}
    return workdir, params | {'mean_image': mean_image}


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
    workdir, _ = finished
    for what in ('list', 'verify'):
        process = checkpoint(what, f'--workdir={workdir}')
        assert process.returncode == 0, process.stderr
        title, second, fourth = split_rows(process)
        assert title == ['step', 'saved', 'MB', 'top-1', 'error', 'state']
        assert (second[0], fourth[0]) == ('2', '4')
        assert (second[-1], fourth[-1]) == ('ok', 'ok')
        assert fourth[-2] == '23.08%'


def test_checkpoint_verify_finds_a_flipped_bit(spoilt, checkpoint):
    process = checkpoint('verify', f'--workdir={spoilt}')
    assert process.returncode == 1
    (line,) = [line for line in process.stdout.splitlines() if line.startswith('4 ')]
    assert 'damaged: ' in line
    assert ' ok' in process.stdout.splitlines()[1]
    assert 'Traceback' not in process.stderr


def test_checkpoint_export_writes_what_was_saved(finished, checkpoint, tmp_path):
    workdir, expected = finished
    process = checkpoint('export', f'--workdir={workdir}', f'--to={tmp_path / "w.npz"}')
    assert process.returncode == 0, process.stderr
    with np.load(tmp_path / 'w.npz') as archive:
        arrays = {name: archive[name] for name in archive.files}
    about = json.loads(str(arrays.pop('about')))
    assert about.pop('params_sha256') in process.stdout
    assert about == {'step': 4, 'config': {'variant': 'released'}}
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        assert arrays[name].dtype == np.float32
        np.testing.assert_array_equal(arrays[name], array, name)
    # The hash, computed anew: sha256 of a line per array of the network.
    del arrays['mean_image']
    lines = [
        f'{name} {hashlib.sha256(f"{x.dtype.str} {x.shape}".encode() + x.tobytes()).hexdigest()}'
        for name, x in sorted(arrays.items())
    ]
    assert hashlib.sha256('\n'.join(lines).encode()).hexdigest() in process.stdout
    found = open_weights(tmp_path / 'w.npz')  # and --weights takes it
    assert (found.name.variant, found.name.width, found.about['step']) == ('released', 0.0625, 4)
    np.testing.assert_array_equal(found.params['conv1']['kernel'], expected['conv1/kernel'])


def test_checkpoint_export_refuses_what_is_damaged_or_not_there(finished, spoilt, tmp_path):
    with pytest.raises(DamagedError) as refused:
        inspect.export_npz(spoilt, step=None, to=tmp_path / 'w.npz')
    assert len(str(refused.value).splitlines()) == 1
    with pytest.raises(InputError, match='has no checkpoint 3: it has 2, 4'):
        inspect.export_npz(finished[0], step=3, to=tmp_path / 'w.npz')
    assert list(tmp_path.glob('*npz*')) == []


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        (('list', '--workdir=nowhere'), 'nowhere has no checkpoints'),
        (('export', '--workdir=RUN'), '--to=None: name the file to write, --to=FILE.npz'),
        (('delete', '--workdir=RUN'), 'delete cannot be done: give list, verify or export'),
    ],
)
def test_checkpoint_reports_a_mistake_in_one_line(finished, checkpoint, options, says):
    process = checkpoint(*[option.replace('RUN', str(finished[0])) for option in options])
    assert process.returncode == 1
    assert process.stdout == ''
    assert process.stderr.startswith('error: ') and says in process.stderr and process.stderr.count('\n') == 1
