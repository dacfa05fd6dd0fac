"""Distances of images, in NumPy from the network's own features and by the plain network, with its gradient."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from random_networks import network_of
from weights import networks
from weights.foreign import lpips_tensors, write_torch_tensors

from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.perceptual import compare_stages, list_compared_stages
from alexnet_jax.library import TrainedNetwork
from alexnet_jax.model.ablations import ablate
from alexnet_jax.model.zoo import NETWORKS

WIDTH = 0.03125
STAGES = [f'conv{number}/relu' for number in range(1, 6)]


def make_network(variant):
    return dataclasses.replace(networks.network(variant, width=WIDTH), about={})


@pytest.fixture(scope='module', params=['one_weird_trick', 'released'])
def net(request):
    """One tower and two."""
    return TrainedNetwork(make_network(request.param))


@pytest.fixture(scope='module')
def images():
    """Three images of blotches, float32 (3, 224, 224, 3)."""
    small = np.random.default_rng(1).uniform(0, 255, (3, 7, 7, 3))
    return small.repeat(32, axis=1).repeat(32, axis=2).astype(np.float32)


def linear_layers(net, seed=0):
    """Random weights of the channels, a third of them 0, as LPIPS has."""
    random = np.random.default_rng(seed)
    return [random.uniform(-0.5, 1, net.layers[stage][-1]).clip(0).astype(np.float32) for stage in STAGES]


def slow_distance(ours, others, linear=None):
    """Place by place, of stages (h, w, c)."""
    total = 0.0
    for index, (a, b) in enumerate(zip(ours, others, strict=True)):
        a, b = (np.asarray(x, np.float64).reshape(-1, x.shape[-1]) for x in (a, b))
        places = []
        for one, other in zip(a, b, strict=True):
            one, other = (x / (np.sqrt((x**2).sum()) + 1e-10) for x in (one, other))
            places.append(((one - other) ** 2 * (1 if linear is None else linear[index])).sum())
        total += np.mean(places)
    return total


def test_distance_is_the_mean_over_places_of_normalised_differences(net, images, tmp_path):
    linear = linear_layers(net)
    write_torch_tensors(tmp_path / 'linear.pth', lpips_tensors(linear), legacy=True)
    rows = [*zip(*(np.asarray(net.features(images, stage)) for stage in STAGES), strict=True)]
    for weights, layers in ((None, None), (tmp_path / 'linear.pth', linear)):
        found = net.distance(images[:2], images[1:], weights=weights)
        assert found.shape == (2,) and found.dtype == jnp.float32
        expected = [slow_distance(*pair, layers) for pair in itertools.pairwise(rows)]
        assert min(expected) > 0.01
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_distance_of_one_image_and_many_is_that_of_each_pair(images):
    net = TrainedNetwork(make_network('one_weird_trick'))
    expected = net.distance(np.stack([images[0]] * 3), images)
    assert float(expected[0]) == 0 and expected[1:].min() > 0.01
    np.testing.assert_allclose(net.distance(images[0], images), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(net.distance(images, images[:1]), expected, rtol=1e-5, atol=1e-7)
    found = net.distance(images[1], images[0])
    assert found.shape == () and float(found) == pytest.approx(float(expected[1]), rel=1e-5)
    with pytest.raises(InputError, match=r'^3 images are compared with 2: give as many, or one$'):
        net.distance(images, images[1:])


def plain_distance(params, a, b):
    """By torchvision's network written plainly, for NumPy's and JAX's arrays."""

    def compute_stages(x):
        x = oracle.relu(oracle.conv(x, params['conv1'], stride=4, pad=((2, 2), (2, 2))))
        stages = [x]
        x = oracle.relu(oracle.conv(oracle.pool(x), params['conv2'], pad=((2, 2), (2, 2))))
        stages.append(x)
        x = oracle.pool(x)
        for name in ('conv3', 'conv4', 'conv5'):
            x = oracle.relu(oracle.conv(x, params[name], pad=((1, 1), (1, 1))))
            stages.append(x)
        return stages

    total = 0
    for x, y in zip(compute_stages(a), compute_stages(b), strict=True):
        x, y = (z / (jnp.sqrt((z**2).sum(axis=-1, keepdims=True)) + 1e-10) for z in (x, y))
        total += ((x - y) ** 2).sum(axis=-1).mean()
    return total


@pytest.mark.parametrize('size', [(64, 80), (40, 40)], ids=['64x80', '40x40, nothing behind the last stage'])
def test_distance_reads_whole_images_of_any_size(size):
    """In float64 by the plain network; the mean image is as large as a crop, so its colour is subtracted."""
    network = make_network('one_weird_trick')
    images = np.random.default_rng(3).uniform(0, 255, (2, *size, 3)).astype(np.float32)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), network.params)
        colour, std = network.mean_image.astype(np.float64).mean(axis=(0, 1)), np.array([0.229, 0.224, 0.225]) * 255
        expected = float(jax.jit(plain_distance)(params, *((images[:, None] - colour) / std)))
    assert expected > 0.01
    assert float(TrainedNetwork(network).distance(*images)) == pytest.approx(expected, rel=1e-5)


def test_distance_takes_the_mean_image_of_its_own_size():
    """Of crops the centre of a mean image of records, of records all of it: seen in images that equal it."""
    random = np.random.default_rng(4)
    mean = random.uniform(0, 255, (256, 256, 3)).astype(np.float32)
    net = TrainedNetwork(dataclasses.replace(make_network('released'), mean_image=mean))
    grey = dataclasses.replace(net.network, mean_image=np.full((256, 256, 3), 100, np.float32))
    for own in (mean[16:240, 16:240], mean):
        other = own + random.normal(0, 20, own.shape).astype(np.float32)
        expected = TrainedNetwork(grey).distance(own - own + 100, other - own + 100)
        assert float(net.distance(own, other)) == pytest.approx(float(expected), rel=1e-4)
    other[16:240, 16:240] = own[16:240, 16:240]  # still another at the edge
    assert float(net.distance(own, other)) > 0.001


def test_distance_refuses_images_of_two_sizes_and_too_small_ones():
    net = TrainedNetwork(make_network('one_weird_trick'))
    small, large = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 72, 3), np.uint8)
    with pytest.raises(InputError, match=r'^images of 64x64 are compared with some of 64x72: give all one size$'):
        net.distance(small, large)
    with pytest.raises(InputError, match=r'^images are 20x20, so small that nothing is left of them at conv2/pool'):
        net.distance(small[:20, :20], small[:20, :20])
    with pytest.raises(InputError, match=r'^images have the shape \(64, 64\): give one of \(height, width, 3\)'):
        net.distance(small[..., 0], small[..., 0])
    local = TrainedNetwork(network_of('cifar10_11pct', width=0.125))
    with pytest.raises(InputError, match=r'^images are 64x64: cifar10_11pct has layers that fit 24x24 alone'):
        local.distance(small, small)


def test_distance_gradient_equals_finite_differences_of_the_plain_network(images):
    """In float64, of torchvision's network, under jit."""
    net = TrainedNetwork(make_network('one_weird_trick'))
    found = jax.jit(jax.grad(net.distance))(images[0], images[1])
    direction, step = np.random.default_rng(2).standard_normal(images[0].shape), 1e-4  # pixels
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), net.network.params)
        std = np.array([0.229, 0.224, 0.225]) * 255

        @jax.jit
        def compute(image):
            return plain_distance(params, *((x - net.network.mean_image)[None] / std for x in (image, images[1])))

        ends = [float(compute(images[0] + sign * step * direction)) for sign in (1, -1)]
    expected = (ends[0] - ends[1]) / (2 * step)
    assert abs(expected) > 1e-5
    # Along a random direction a gradient has its norm as standard deviation: that is what an error is small beside. In
    # float32 a rounding moves some maxima of pooling, worth 1e-4 of it.
    assert float(np.vdot(found, direction)) == pytest.approx(expected, abs=float(5e-4 * np.linalg.norm(found)))


def test_compare_stages_has_a_gradient_where_nothing_is_active():
    """At one of two places all channels of one image, or of both, are 0."""
    one = np.array([[[[0, 0, 0], [3, 4, 0]]]], np.float32)
    other = np.array([[[[0, 2, 0], [0, 0, 5]]]], np.float32)
    value, slope = jax.value_and_grad(lambda x: compare_stages([x], [other], None)[0])(one)
    assert float(value) == pytest.approx((1 + 2) / 2)
    # Of |x/|x| - e3|^2 / 2 places at x = (3, 4, 0): -(e3 - x (x e3) / 25) / 5.
    np.testing.assert_allclose(slope, [[[[0, 0, 0], [0, 0, -1 / 5]]]], atol=1e-7)
    assert not np.asarray(jax.grad(lambda x: compare_stages([x], [0 * other], None).sum())(0 * one)).any()


@pytest.mark.parametrize('name', NETWORKS)
def test_list_compared_stages_is_behind_each_convolution(name):
    variant = NETWORKS[name]
    assert list_compared_stages(variant) == tuple(f'{conv.name}/relu' for conv in variant.convs)
    bounded = tuple(f'{conv.name}/tanh' for conv in variant.convs)
    assert list_compared_stages(ablate(variant, ('relu',))) == bounded
