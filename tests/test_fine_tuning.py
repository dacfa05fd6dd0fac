"""A loaded network that is trained on: docs/library.md's own words, NumPy's softmax regression, the plain network."""

import dataclasses
import re

import cli
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from random_networks import network_of, save_run
from weights.networks import assert_same_params

import alexnet_jax
from alexnet_jax.errors import InputError
from alexnet_jax.library import TrainedNetwork
from alexnet_jax.training.step import cross_entropy

WIDTH = 0.03125


@pytest.fixture(scope='module')
def network():
    return network_of(width=WIDTH)


@pytest.fixture(scope='module')
def net(network):
    return TrainedNetwork(network)


@pytest.fixture(scope='module')
def crops():
    """Four images of blotches, uint8 (4, 224, 224, 3)."""
    small = np.random.default_rng(1).integers(0, 256, (4, 7, 7, 3), dtype=np.uint8)
    return small.repeat(32, axis=1).repeat(32, axis=2)


@pytest.mark.slow
def test_the_page_s_example_trains_the_classifier_alone(network, tiny, tiny_dir, tmp_path, monkeypatch):
    """On twelve photographs, dark ones and light ones."""
    monkeypatch.chdir(tmp_path)
    save_run(network, tmp_path / 'runs/two_device_demo', tiny, tiny_dir)
    labels = np.arange(12) % 2
    images = np.random.default_rng(0).integers(0, 128, (12, 256, 256, 3)) + 128 * labels[:, None, None, None]
    np.save('images.npy', images.astype(np.uint8))
    np.save('labels.npy', labels)
    page = (cli.ROOT / 'docs/library.md').read_text()
    (code,) = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    lines = [line for line in code.splitlines() if line]
    first, last = (next(i for i, line in enumerate(lines) if text in line) for text in ('optax.sgd', 'apply_updates'))
    assert last - first + 1 == 10  # as the page says

    losses, names = [], {}
    monkeypatch.setattr('builtins.print', lambda number, loss: losses.append(float(loss)))
    exec(code, names)
    monkeypatch.undo()
    assert len(losses) == 20 and np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    saved = alexnet_jax.load(tmp_path / 'cats_and_dogs.safetensors')
    assert saved.classes == ('cat', 'dog')
    fc8 = saved.network.params['fc8']
    assert fc8['kernel'].shape == (128, 2)
    assert_same_params(saved.network.params, network.params | {'fc8': fc8})  # all others, bit for bit
    assert (fc8['kernel'] != names['net'].network.params['fc8']['kernel']).any()
    assert_same_params({'fc8': fc8}, jax.device_get(names['learning']))
    assert [best[0][0] for best in saved.predict(images.astype(np.uint8), protocol='centre')] == ['cat', 'dog'] * 6


def test_apply_gradient_of_the_classifier_is_that_of_softmax_regression(net, network, crops):
    """In NumPy, of what fc7 gives: the mean over images of x (p - y)."""
    labels = np.array([2, 0, 1, 2])

    def compute_loss(fc8):
        return cross_entropy(net.apply(net.params | {'fc8': fc8}, crops), labels).mean()

    slopes = jax.grad(compute_loss)(net.params['fc8'])
    x = np.asarray(net.features(crops, 'fc7'), np.float64)
    logits = x @ network.params['fc8']['kernel'] + network.params['fc8']['bias']
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    apart = powers / powers.sum(axis=1, keepdims=True) - np.eye(3)[labels]
    expected = {'kernel': x.T @ apart / 4, 'bias': apart.mean(axis=0)}
    assert np.abs(expected['kernel']).max() > 1e-2
    for name, array in expected.items():
        np.testing.assert_allclose(slopes[name], array, rtol=0, atol=2e-5 * np.abs(array).max())


def test_apply_without_a_key_gives_the_logits_and_with_one_drops_units(net, network, crops):
    np.testing.assert_array_equal(net.apply(net.params, crops), net.logits(crops))
    np.testing.assert_array_equal(net.apply(network.params, crops[0]), net.logits(crops[0]))
    key = jax.random.key(7)
    found = net.apply(net.params, crops, dropout=key)
    x = np.asarray(net.features(crops, 'conv5'), np.float64).reshape(4, -1)
    for name, mask in zip(('fc6', 'fc7'), oracle.dropout_masks(key, 4, (128, 128)), strict=True):
        x = np.maximum(x @ network.params[name]['kernel'] + network.params[name]['bias'], 0) * mask
    expected = x @ network.params['fc8']['kernel'] + network.params['fc8']['bias']
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.abs(found - net.logits(crops)).max() > 1e-2 * np.abs(expected).max()


def test_with_classes_makes_the_classifier_anew_and_what_has_no_weights(network, crops):
    trunk = dataclasses.replace(
        network,
        params=network.params | {name: jax.tree.map(np.zeros_like, network.params[name]) for name in ('fc6', 'fc7')},
        untrained=('fc6', 'fc7', 'fc8'),
        classes=(),
        about={'step': 3, 'params_sha256': 'that of others'},
    )
    with pytest.raises(InputError, match=r'has no fc6'):
        TrainedNetwork(trunk).logits(crops)
    with pytest.raises(InputError, match=r'has no fc6'):
        TrainedNetwork(trunk).with_params(network.params)
    net = TrainedNetwork(trunk).with_classes(['cat', 'dog'], seed=3)
    assert net.classes == ('cat', 'dog') and net.logits(crops).shape == (4, 2)
    assert net.network.about == {} and net.network.source == 'random, changed'
    for name in ('fc6', 'fc7', 'fc8'):
        kernel = net.network.params[name]['kernel']
        assert kernel.std() == pytest.approx(0.01 * WIDTH**-0.5, rel=0.1)  # as strong a signal as at full width
        assert (kernel != network.params[name]['kernel'][:, : kernel.shape[1]]).any()
    convs = {name: leaves for name, leaves in network.params.items() if name.startswith('conv')}
    assert_same_params(net.network.params, convs)
    other = TrainedNetwork(trunk).with_classes(np.array(['cat', 'dog']), seed=4)
    assert other.classes == ('cat', 'dog') and {*map(type, other.classes)} == {str}
    assert (other.params['fc8']['kernel'] != net.params['fc8']['kernel']).any()


@pytest.mark.parametrize('classes', ['cat', [], ['cat', 'cat'], [1, 2], np.arange(2)])
def test_with_classes_refuses_what_is_no_list_of_names(net, classes):
    with pytest.raises(InputError, match='give a list of names, each once'):
        net.with_classes(classes)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda params: params | {'fc8': jax.tree.map(lambda x: x[..., :2], params['fc8'])}, 'fc8 has 2 outputs for 3'),
        (lambda params: params | {'conv1': {'kernel': params['conv1']['kernel']}}, 'does not hold .*conv1/bias'),
        (lambda params: params | {'fc6': jax.tree.map(lambda x: x / 0, params['fc6'])}, 'holds non-finite values'),
    ],
)
def test_with_params_refuses_what_is_of_another_network(net, change, message):
    with pytest.raises(InputError, match=message) as error:
        net.with_params(change(net.params))
    assert len(str(error.value).splitlines()) == 1


def test_with_params_leaves_the_network_as_it_was(net, network):
    other = net.with_params(jax.tree.map(lambda x: 2 * jnp.asarray(x), net.params))
    assert_same_params(jax.device_get(other.params), jax.tree.map(lambda x: 2 * x, network.params))
    for params in (net.network.params, jax.device_get(net.params)):
        assert_same_params(params, network.params)
