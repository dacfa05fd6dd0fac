"""Tests the specialisation against counting all assignments, maps against the plain network's, and their rendering."""

import dataclasses
import itertools
import types

import jax
import numpy as np
import oracle
import pytest
import scipy.stats

from alexnet_jax.library import TrainedNetwork
from alexnet_jax.model.alexnet import init_parameters
from alexnet_jax.model.network import Network, NetworkName
from alexnet_jax.report.drawing import FigureCollection
from alexnet_jax.report.pictures import (
    compute_maps,
    explain_image,
    measure_initial_share,
    measure_specialisation,
    render_filters,
    render_maps,
    select_strongest_maps,
    tile_images,
)
from alexnet_jax.report.sections import make_maps_section


def make_kernel(shares):
    """Makes 1x1 filters with these chromatic shares: sqrt(1 - s) along grey and sqrt(s) across it."""
    grey, colour = np.ones(3) / np.sqrt(3), np.array([1, -1, 0]) / np.sqrt(2)
    return np.stack([np.sqrt(1 - s) * grey + np.sqrt(s) * colour for s in shares], axis=-1)[None, None]


def test_measure_specialisation_matches_all_assignments():
    shares = [0.1, 0.3, 0.2, 0.15, 0.5, 0.25, 0.9, 0.8]
    stats = measure_specialisation(make_kernel(shares))
    np.testing.assert_allclose(stats.shares, [shares[:4], shares[4:]], atol=1e-12)
    assert stats.means == pytest.approx((0.1875, 0.6125))
    assert stats.medians == pytest.approx((0.175, 0.65))
    assert stats.difference == pytest.approx(0.425)
    chosen = [set(four) for four in itertools.combinations(range(8), 4)]
    sums = [abs(sum(shares[i] for i in range(8) if i in four) * 2 - sum(shares)) / 4 for four in chosen]
    exact = sum(value >= 0.425 - 1e-9 for value in sums) / len(sums)
    assert exact == 4 / 70  # the split itself, one as good, and both mirrored
    assert stats.p == pytest.approx(exact, abs=0.01)  # four standard deviations of 9999 draws


def test_measure_specialisation_of_equal_towers_is_zero():
    stats = measure_specialisation(make_kernel([0.2, 0.7, 0.7, 0.2]))
    assert stats.difference == pytest.approx(0, abs=1e-12)
    assert stats.p == 1.0


def test_measure_specialisation_has_few_false_positives():
    rng = np.random.default_rng(1)
    ps = [measure_specialisation(rng.normal(size=(3, 3, 3, 12)), permutations=199).p for _ in range(200)]
    assert 2 <= sum(p <= 0.05 for p in ps) <= 20  # 10 expected


def test_measure_initial_share_is_squared_cosine():
    start = np.zeros((1, 2, 1, 3))
    start[0, :, 0] = [[1, 1, 0], [0, 0, 0]]
    now = np.zeros((1, 2, 1, 3))
    now[0, :, 0] = [[-3, 1, 0], [0, 1, 2]]  # mirrored and longer; turned by 45 degrees; from nothing
    assert measure_initial_share(now, start) == pytest.approx((1 + 1 / 2 + 0) / 3)


def test_render_filters_is_around_middle_grey():
    kernel = np.zeros((1, 2, 3, 2))
    kernel[0, 0, :, 0], kernel[0, 1, :, 0] = (0.5, 0, -0.25), (-0.5, 0.25, 0)
    images = render_filters(kernel)
    np.testing.assert_array_equal(images[0], [[[255, 128, 64], [0, 191, 128]]])
    assert (images[1] == 128).all()  # a filter of zeros


@pytest.mark.parametrize(('count', 'columns'), [(48, 16), (24, 12), (7, 7), (34, 16)])
def test_tile_images_fills_rows_where_possible(count, columns):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(11, 1).repeat(11, 2).repeat(3, 3)
    sheet = tile_images(images, max_columns=16)
    assert sheet.shape == (-(-count // columns) * 59 - 4, min(count, columns) * 59 - 4, 4)
    assert tuple(sheet[54, 54]) == (0, 0, 0, 255) and tuple(sheet[0, 55]) == (0, 0, 0, 0)
    assert tuple(sheet[0, 59]) == (1, 1, 1, 255)
    if count > columns:
        assert tuple(sheet[59, 0]) == (columns,) * 3 + (255,)


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


@pytest.mark.parametrize('variant', ['released', pytest.param('paper', marks=pytest.mark.repeats)])
@pytest.mark.slow
def test_compute_maps_matches_plain_network(variant, image):
    network = make_network(variant)
    maps, params = compute_maps(network, image), network.params
    x = image[None, 16:240, 16:240].astype(np.float32) - 120
    first = oracle.FIRST[variant](oracle.conv(x, params['conv1'], stride=4, pad=((0, 3), (0, 3))))
    second = oracle.SECOND[variant](oracle.conv(first, params['conv2'], pad=((2, 2), (2, 2)), groups=2))
    for name, expected in {'conv1': first, 'conv2': second}.items():
        np.testing.assert_allclose(maps[name], expected[0], rtol=1e-4, atol=1e-4)
    assert {name: layer.shape for name, layer in maps.items()} == {
        'conv1': (27, 27, 6),
        'conv2': (13, 13, 16),
        'conv3': (13, 13, 24),
        'conv4': (13, 13, 24),
        'conv5': (6, 6, 16),
    }
    assert min(layer.min() for layer in maps.values()) == 0  # behind ReLU


def test_make_maps_section_without_towers_has_one_sheet_a_layer(image):
    run = types.SimpleNamespace(name='run', network=make_network('one_weird_trick'), has_towers=False)
    section = make_maps_section(run, FigureCollection(), image, 'an image')
    assert [len(sheets) for _, sheets in section.data['layers']] == [1] * 5
    assert list(section.data['explained']) == ['gradient', 'integrated_gradients', 'guided', 'deconvnet', 'grad_cam']
    assert section.data['answer'] in 'abcd'


@pytest.mark.slow
def test_explain_image_paints_the_gradient_of_the_likeliest_class(image):
    """A map's darkest red is where the library's own gradient is steepest; the rest is as pale as it is flat."""
    network = make_network('released')
    label, painted = explain_image(network, image)
    net = TrainedNetwork(network)
    assert label == int(np.argmax(net.logits(image)))
    slopes = np.abs(jax.grad(lambda pixels: net.logits(pixels)[label])(image.astype(np.float32)))[16:240, 16:240]
    strength, shown = slopes.max(axis=-1).ravel(), painted['gradient'].astype(int)
    assert all(one.shape == (224, 224, 3) and one.dtype == np.uint8 for one in painted.values())
    redness = (shown[..., 0] - shown[..., 2]).ravel()
    assert redness[strength.argmax()] == redness.max() > 100
    assert scipy.stats.spearmanr(strength, redness).statistic > 0.95
    bounded = dataclasses.replace(network, name=dataclasses.replace(network.name, without=('relu',)))
    assert list(explain_image(bounded, image)[1]) == ['gradient', 'integrated_gradients', 'grad_cam']


def test_select_strongest_maps_sorts_by_mean():
    maps = np.zeros((1, 2, 3), np.float32)
    maps[0, 0] = [1, 3, 2]
    np.testing.assert_array_equal(select_strongest_maps(maps, count=2)[:, 0, 0], [3, 2])


def test_render_maps_goes_from_black_to_white():
    images = render_maps(np.array([[[0, 2, 4, -1]], [[0, 0, 0, 0]]], np.float32), tower=0)
    assert images[0, 0].tolist() == [[0, 0, 0], [0x2B, 0x6C, 0xB0], [255, 255, 255], [0, 0, 0]]
    assert not images[1].any()  # a map of zeros
