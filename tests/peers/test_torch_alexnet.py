"""The PyTorch peer is the same network: logits and gradients of the same weights, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.data.augment import normalise
from alexnet_jax.model.alexnet import AlexNet
from alexnet_jax.model.zoo import PAPER
from alexnet_jax.training.step import cross_entropy

torch = pytest.importorskip('torch')
from alexnet_jax.benchmark.peers import torch_alexnet  # noqa: E402 - it imports torch

WIDTH, CLASSES, ROWS = 0.0625, 7, 3


@pytest.fixture(scope='module')
def problem():
    """Weights, a batch, and this project's logits and gradients."""
    random = np.random.default_rng(0)
    peer = torch_alexnet.TorchAlexNet(width=WIDTH, classes=CLASSES)
    params = {
        name: {'kernel': _kernel(layer.weight.shape, random), 'bias': random.normal(0.1, 0.1, layer.bias.shape)}
        for name, layer in peer.named_children()
    }
    images = random.integers(0, 256, (ROWS, 224, 224, 3), dtype=np.uint8)
    labels, lighting = random.integers(0, CLASSES, ROWS), random.normal(0, 10, (ROWS, 3))
    mean = random.uniform(100, 150, (224, 224, 3))
    with jax.enable_x64(True):

        @jax.jit
        def loss(params):
            x = normalise(jnp.asarray(images), jnp.asarray(mean), lighting=jnp.asarray(lighting))
            logits = AlexNet(PAPER.scaled(WIDTH), CLASSES).apply({'params': params}, x)
            return cross_entropy(logits, jnp.asarray(labels)).mean(), logits

        gradients, logits = jax.grad(loss, has_aux=True)(params)
    return {
        'params': params,
        'batch': (images.transpose(0, 3, 1, 2), labels, lighting),
        'mean': mean,
        'logits': np.asarray(logits),
        'gradients': jax.tree.map(np.asarray, gradients),
    }


def _kernel(shape, random):
    """Ours for PyTorch's shape, with a signal that neither dies nor explodes."""
    ours = shape[::-1] if len(shape) == 2 else (*shape[2:], shape[1], shape[0])
    return random.normal(0, (2 / np.prod(shape[1:])) ** 0.5, ours)


def _theirs(array):
    return np.ascontiguousarray(
        array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    )


@pytest.mark.parametrize('form', ['eager', 'eager_channels_last', 'best'])
def test_torch_alexnet_gives_our_logits_and_gradients(problem, form):
    form = torch_alexnet.FORMS[form]
    peer = torch_alexnet.TorchAlexNet(width=WIDTH, classes=CLASSES, norm=form.norm).double().eval()
    for name, layer in peer.named_children():
        layer.weight.data = torch.from_numpy(_theirs(problem['params'][name]['kernel']))
        layer.bias.data = torch.from_numpy(problem['params'][name]['bias'])
    peer.mean_image = torch.from_numpy(problem['mean'].transpose(2, 0, 1).copy())
    peer = peer.to(memory_format=form.layout)
    images, labels, lighting = map(torch.from_numpy, problem['batch'])
    logits = peer(images.contiguous(memory_format=form.layout), lighting)
    torch.nn.functional.cross_entropy(logits, labels).backward()
    assert np.abs(logits.detach().numpy() - problem['logits']).max() < 1e-12 * np.abs(problem['logits']).max()
    for name, layer in peer.named_children():
        for theirs, ours in ((layer.weight, 'kernel'), (layer.bias, 'bias')):
            expected = _theirs(problem['gradients'][name][ours])
            assert np.abs(theirs.grad.numpy() - expected).max() < 1e-12 * np.abs(expected).max(), (name, ours)


def test_dropout_keeps_values_in_training_and_halves_in_testing():
    peer = torch_alexnet.TorchAlexNet(width=WIDTH, classes=CLASSES)
    ones = torch.ones(1000)
    kept = peer.train()._dropout(ones)
    assert set(kept.tolist()) == {0.0, 1.0}
    assert 400 < kept.sum() < 600
    assert peer.eval()._dropout(ones).tolist() == [0.5] * 1000


def test_make_optimizer_makes_the_papers_update_at_a_constant_rate():
    model = torch_alexnet.TorchAlexNet(width=1 / 32, classes=2)
    optimizer = torch_alexnet.make_torch_optimizer(model, fused=torch_alexnet.FORMS['best'].fused_update)
    weight, bias = model.fc8.weight, model.fc8.bias
    for parameter in (weight, bias):
        parameter.data.fill_(1e4)  # so that the decay, 5e-6 of it, shows beside the gradients
    w, b = weight.detach().clone(), bias.detach().clone()
    v, u = torch.zeros_like(w), torch.zeros_like(b)
    for seed in range(3):
        torch.manual_seed(seed)
        weight.grad, bias.grad = torch.randn_like(w), torch.randn_like(b)
        v = 0.9 * v - 5e-4 * 0.01 * w - 0.01 * weight.grad
        u = 0.9 * u - 0.01 * bias.grad
        w, b = w + v, b + u
        optimizer.step()
    torch.testing.assert_close(weight.detach(), w)
    torch.testing.assert_close(bias.detach(), b)
