import types

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from alexnet_jax.errors import InputError
from alexnet_jax.sharding.mesh import batch_spec, make_mesh, parameter_specs, place_batch


def test_make_mesh_places_the_towers_of_one_replica_side_by_side():
    mesh = make_mesh(4, 2)
    assert mesh.axis_names == ('data', 'tower')
    np.testing.assert_array_equal([[d.id for d in row] for row in mesh.devices], np.arange(8).reshape(4, 2))


def test_parameter_specs_shard_output_channels_of_everything_but_fc8():
    tree = {
        'params': {name: {'kernel': np.zeros((2, 4)), 'bias': np.zeros(4)} for name in ('fc6', 'fc8')},
        'momentum': ({'conv3': {'kernel': np.zeros((3, 3, 2, 4)), 'bias': np.zeros(4)}}, np.zeros(())),
        'mean_image': np.zeros((224, 224, 3)),
    }
    assert parameter_specs(make_mesh(1, 2), tree) == {
        'params': {
            'fc6': {'kernel': P(None, 'tower'), 'bias': P('tower')},
            'fc8': {'kernel': P(), 'bias': P()},
        },
        'momentum': ({'conv3': {'kernel': P(None, None, None, 'tower'), 'bias': P('tower')}}, P()),
        'mean_image': P(),
    }


def test_place_batch_sends_each_tower_its_images_from_the_host():
    """Of 4x2 devices both of a pair get the same rows; no device passes them on (docs/data.md says why)."""
    mesh, images = make_mesh(4, 2), np.random.default_rng(0).integers(256, size=(8, 6, 6, 3), dtype=np.uint8)
    with jax.transfer_guard_device_to_device('disallow_explicit'):
        placed = place_batch(mesh, images)
    assert len(placed.addressable_shards) == 8
    for shard in placed.addressable_shards:
        pair = shard.device.id // 2
        np.testing.assert_array_equal(shard.data, images[2 * pair : 2 * pair + 2])
    first = jax.device_put(images, mesh.devices[0, 0])
    with jax.transfer_guard_device_to_device('disallow_explicit'), pytest.raises(Exception, match='Disallowed'):
        jax.device_put(first, mesh.devices[0, 1])  # which the guard does see


def test_parameter_specs_of_one_weird_trick_split_the_hidden_layers_only():
    mesh = make_mesh(2, 4, one_weird_trick=True)
    assert mesh.axis_names == ('data', 'model')
    layer = {'kernel': np.zeros((8, 8)), 'bias': np.zeros(8)}
    assert parameter_specs(mesh, {'conv2': layer, 'fc6': layer, 'fc7': layer, 'fc8': layer, 'step': np.zeros(())}) == {
        'conv2': {'kernel': P(), 'bias': P()},
        'fc6': {'kernel': P(None, 'model'), 'bias': P('model')},
        'fc7': {'kernel': P(None, 'model'), 'bias': P('model')},
        'fc8': {'kernel': P('model', None), 'bias': P()},
        'step': P(),
    }
    assert batch_spec(mesh) == P(('data', 'model'))


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        ((5, 2), r'needs 10 devices, but 8 CPU device\(s\) were found: use a mesh of 1,2$'),
        ((3, 2), 'would leave 2 of 8 devices idle: use a mesh of 1,2, or another whose product divides 8'),
        ((1, 3), 'must be 1 or 2'),
        ((0, 2), 'at least 1'),
    ],
)
def test_make_mesh_says_why_it_cannot_be(shape, message):
    with pytest.raises(InputError, match=message):
        make_mesh(*shape)


def test_make_mesh_names_a_process_without_a_device(monkeypatch):
    """Two hosts of four GPUs and the two devices of configs/two_device.py."""
    gpus = [types.SimpleNamespace(platform='gpu', process_index=number // 4) for number in range(8)]
    monkeypatch.setattr(jax, 'devices', lambda: gpus)
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    with pytest.raises(
        InputError, match=r'1x2 .* takes 2 of 8 devices, and none of process 1: use one .*, such as 4,2$'
    ):
        make_mesh(1, 2)


def test_make_mesh_names_a_config_that_fits_too_few_accelerators(monkeypatch):
    monkeypatch.setattr(jax, 'devices', lambda: [type('Gpu', (), {'platform': 'gpu'})()])
    with pytest.raises(InputError, match=r'but 1 GPU device\(s\) were found: use configs/one_device.py'):
        make_mesh(1, 2)
