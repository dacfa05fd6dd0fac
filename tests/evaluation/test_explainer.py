"""Explanations of whole networks: as a person gets them, and whether they depend on what was learned."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from evaluation import slow_network as slow
from random_networks import network_of

from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.attribution import METHODS
from alexnet_jax.evaluation.explainer import Explainer, Settings, find_half, list_peaks, make_maps
from alexnet_jax.evaluation.randomisation import correlate_ranks, iter_randomised
from alexnet_jax.library import TrainedNetwork
from alexnet_jax.model.alexnet import AlexNet
from alexnet_jax.model.network import Network, NetworkName
from alexnet_jax.model.zoo import NETWORKS
from alexnet_jax.sharding.mesh import make_mesh


def make_quadrants(count, seed):
    """Noise around 128 with a bright square of 3x3 in one of four quadrants, which is the class; its corner."""
    random = np.random.default_rng(seed)
    images = random.normal(128, 10, (count, slow.SIZE, slow.SIZE, 3))
    labels = random.integers(0, 4, count)
    corners = np.stack([labels // 2, labels % 2], axis=1) * 4 + random.integers(1, 3, (count, 2)) - 1
    for image, (row, column) in zip(images, corners, strict=True):
        image[row : row + 3, column : column + 3] += 80
    return np.clip(images, 0, 255).astype(np.uint8), labels, corners


def train(images, labels, steps=300):
    """Gradient descent with momentum on all images at once; float32 parameters."""
    model = AlexNet(slow.VARIANT, slow.CLASSES)
    x = jnp.asarray((images.astype(np.float32) - 128) / 64)
    params = jax.tree.map(jnp.float32, slow.make_parameters())

    @jax.jit
    def update(params, velocity):
        def loss(params):
            logits = model.apply({'params': params}, x)
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()

        velocity = jax.tree.map(lambda v, g: 0.9 * v - 0.05 * g, velocity, jax.grad(loss)(params))
        return jax.tree.map(jnp.add, params, velocity), velocity

    velocity = jax.tree.map(jnp.zeros_like, params)
    for _ in range(steps):
        params, velocity = update(params, velocity)
    return jax.tree.map(np.asarray, params)


@pytest.fixture(scope='module')
def quadrants():
    """A network that has learned to say in which quadrant a bright square is."""
    with pytest.MonkeyPatch.context() as patch:
        variant = dataclasses.replace(slow.VARIANT, pixel_std=(64.0, 64.0, 64.0))
        patch.setitem(NETWORKS, 'quadrants', variant)
        images, labels, _ = make_quadrants(64, 0)
        mean = np.full((slow.SIZE, slow.SIZE, 3), 128, np.float32)
        yield Network(
            name=NetworkName('quadrants'),
            params=train(images, labels),
            mean_image=mean,
            classes=('top left', 'top right', 'bottom left', 'bottom right'),
            source='quadrants',
        )


def explain_all(explainer, params, images, labels):
    found = {method: explainer.explain(params, images, labels, method=method) for method in METHODS}
    return {method: make_maps(values, method=method, size=slow.SIZE) for method, values in found.items()}


@pytest.fixture(scope='module')
def explained(quadrants):
    """The explainer, eight other images as it reads them, their classes, corners and maps."""
    images, labels, corners = make_quadrants(8, 1)
    explainer = Explainer(quadrants, Settings(window=3, stride=1))
    x, labels = explainer.prepare(images), labels.astype(np.int32)
    logits = explainer.compute_logits(quadrants.params, x)
    assert (np.argmax(logits, axis=1) == labels).mean() > 0.8  # it has learned
    return explainer, x, labels, corners, explain_all(explainer, quadrants.params, x, labels)


def test_maps_find_the_square_that_makes_the_class(explained):
    """Occlusion and parts of the logit are far larger in the 3x3 square; a gradient alone need not be."""
    *_, corners, maps = explained
    inside = np.zeros((8, slow.SIZE, slow.SIZE), bool)
    for one, (row, column) in zip(inside, corners, strict=True):
        one[row : row + 3, column : column + 3] = True
    for method, times in {'occlusion': 4, 'integrated_gradients': 8, 'deconvnet': 1.5}.items():
        magnitude = np.abs(maps[method])
        assert magnitude[inside].mean() > times * magnitude[~inside].mean(), method
    peaks = list_peaks(maps['occlusion'])
    assert np.mean([inside[n, row, column] for n, (row, column) in enumerate(peaks)]) >= 0.75


def test_maps_change_when_layers_are_drawn_anew(quadrants, explained):
    """The check of Adebayo et al.: of each method, from the classifier alone down to all layers."""
    explainer, x, labels, _, maps = explained
    agreement = {method: {} for method in METHODS}
    for layer, params in iter_randomised(quadrants, seed=0):
        spoilt = explain_all(explainer, params, x, labels)
        for method, own in maps.items():
            values = [correlate_ranks(*np.abs(pair)) for pair in zip(own, spoilt[method], strict=True)]
            agreement[method][layer] = np.mean([value for value in values if value is not None])
    same = explain_all(explainer, quadrants.params, x, labels)
    for method, values in agreement.items():
        assert list(values) == ['fc8', 'fc6', 'conv2', 'conv1']
        assert all(correlate_ranks(*pair) == pytest.approx(1) for pair in zip(maps[method], same[method], strict=True))
        assert values['conv1'] < 0.5, (method, values)
        assert values['conv1'] < values['fc8'] + 0.05, (method, values)


def test_iter_randomised_goes_from_the_top_down_and_keeps_the_spread(quadrants):
    layers = ['conv1', 'conv2', 'fc6', 'fc8']
    for count, (layer, params) in enumerate(iter_randomised(quadrants, seed=0), start=1):
        assert layer == layers[-count]
        for name in layers[:-count]:
            assert params[name] is quadrants.params[name]
        for name in layers[-count:]:
            own, drawn = quadrants.params[name]['kernel'], params[name]['kernel']
            assert drawn.dtype == np.float32 and drawn.shape == own.shape
            assert abs(np.corrcoef(own.ravel(), drawn.ravel())[0, 1]) < 0.35
            assert drawn.std() == pytest.approx(own.std(), rel=0.3)
    assert set(params['conv2']['bias']) == {np.float32(0.1)} and not params['conv1']['bias'].any()
    again = dict(iter_randomised(quadrants, seed=0))
    np.testing.assert_array_equal(again['conv1']['fc6']['kernel'], params['fc6']['kernel'])


def test_correlate_ranks_equals_scipys():
    random = np.random.default_rng(0)
    for _ in range(20):
        one, other = random.integers(0, 5, (2, 6, 7)).astype(np.float32)  # with many ties
        expected = scipy.stats.spearmanr(one.ravel(), other.ravel()).statistic
        assert correlate_ranks(one, other) == pytest.approx(expected, abs=1e-12)
    assert correlate_ranks(one, np.exp(one)) == pytest.approx(1)
    assert correlate_ranks(one, np.ones_like(one)) is None
    assert correlate_ranks(one, one * np.nan) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    'variant',
    [*(pytest.param(name, marks=pytest.mark.repeats) for name in ('released', 'one_weird_trick')), 'cifar10_80sec'],
)
def test_explainer_explains_real_networks(variant):
    """Shapes, and the gradient that the library's own differentiation gives, by other operations."""
    network = network_of(variant, width=1 if variant.startswith('cifar') else 0.03125)
    size = network.variant.input_size
    explainer = Explainer(network, Settings(window=size // 2, stride=size // 4, steps=3))
    small = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    crops = np.asarray(jax.image.resize(small.astype(np.float32), (2, size, size, 3), 'linear')).astype(np.uint8)
    x, labels = explainer.prepare(crops), np.array([1, 2], np.int32)
    found = {method: explainer.explain(network.params, x, labels, method=method) for method in METHODS}
    net = TrainedNetwork(network)
    logits = net.logits(crops)
    np.testing.assert_allclose(explainer.compute_logits(network.params, x), logits, rtol=1e-4, atol=1e-5)
    slopes = jax.grad(lambda images: net.logits(images)[[0, 1], labels].sum())(crops.astype(np.float32))
    expected = np.asarray(slopes) * np.array(network.variant.pixel_std)  # of the input, not of pixels
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found['gradient'], expected, atol=1e-4 * np.abs(expected).max())
    for method, values in found.items():
        assert values.dtype == np.float32 and np.isfinite(values).all() and values.any(), method
        maps = make_maps(values, method=method, size=size)
        assert maps.shape == (2, size, size)
    if variant == 'released':
        assert found['grad_cam'].shape == (2, 13, 13)


def test_make_maps_sums_parts_and_takes_the_largest_magnitude_of_the_rest():
    values = np.array([1.0, -3.0, 0.5], np.float32).reshape(1, 1, 1, 3)
    assert make_maps(values, method='integrated_gradients', size=1).tolist() == [[[-1.5]]]
    for method in ('gradient', 'guided', 'deconvnet'):
        assert make_maps(values, method=method, size=1).tolist() == [[[3]]]
    coarse = np.array([[[0, 1], [0, 1]]], np.float32)
    np.testing.assert_allclose(make_maps(coarse, method='grad_cam', size=4)[0], [[0, 0.25, 0.75, 1]] * 4)
    assert make_maps(coarse, method='occlusion', size=2) is coarse


def test_find_half_counts_the_fewest_pixels():
    assert find_half(np.array([[5, -1], [2, 2]])) == 1 / 4
    assert find_half(np.array([[1, -1], [1, 1]])) == 2 / 4
    assert find_half(np.zeros((2, 2))) is None
    assert list_peaks(np.array([[[0, 1], [3, 3]], [[0, 0], [0, 0]]])) == [[1, 0], [0, 0]]


def test_settings_choose_a_seventh_and_half_of_it():
    assert Settings().choose_square(224) == {'window': 32, 'stride': 16}
    assert Settings(window=5).choose_square(24) == {'window': 5, 'stride': 2}
    assert Settings().choose_square(5) == {'window': 1, 'stride': 1}
    with pytest.raises(InputError, match=r'^--window=25 is larger than the crops of 24x24'):
        Settings(window=25).choose_square(24)


@pytest.fixture(scope='module')
def slow_maps():
    """The network of slow_network.py in float64, four images, their classes, and what one device makes of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, 'slow', slow.VARIANT)
        mean = np.zeros((slow.SIZE, slow.SIZE, 3), np.float32)
        network = Network(
            name=NetworkName('slow'),
            params=slow.make_parameters(),
            mean_image=mean,
            classes=tuple('abcd'),
            source='slow',
        )
        images, classes = slow.make_images(4), np.array([0, 3, 1, 1], np.int32)
        yield network, images, classes, explain_in_float64(network, images, classes, mesh=(1, 1))


def explain_in_float64(network, images, classes, *, mesh):
    """{method: (4, ...)}, and the logits."""
    explainer = Explainer(network, Settings(window=3, stride=2, steps=3), make_mesh(*mesh))
    with jax.enable_x64(True):
        params = explainer.place(network.params)
        found = {method: explainer.explain(params, images, classes, method=method) for method in METHODS}
        return found | {'logits': explainer.compute_logits(params, images)}


@pytest.mark.parametrize(
    'mesh', [(2, 2), *(pytest.param(mesh, marks=pytest.mark.repeats) for mesh in ((1, 2), (2, 1)))]
)
def test_explain_gives_the_same_on_any_mesh(slow_maps, mesh):
    """One device is compared with NumPy in test_attribution.py. Occlusion's maps are float32."""
    *given, wanted = slow_maps
    for method, found in explain_in_float64(*given, mesh=mesh).items():
        expected = wanted[method]
        assert expected.any() and found.dtype == expected.dtype == (np.float64, np.float32)[method == 'occlusion']
        apart = np.abs(found - expected).max() / np.abs(expected).max()
        assert apart <= (1e-6 if method == 'occlusion' else 1e-12), (method, apart)
