"""The package lpips in PyTorch, without torchvision and without a download, on a network's own convolutions."""

import sys
import types

import pytest
import torch
from peers.torchvision_alexnet import Alexnet
from weights.foreign import torchvision_tensors


def import_lpips():
    """Imports it; it asks torchvision for its alexnet, and is given the one that is written down here."""
    with pytest.MonkeyPatch.context() as patch:
        models = types.SimpleNamespace(alexnet=lambda pretrained: Alexnet(width=1, classes=1))
        patch.setitem(sys.modules, 'torchvision', types.SimpleNamespace(models=models))
        return pytest.importorskip('lpips', reason='it is not installed: pip install --no-deps lpips tqdm')


def make_peer(lpips, net, *, learned):
    """LPIPS with the convolutions of `net`, torchvision's, and its own linear layers where `learned`."""
    peer = lpips.LPIPS(lpips=learned, pnet_rand=True, verbose=False)
    tensors = torchvision_tensors(net.network.params)
    for part, layer in enumerate((0, 3, 6, 8, 10), 1):
        convolution = getattr(getattr(peer.net, f'slice{part}'), str(layer))
        for name in ('weight', 'bias'):
            getattr(convolution, name).data = torch.from_numpy(tensors[f'features.{layer}.{name}'].copy())
    return peer


def to_lpips(images):
    """Turns pixels (n, h, w, 3), 0..255, into what it reads: (n, 3, h, w), -1..1."""
    return torch.tensor(images.transpose(0, 3, 1, 2)) / 127.5 - 1
