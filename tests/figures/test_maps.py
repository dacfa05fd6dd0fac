"""Maps of an image against the plain network's, and how they are shown."""

import jax
import numpy as np
import oracle
import pytest

from alexnet_jax.figures.maps import LayerMaps, map_pictures, maps_of
from alexnet_jax.model.alexnet import init_parameters
from alexnet_jax.model.network import Network, NetworkName


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)


@pytest.mark.parametrize('variant', ['paper', 'released'])
def test_maps_are_what_the_next_convolution_reads(variant, image):
    name = NetworkName(variant, 0.0625)
    params = jax.device_get(init_parameters(name.build(), jax.random.key(3), num_classes=4))
    mean = np.full((224, 224, 3), 120, np.float32)
    network = Network(name=name, params=params, mean_image=mean, classes=tuple('abcd'), source='here')
    found = maps_of(network, image)
    x = image[None, 16:240, 16:240].astype(np.float32) - 120
    first = oracle.FIRST[variant](oracle.conv(x, params['conv1'], stride=4, pad=((0, 3), (0, 3))))
    second = oracle.SECOND[variant](oracle.conv(first, params['conv2'], pad=((2, 2), (2, 2)), groups=2))
    for layer, expected in zip(found, (first, second), strict=False):
        np.testing.assert_allclose(layer.maps, expected[0], rtol=1e-4, atol=1e-4)
    assert [(layer.name, layer.maps.shape, layer.towers) for layer in found] == [
        ('conv1', (27, 27, 6), 2),
        ('conv2', (13, 13, 16), 2),
        ('conv3', (13, 13, 24), 2),
        ('conv4', (13, 13, 24), 2),
        ('conv5', (6, 6, 16), 2),
    ]
    assert min(layer.maps.min() for layer in found) == 0  # behind ReLU


def test_a_network_without_towers_has_one_group(image):
    name = NetworkName('one_weird_trick', 0.0625)
    params = jax.device_get(init_parameters(name.build(), jax.random.key(3), num_classes=4))
    network = Network(
        name=name, params=params, mean_image=np.zeros((224, 224, 3), np.float32), classes=tuple('abcd'), source='here'
    )
    assert [layer.towers for layer in maps_of(network, image)] == [1] * 5


def test_the_strongest_maps_of_a_tower():
    maps = np.zeros((1, 2, 6), np.float32)
    maps[0, 0] = [9, 9, 9, 1, 3, 2]
    layer = LayerMaps('conv1', maps, towers=2)
    np.testing.assert_array_equal(layer.strongest(1, count=2)[:, 0, 0], [3, 2])


def test_maps_go_from_black_over_the_tower_to_white():
    pictures = map_pictures(np.array([[[0, 2, 4, -1]], [[0, 0, 0, 0]]], np.float32), tower=0)
    assert pictures[0, 0].tolist() == [[0, 0, 0], [0x2B, 0x6C, 0xB0], [255, 255, 255], [0, 0, 0]]
    assert not pictures[1].any()  # a map that says nothing
