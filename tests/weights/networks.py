"""Networks with random weights, for the tests of files."""

import functools
import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from alexnet_jax.checkpoints.hashes import hash_tree
from alexnet_jax.data.augment import normalise
from alexnet_jax.model.alexnet import AlexNet, get_parameter_shapes
from alexnet_jax.model.network import Network, NetworkName

WIDTH = 0.0625


def network(variant, *, without=(), activation='', width=WIDTH, classes=('blue', 'green', 'red'), scale=1.0):
    """Weights ~ N(0, 2 / fan-in) * scale, so that the signal neither dies nor explodes, biases ~ N(0, 0.1)."""
    name = NetworkName(variant, width, tuple(without), activation)
    random = np.random.default_rng(zlib.crc32(repr((variant, width, name.without, activation)).encode()))
    shapes = get_parameter_shapes(name.build(), num_classes=len(classes))

    def filled(leaf):
        std = 0.1 if len(leaf.shape) == 1 else scale * (2 / np.prod(leaf.shape[:-1])) ** 0.5
        return random.normal(0, std, leaf.shape).astype(np.float32)

    size = name.build().input_size
    return Network(
        name=name,
        params=jax.tree.map(filled, shapes),
        mean_image=random.normal((120, 110, 100), 10, (size, size, 3)).astype(np.float32),
        classes=tuple(classes),
        source='runs/some, step 7',
        about={'step': 7, 'config': {'variant': variant}},
    )


@functools.lru_cache(maxsize=4)
def make_pictures(size, count=12):
    """Smooth random pictures with noise, whole numbers of 0..255, float32 (count, size, size, 3)."""
    random = np.random.default_rng(1)
    coarse = random.integers(0, 256, (count, 8, 8, 3), np.uint8)
    smooth = np.stack([np.asarray(Image.fromarray(picture).resize((size, size))) for picture in coarse])
    return np.rint(np.clip(smooth + random.normal(0, 8, smooth.shape), 0, 255)).astype(np.float32)


@functools.cache
def _make_apply(variant, classes):
    return jax.jit(AlexNet(variant, classes).apply)


def compute_logits(net, crops):
    """Logits of crops (b, size, size, 3), 0..255, as this project computes them."""
    x = normalise(jnp.asarray(crops), jnp.asarray(net.mean_image), std=net.variant.pixel_std)
    return np.asarray(_make_apply(net.variant, len(net.classes))({'params': net.params}, x))


def assert_same_logits(found, expected):
    """Asserts that logits are within 1e-5 of the largest, and the five likeliest classes the same; that they differ."""
    assert np.ptp(expected, axis=1).min() > 0.1
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert difference < 1e-5, difference
    np.testing.assert_array_equal(np.argsort(-found)[:, :5], np.argsort(-expected)[:, :5])


def assert_same(found, expected):
    """Asserts that both networks are equal, bit for bit."""
    assert (found.name, found.classes, found.source, found.about) == (
        expected.name,
        expected.classes,
        expected.source,
        expected.about,
    )
    assert jax.tree.structure(found.params) == jax.tree.structure(expected.params)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
    np.testing.assert_array_equal(found.mean_image, expected.mean_image)
    assert found.mean_image.dtype == np.float32


def assert_same_params(found, expected):
    """Asserts that arrays of the same names are equal and float32."""
    for layer, parts in expected.items():
        for part, array in parts.items():
            assert found[layer][part].dtype == np.float32
            np.testing.assert_array_equal(found[layer][part], array, f'{layer}/{part}')


def write_npz(path, net, about, write=np.savez):
    """What `alexnet checkpoint export` writes, step 7, with more, or other, in its 'about'."""
    arrays = {f'{layer}/{part}': x for layer, parts in net.params.items() for part, x in parts.items()}
    about = {'step': 7, 'params_sha256': hash_tree(net.params)} | about
    with path.open('wb') as file:
        write(file, **arrays, mean_image=net.mean_image, about=np.array(json.dumps(about)))
