"""What of a run folder is opened: the newest whole checkpoint, what was noticed, and what cannot be diagnosed."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from random_networks import network_of, save_run

from alexnet_jax import InputError
from alexnet_jax.diagnosis.subject import config_of, of_config, of_workdir
from alexnet_jax.parallel.mesh import make_mesh
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.schedule import LayerFactor


@pytest.fixture
def run(tiny, tiny_dir, tmp_path):
    """A run folder with checkpoint 0; and one that saves its state, with fc8's bias of `value`, as another one."""
    workdir = tmp_path / 'run'
    save_run(network_of(), workdir, tiny, tiny_dir)

    def save(step, value):
        state = of_config(config_of(workdir), tiny, name='x').state
        fc8 = jax.tree.map(lambda leaf: np.full_like(leaf, value), state.params['fc8'])
        state = dataclasses.replace(state, params=state.params | {'fc8': fc8}, step=state.step + step)
        with Checkpoints(workdir, keep=5) as checkpoints:
            checkpoints.save(jax.device_put(state, make_mesh(1, 1).devices.item()), data_order=3)

    return workdir, save


def damage(checkpoint):
    path = max((checkpoint / 'state').rglob('*'), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def opened(workdir, tiny):
    return of_workdir(workdir, config_of(workdir), tiny)


def test_the_newest_whole_checkpoint_is_opened(run, tiny):
    workdir, save = run
    save(9, 0.25)
    save(10, 0.5)
    (workdir / 'metrics.jsonl').write_text('{"step": 4, "split": "train", "loss": 1.0}\n')
    subject = opened(workdir, tiny)
    assert int(subject.state.step) == 10 and subject.notes == ()
    assert subject.history == ({'step': 4, 'split': 'train', 'loss': 1.0},)
    np.testing.assert_array_equal(subject.state.params['fc8']['bias'], 0.5)
    damage(workdir / 'checkpoints/10')
    subject = opened(workdir, tiny)
    assert int(subject.state.step) == 9
    np.testing.assert_array_equal(subject.state.params['fc8']['bias'], 0.25)
    (note,) = subject.notes
    assert note.startswith('checkpoint 10 is damaged') and note.endswith('an older one is looked at')


def test_without_a_whole_checkpoint(run, tiny):
    workdir, _ = run
    damage(workdir / 'checkpoints/0')
    with pytest.raises(InputError, match='every checkpoint in '):
        opened(workdir, tiny)
    (workdir / 'checkpoints').rename(workdir / 'gone')
    subject = opened(workdir, tiny)
    assert int(subject.state.step) == 0
    assert subject.notes == ('it has no checkpoint yet: looked at before its first step',)


def test_another_network_is_refused_and_another_dataset_noticed(run, tiny):
    workdir, _ = run
    text = (workdir / 'run.json').read_text()
    (workdir / 'run.json').write_text(text.replace(json.loads(text)['identity']['dataset_fingerprint'], 'other'))
    assert opened(workdir, tiny).notes == (
        'dataset tiny is not the one that this run was trained on: prepared again since',
    )
    config = json.loads((workdir / 'config.json').read_text()) | {'width': 0.125}
    (workdir / 'config.json').write_text(json.dumps(config))
    with pytest.raises(InputError, match='is of another network'):
        opened(workdir, tiny)


def test_layers_are_held_where_training_holds_them(lab):
    """Released, 300 steps: conv1 at a tenth of the rate from 66/91 of them on, 217.6, and at 0 from 71/91 on, 234.1."""
    slowed = lab.subject(steps=300).slowed
    assert slowed == (LayerFactor('conv1', 218, 0.1), LayerFactor('conv1', 234, 0.0))
