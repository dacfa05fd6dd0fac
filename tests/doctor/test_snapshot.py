"""Snapshots of run folders: the newest whole checkpoint, notes, and what is refused."""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from random_networks import network_of, save_run

from alexnet_jax.checkpoints.checkpointer import Checkpointer
from alexnet_jax.checkpoints.load import load_config
from alexnet_jax.doctor.examine import examine_workdir
from alexnet_jax.doctor.snapshot import load_snapshot, make_snapshot
from alexnet_jax.errors import InputError
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.training.schedule import LayerLRMultiplier
from alexnet_jax.weights.safetensors_file import save_safetensors


@pytest.fixture(scope='module')
def saved(tiny, tiny_dir, tmp_path_factory):
    """Makes a run folder with checkpoint 0, and the state that its config begins with, once."""
    workdir = tmp_path_factory.mktemp('saved') / 'run'
    save_run(network_of(), workdir, tiny, tiny_dir)
    return workdir, make_snapshot(load_config(workdir), tiny, name='x').state


@pytest.fixture
def run(saved, tmp_path):
    """Returns a copy of the run folder, and a function that saves its state, with fc8's bias of `value`, as `step`."""
    workdir, fresh = shutil.copytree(saved[0], tmp_path / 'run'), saved[1]

    def save(step, value):
        fc8 = jax.tree.map(lambda leaf: np.full_like(leaf, value), fresh.params['fc8'])
        state = dataclasses.replace(fresh, params=fresh.params | {'fc8': fc8}, step=fresh.step + step)
        with Checkpointer(workdir, keep=5) as checkpoints:
            checkpoints.save(jax.device_put(state, make_mesh(1, 1).devices.item()), data_order=3)

    return workdir, save


def damage(checkpoint):
    path = max((checkpoint / 'state').rglob('*'), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def open_snapshot(workdir, tiny):
    return load_snapshot(workdir, load_config(workdir), tiny)


@pytest.mark.slow
def test_load_snapshot_takes_newest_whole_checkpoint(run, tiny):
    workdir, save = run
    save(9, 0.25)
    save(10, 0.5)
    (workdir / 'metrics.jsonl').write_text('{"step": 4, "split": "train", "loss": 1.0}\n')
    snapshot = open_snapshot(workdir, tiny)
    assert int(snapshot.state.step) == 10 and snapshot.notes == ()
    assert snapshot.history == ({'step': 4, 'split': 'train', 'loss': 1.0},)
    np.testing.assert_array_equal(snapshot.state.params['fc8']['bias'], 0.5)
    damage(workdir / 'checkpoints/10')
    snapshot = open_snapshot(workdir, tiny)
    assert int(snapshot.state.step) == 9
    np.testing.assert_array_equal(snapshot.state.params['fc8']['bias'], 0.25)
    (note,) = snapshot.notes
    assert note.startswith('checkpoint 10 is damaged') and note.endswith('an older one is looked at')


@pytest.mark.slow
def test_load_snapshot_without_whole_checkpoint(run, tiny):
    workdir, _ = run
    damage(workdir / 'checkpoints/0')
    with pytest.raises(InputError, match='every checkpoint in '):
        open_snapshot(workdir, tiny)
    (workdir / 'checkpoints').rename(workdir / 'gone')
    snapshot = open_snapshot(workdir, tiny)
    assert int(snapshot.state.step) == 0
    assert snapshot.notes == ('it has no checkpoint yet: looked at before its first step',)
    save_safetensors(network_of(seed=1), workdir / 'w.safetensors')  # not what it began from
    config = json.loads((workdir / 'config.json').read_text()) | {'init_from': str(workdir / 'w.safetensors')}
    (workdir / 'config.json').write_text(json.dumps(config))
    begun = {'init_from': 'w', 'source': 'others', 'params_sha256': 'abc'}
    (workdir / 'run.json').write_text(json.dumps(json.loads((workdir / 'run.json').read_text()) | {'init_from': begun}))
    with pytest.raises(InputError, match=r'began from w \(others, params_sha256 abc\), which has changed'):
        open_snapshot(workdir, tiny)


@pytest.mark.slow
def test_load_snapshot_refuses_another_network_and_notes_another_dataset(run, tiny):
    workdir, _ = run
    text = (workdir / 'run.json').read_text()
    (workdir / 'run.json').write_text(text.replace(json.loads(text)['identity']['dataset_fingerprint'], 'other'))
    assert open_snapshot(workdir, tiny).notes == (
        'dataset tiny is not the one that this run was trained on: prepared again since',
    )
    config = json.loads((workdir / 'config.json').read_text()) | {'width': 0.125}
    (workdir / 'config.json').write_text(json.dumps(config))
    with pytest.raises(InputError, match='is of another network'):
        open_snapshot(workdir, tiny)


def test_examine_workdir_refuses_missing_run():
    with pytest.raises(InputError, match=r'^nowhere is no run folder'):
        examine_workdir(pathlib.Path('nowhere'), info=print)


def test_make_snapshot_lr_multipliers(lab):
    """Released, 300 steps: conv1 at a tenth of the rate from 66/91 of them on, 217.6, and at 0 from 71/91 on, 234.1."""
    snapshot = lab.make_snapshot(steps=300)
    assert snapshot.run.lr_multipliers == (LayerLRMultiplier('conv1', 218, 0.1), LayerLRMultiplier('conv1', 234, 0.0))
