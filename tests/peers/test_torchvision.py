"""torchvision's alexnet, written down here, and the one-tower network are the same: outputs, gradients, files.

Where torchvision itself is installed, its own is taken: docs/weights.md has the figures of both.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from weights.foreign import torchvision_tensors
from weights.networks import WIDTH

from alexnet_jax.data.augment import normalise
from alexnet_jax.model.alexnet import AlexNet
from alexnet_jax.training.step import cross_entropy
from alexnet_jax.weights import torchvision as files
from alexnet_jax.weights.open_weights import open_weights

torch = pytest.importorskip('torch', reason="PyTorch is not installed: pip install 'alexnet-jax[torch]'")
safetensors_torch = pytest.importorskip('safetensors.torch')
from peers.torchvision_alexnet import Alexnet  # noqa: E402 - it imports torch

nn = torch.nn


def make_torchvision():
    """torchvision's own, full width."""
    models = pytest.importorskip('torchvision.models', reason='torchvision is not installed')
    return models.alexnet(weights=None)


@pytest.fixture(params=[lambda: Alexnet(width=WIDTH, classes=7), make_torchvision], ids=['written down', 'torchvision'])
def peer(request):
    """The network with PyTorch's own random weights, testing: dropout leaves it alone."""
    torch.manual_seed(0)
    return request.param().eval()


@pytest.fixture
def crops():
    return np.random.default_rng(1).integers(0, 256, (3, 224, 224, 3)).astype(np.float32)


LABELS = np.array([0, 3, 6])


def torch_input(crops):
    """torchvision/transforms/_presets.py: pixels of 0..1, Normalize."""
    x = torch.from_numpy(crops.transpose(0, 3, 1, 2).copy()) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean[:, None, None]) / std[:, None, None]


def test_one_weird_trick_gives_torchs_logits_and_gradients(peer, crops, tmp_path, capsys):
    torch.save(peer.state_dict(), tmp_path / 'w.pth')
    net = open_weights(tmp_path / 'w.pth')
    assert net.name.variant == 'one_weird_trick'

    @jax.jit
    def loss(params):
        x = normalise(jnp.asarray(crops), jnp.asarray(net.mean_image), std=net.variant.pixel_std)
        logits = AlexNet(net.variant, len(net.classes)).apply({'params': params}, x)
        return cross_entropy(logits, jnp.asarray(LABELS)).mean(), logits

    gradients, logits = jax.grad(loss, has_aux=True)(net.params)
    theirs = peer(torch_input(crops))
    nn.functional.cross_entropy(theirs, torch.from_numpy(LABELS)).backward()
    errors = {'logits': np.abs(theirs.detach().numpy() - logits).max() / np.abs(logits).max()}
    ours = torchvision_tensors(jax.tree.map(np.asarray, gradients))
    for name, parameter in peer.named_parameters():
        errors[name] = np.abs(parameter.grad.numpy() - ours[name]).max() / np.abs(ours[name]).max()
    with capsys.disabled():
        print(f' {sum(p.numel() for p in peer.parameters()):,} parameters, worst of logits and gradients:', end=' ')
        print(f'{max(errors.values()):.1e} ({max(errors, key=errors.get)})', end=' ')
    assert len(errors) == 17
    assert max(errors.values()) < 1e-5, errors


def test_save_torchvision_loads_in_torch(peer, crops, tmp_path):
    torch.save(peer.state_dict(), tmp_path / 'w.pth')
    expected = peer(torch_input(crops)).detach()
    files.save_torchvision(open_weights(tmp_path / 'w.pth'), tmp_path / 'w.safetensors')
    for parameter in peer.parameters():
        parameter.data.zero_()
    peer.load_state_dict(safetensors_torch.load_file(tmp_path / 'w.safetensors'))  # strict: every name, no other
    assert torch.equal(peer(torch_input(crops)), expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_read_torch_reads_other_types_of_torch(dtype, tmp_path):
    peer = Alexnet(width=WIDTH, classes=3).to(dtype)
    torch.save({'state_dict': peer.state_dict(), 'epoch': 3}, tmp_path / 'w.pth')
    net = open_weights(tmp_path / 'w.pth')
    expected = peer.features[3].weight.detach().float().numpy()
    np.testing.assert_array_equal(net.params['conv2']['kernel'], expected.transpose(2, 3, 1, 0))


@pytest.mark.parametrize(
    'save',
    [
        lambda peer, path: torch.save(dict(peer.named_parameters()), path),
        lambda peer, path: torch.save(nn.DataParallel(peer).state_dict(), path),
        lambda peer, path: torch.save(peer.state_dict(), path, pickle_protocol=4),
    ],
    ids=['parameters', 'DataParallel', 'protocol 4'],
)
def test_read_torch_reads_the_ways_people_save(save, tmp_path):
    peer = Alexnet(width=WIDTH, classes=3)
    save(peer, tmp_path / 'w.pth')
    found = open_weights(tmp_path / 'w.pth').params['fc8']['kernel']
    np.testing.assert_array_equal(found, peer.classifier[6].weight.detach().numpy().T)


def test_read_torch_refuses_a_whole_model(tmp_path):
    torch.save(Alexnet(width=WIDTH, classes=3), tmp_path / 'w.pth')
    with pytest.raises(ValueError, match=r'Alexnet, and only tensors are read; nothing of it was run'):
        open_weights(tmp_path / 'w.pth')
