"""A run's network, read back from its folder."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from builders import run_with

from alexnet_jax.checkpoints.checkpointer import Checkpointer
from alexnet_jax.checkpoints.load import load_config, load_network
from alexnet_jax.errors import InputError
from alexnet_jax.run.run_dir import claim_run_dir


@pytest.fixture(scope='module')
def saved_once(tmp_path_factory, tiny, tiny_dir):
    """A run folder with checkpoint 0 of a Caffe network without its norms, its parameters and mean image."""
    run = run_with(
        variant='caffenet', width=0.02, without=('norm',), data_dir=str(tiny_dir), mesh=(1, 1), batch_size=128, seed=4
    )
    mean = tiny.mean_image
    state = run.create_state(mean)
    folder = tmp_path_factory.mktemp('saved')
    claim_run_dir(folder, run, tiny)
    with Checkpointer(folder, keep=2) as checkpointer:
        checkpointer.save(state, data_order=0)
    return folder, jax.device_get(state.params), mean


@pytest.fixture
def saved(saved_once, tmp_path):
    folder, *values = saved_once
    return shutil.copytree(folder, tmp_path / 'run'), *values


def test_load_network_gives_all_of_a_run_s_network(saved, tiny):
    workdir, params, mean = saved
    network = load_network(workdir)
    jax.tree.map(np.testing.assert_array_equal, network.params, params)
    np.testing.assert_array_equal(network.mean_image, mean)
    assert network.classes == tiny.classes == ('blue', 'green', 'red')
    assert (network.name.variant, network.name.width, network.name.without) == ('caffenet', 0.02, ('norm',))
    assert network.variant.convs[0].features == 2 and len(network.variant.convs[0].then) == 2
    assert network.about['step'] == 0
    assert network.about['config']['dataset'] == 'tiny'
    assert network.preprocessing == 'paper'  # of the dataset, not of Caffe
    run = json.loads((workdir / 'run.json').read_text())
    (workdir / 'run.json').write_text(json.dumps(run | {'preprocessing': 'caffe'}))
    assert load_network(workdir).preprocessing == 'caffe'
    (workdir / 'run.json').write_text(json.dumps(run | {'preprocessing': 'squeezed'}))
    with pytest.raises(InputError, match=r"run\.json is damaged: ValueError preprocessing 'squeezed'"):
        load_network(workdir)


def test_load_network_of_an_earlier_version_takes_classes_from_the_dataset_or_numbers_them(saved):
    workdir, *_ = saved
    run = json.loads((workdir / 'run.json').read_text())
    del run['classes']
    (workdir / 'run.json').write_text(json.dumps(run))
    assert load_network(workdir).classes == ('blue', 'green', 'red')
    settings = json.loads((workdir / 'config.json').read_text())
    (workdir / 'config.json').write_text(json.dumps(settings | {'data_dir': 'nowhere'}))
    assert load_network(workdir).classes == ('0', '1', '2')


def test_load_config_of_an_earlier_version_has_one_mean_for_all_crops_and_11pct_s_draft(tmp_path):
    settings = run_with(variant='cifar10_11pct', mesh=(1, 1)).config.to_json()
    (tmp_path / 'config.json').write_text(json.dumps(settings))
    assert (load_config(tmp_path).variant, load_config(tmp_path).mean_at) == ('cifar10_11pct', None)
    del settings['mean_at']
    (tmp_path / 'config.json').write_text(json.dumps(settings))
    assert (load_config(tmp_path).variant, load_config(tmp_path).mean_at) == ('cifar10_11pct_draft', 'centre')


def test_load_network_refuses_what_it_cannot_read_in_one_line(saved, tmp_path):
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


def test_load_network_takes_a_relative_folder(saved, monkeypatch):
    workdir, params, _ = saved
    monkeypatch.chdir(workdir.parent)
    network = load_network(pathlib.Path('run'))
    np.testing.assert_array_equal(network.params['conv1']['kernel'], params['conv1']['kernel'])
