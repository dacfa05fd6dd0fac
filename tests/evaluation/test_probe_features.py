"""Features for a probe: pooled as in loops, kept under hashes, and not computed twice."""

import dataclasses
import math

import numpy as np
import pytest
from random_networks import network_of

from alexnet_jax.errors import InputError
from alexnet_jax.evaluation import probe_features
from alexnet_jax.evaluation.features import iter_features
from alexnet_jax.evaluation.probe_features import make_features, pool_places
from alexnet_jax.sharding.mesh import make_mesh

STAGES = ('conv1/relu', 'conv5/pool', 'fc7/dropout')


@pytest.mark.parametrize(
    ('shape', 'side'), [((27, 27, 64), 8), ((13, 13, 384), 3), ((6, 6, 256), 4), ((6, 6, 16), 6), ((5, 5, 5000), 1)]
)
def test_pool_places_averages_the_cells_of_adaptive_pooling(shape, side):
    """torch.nn.AdaptiveAvgPool2d: from floor(i * size / side) to ceil((i + 1) * size / side)."""
    rows = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    found = pool_places(rows)
    assert found.shape == (2, side * side * shape[2])
    for i in range(side):
        for j in range(side):
            top, bottom = math.floor(i * shape[0] / side), math.ceil((i + 1) * shape[0] / side)
            left, right = math.floor(j * shape[1] / side), math.ceil((j + 1) * shape[1] / side)
            cell = sum(rows[1, y, x].astype(np.float64) for y in range(top, bottom) for x in range(left, right))
            expected = cell / ((bottom - top) * (right - left))
            place = (i * side + j) * shape[2]
            np.testing.assert_allclose(found[1, place : place + shape[2]], expected, rtol=0, atol=1e-5)


def test_pool_places_leaves_units_as_they_are():
    rows = np.ones((3, 5), np.float32)
    assert pool_places(rows) is rows


def make(network, tiny, cache, stages=STAGES, split='validation'):
    options = {'stages': stages, 'cache': cache, 'batch_size': 8, 'progress': lambda done: None}
    return make_features(network, tiny, split, **options)


@pytest.mark.slow
def test_make_features_computes_all_layers_at_once_and_once(tiny, tmp_path, monkeypatch):
    network = network_of()
    found = make(network, tiny, tmp_path)
    for stage in STAGES:
        batches = list(iter_features(network, make_mesh(1, 1), tiny.records('validation'), stage=stage, batch_size=8))
        expected = pool_places(np.concatenate([rows for rows, _ in batches]))
        np.testing.assert_allclose(found[stage][0], expected, rtol=0, atol=1e-5 * abs(expected).max())
        np.testing.assert_array_equal(found[stage][1], [label for _, label in tiny.records('validation')])
    assert len(list(tmp_path.iterdir())) == len(STAGES)
    with monkeypatch.context() as patch:
        patch.setattr(probe_features, 'iter_stages', None)
        again = make(network, tiny, tmp_path)
        with pytest.raises(TypeError):  # another layer, split or mean image is not what is there
            make(network, tiny, tmp_path, stages=('conv2',))
        with pytest.raises(TypeError):
            make(network, tiny, tmp_path, split='train')
        with pytest.raises(TypeError):
            make(dataclasses.replace(network, mean_image=network.mean_image + 1), tiny, tmp_path)
        with pytest.raises(TypeError):
            make(dataclasses.replace(network, params=network_of(seed=1).params), tiny, tmp_path)
    for stage in STAGES:
        np.testing.assert_array_equal(again[stage][0], found[stage][0])
        np.testing.assert_array_equal(again[stage][1], found[stage][1])


def test_make_features_says_which_kept_file_is_damaged(tiny, tmp_path):
    network = network_of()
    make(network, tiny, tmp_path, stages=STAGES[-1:])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=f'^{path} is damaged: delete it, and it is computed again$'):
        make(network, tiny, tmp_path, stages=STAGES[-1:])
