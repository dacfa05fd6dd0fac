"""Tests the maps of an image against the plain network's, and their rendering."""

import jax
import numpy as np
import oracle
import pytest

from alexnet_jax.model.alexnet import init_parameters
from alexnet_jax.model.network import Network, NetworkName
from alexnet_jax.report.maps import LayerMaps, compute_maps, render_maps


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)


def make_network(variant):
    """Makes a narrow network with random weights."""
    name, rng = NetworkName(variant, 0.0625), np.random.default_rng(3)
    shapes = jax.eval_shape(lambda key: init_parameters(name.build(), key, num_classes=4), jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.05, leaf.shape).astype(np.float32), shapes)
    mean = np.full((224, 224, 3), 120, np.float32)
    return Network(name=name, params=params, mean_image=mean, classes=tuple('abcd'), source='here')


@pytest.mark.parametrize('variant', ['paper', 'released'])
def test_compute_maps_matches_plain_network(variant, image):
    network = make_network(variant)
    maps, params = compute_maps(network, image), network.params
    x = image[None, 16:240, 16:240].astype(np.float32) - 120
    first = oracle.FIRST[variant](oracle.conv(x, params['conv1'], stride=4, pad=((0, 3), (0, 3))))
    second = oracle.SECOND[variant](oracle.conv(first, params['conv2'], pad=((2, 2), (2, 2)), groups=2))
    for layer, expected in zip(maps, (first, second), strict=False):
        np.testing.assert_allclose(layer.maps, expected[0], rtol=1e-4, atol=1e-4)
    assert [(layer.name, layer.maps.shape, layer.towers) for layer in maps] == [
        ('conv1', (27, 27, 6), 2),
        ('conv2', (13, 13, 16), 2),
        ('conv3', (13, 13, 24), 2),
        ('conv4', (13, 13, 24), 2),
        ('conv5', (6, 6, 16), 2),
    ]
    assert min(layer.maps.min() for layer in maps) == 0  # behind ReLU


def test_compute_maps_without_towers_has_one_group(image):
    assert [layer.towers for layer in compute_maps(make_network('one_weird_trick'), image)] == [1] * 5


def test_get_strongest_sorts_maps_of_one_tower():
    maps = np.zeros((1, 2, 6), np.float32)
    maps[0, 0] = [9, 9, 9, 1, 3, 2]
    layer = LayerMaps('conv1', maps, towers=2)
    np.testing.assert_array_equal(layer.get_strongest(1, count=2)[:, 0, 0], [3, 2])


def test_render_maps_goes_from_black_to_white():
    images = render_maps(np.array([[[0, 2, 4, -1]], [[0, 0, 0, 0]]], np.float32), tower=0)
    assert images[0, 0].tolist() == [[0, 0, 0], [0x2B, 0x6C, 0xB0], [255, 255, 255], [0, 0, 0]]
    assert not images[1].any()  # a map of zeros
