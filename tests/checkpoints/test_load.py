"""A run's network, read back from its folder."""

import json
import pathlib

import jax
import numpy as np
import pytest
from builders import run_with

from alexnet_jax.checkpoints.checkpointer import Checkpointer
from alexnet_jax.checkpoints.load import load_network
from alexnet_jax.data.augment import centre_crop
from alexnet_jax.errors import InputError
from alexnet_jax.run.run_dir import claim_run_dir


@pytest.fixture
def saved(tmp_path, tiny, tiny_dir):
    """A run folder with checkpoint 0 of a Caffe network without its norms, and its parameters."""
    run = run_with(
        variant='caffenet', width=0.02, without=('norm',), data_dir=str(tiny_dir), mesh=(1, 1), batch_size=128, seed=4
    )
    mean = np.asarray(centre_crop(tiny.mean_image, 227))
    state = run.create_state(mean)
    claim_run_dir(tmp_path / 'run', run, tiny)
    with Checkpointer(tmp_path / 'run', keep=2) as checkpoints:
        checkpoints.save(state, data_order=0)
    return tmp_path / 'run', jax.device_get(state.params), mean


def test_all_of_a_network_comes_back(saved, tiny):
    workdir, params, mean = saved
    network = load_network(workdir)
    jax.tree.map(np.testing.assert_array_equal, network.params, params)
    np.testing.assert_array_equal(network.mean_image, mean)
    assert network.classes == tiny.classes == ('blue', 'green', 'red')
    assert (network.name.variant, network.name.width, network.name.without) == ('caffenet', 0.02, ('norm',))
    assert network.variant.convs[0].features == 2 and len(network.variant.convs[0].then) == 2
    assert network.about['step'] == 0
    assert network.about['config']['dataset'] == 'tiny'


def test_a_run_of_before_finds_its_classes_in_its_dataset_or_numbers_them(saved):
    workdir, *_ = saved
    run = json.loads((workdir / 'run.json').read_text())
    del run['classes']
    (workdir / 'run.json').write_text(json.dumps(run))
    assert load_network(workdir).classes == ('blue', 'green', 'red')
    settings = json.loads((workdir / 'config.json').read_text())
    (workdir / 'config.json').write_text(json.dumps(settings | {'data_dir': 'nowhere'}))
    assert load_network(workdir).classes == ('0', '1', '2')


def test_what_cannot_be_read_says_so_in_one_line(saved, tmp_path):
    workdir, *_ = saved
    with pytest.raises(InputError, match='has no checkpoint 7: it has 0'):
        load_network(workdir, step=7)
    with pytest.raises(InputError, match='has no checkpoint: it has none; --workdir is the folder of a run'):
        load_network(tmp_path)
    settings = json.loads((workdir / 'config.json').read_text())
    (workdir / 'config.json').write_text(json.dumps(settings | {'width': 0.5}))
    with pytest.raises(InputError, match='does not hold the network that'):
        load_network(workdir)
    (workdir / 'config.json').write_text('{')
    with pytest.raises(InputError, match=r'config\.json is damaged'):
        load_network(workdir)


def test_a_run_folder_may_be_named_from_where_one_stands(saved, monkeypatch):
    workdir, params, _ = saved
    monkeypatch.chdir(workdir.parent)
    network = load_network(pathlib.Path('run'))
    np.testing.assert_array_equal(network.params['conv1']['kernel'], params['conv1']['kernel'])
