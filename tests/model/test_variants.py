"""Golden numbers: sizes, parameters and arithmetic of the published network, constants of both variants."""

import math

import jax
import pytest

from alexnet_jax.model.alexnet import parameter_shapes
from alexnet_jax.model.variants import (
    PAPER,
    RELEASED,
    VARIANTS,
    ChannelNorm,
    Lighting,
    MaxPool,
    Relu,
    SpatialNorm,
    layer_sizes,
)

# Paper section 3.5 and figure 2, by hand: name, output of both towers after pooling, weights, biases, MACs per image.
GOLDEN = [
    ('conv1', (27, 27, 96), 11 * 11 * 3 * 96, 96, 105_415_200),
    ('conv2', (13, 13, 256), 5 * 5 * 48 * 256, 256, 223_948_800),
    ('conv3', (13, 13, 384), 3 * 3 * 256 * 384, 384, 149_520_384),
    ('conv4', (13, 13, 384), 3 * 3 * 192 * 384, 384, 112_140_288),
    ('conv5', (6, 6, 256), 3 * 3 * 192 * 256, 256, 74_760_192),
    ('fc6', (4096,), 6 * 6 * 256 * 4096, 4096, 37_748_736),
    ('fc7', (4096,), 4096 * 4096, 4096, 16_777_216),
    ('fc8', (1000,), 4096 * 1000, 1000, 4_096_000),
]


@pytest.mark.parametrize('variant', VARIANTS.values(), ids=lambda v: v.name)
def test_layer_sizes_are_the_papers(variant):
    rows = layer_sizes(variant, num_classes=1000)
    assert [(r.name, r.output, r.weights, r.biases, r.macs) for r in rows] == GOLDEN
    assert sum(r.weights + r.biases for r in rows) == 60_965_224
    assert sum(r.macs for r in rows) == 724_406_816


@pytest.mark.parametrize('variant', VARIANTS.values(), ids=lambda v: v.name)
def test_parameter_tree_has_60_965_224_numbers(variant):
    shapes = parameter_shapes(variant, num_classes=1000)
    counted = {name: (math.prod(p['kernel'].shape), math.prod(p['bias'].shape)) for name, p in shapes.items()}
    assert counted == {name: (weights, biases) for name, _, weights, biases, _ in GOLDEN}
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 60_965_224


def test_constants_of_the_paper():
    norm = ChannelNorm(size=5, k=2.0, alpha=1e-4, beta=0.75)
    assert [c.then for c in PAPER.convs[:2]] == [(Relu(), norm, MaxPool(3, 2))] * 2
    assert [c.then for c in PAPER.convs[2:]] == [(Relu(),), (Relu(),), (Relu(), MaxPool(3, 2))]
    assert [c.reads for c in PAPER.convs] == ['image', 'tower', 'both', 'tower', 'tower']
    layers = (*PAPER.convs, *PAPER.dense)
    assert {layer.init_std for layer in layers} == {0.01}
    assert [layer.name for layer in layers if layer.init_bias == 1] == ['conv2', 'conv4', 'conv5', 'fc6', 'fc7']
    assert {layer.init_bias for layer in layers} == {0, 1}
    assert (PAPER.bias_rate, PAPER.dropout_rate, PAPER.inverted_dropout) == (1, 0.5, False)
    assert PAPER.lighting == Lighting('eigenvalue', strength=0.1, divisor=1, until=1)
    assert PAPER.images_per_crop == 1


def test_constants_of_the_released_code():
    norm = ChannelNorm(size=5, k=2.0, alpha=2e-5, beta=0.75)
    assert RELEASED.convs[0].then == (norm, MaxPool(3, 2), Relu())
    assert RELEASED.convs[1].then == (Relu(), norm, SpatialNorm(5, 1.0, 4e-5, 0.75), MaxPool(3, 2))
    assert [c.init_std for c in RELEASED.convs] == [0.01, 0.01, 0.03, 0.03, 0.03]
    assert RELEASED.bias_rate == 2
    assert RELEASED.lighting == Lighting('standard_deviation', strength=0.1, divisor=1.1, until=66 / 91)
    assert RELEASED.images_per_crop == RELEASED.scaled(0.25).images_per_crop == 32


def test_width_scales_channels_and_keeps_the_variance_of_every_unit():
    narrow = PAPER.scaled(0.25)
    assert [c.features for c in narrow.convs] == [24, 64, 96, 96, 64]
    assert [d.features for d in narrow.dense] == [1024, 1024, 0]
    # Fan-in is a quarter everywhere but in conv1, which reads three colours at any width.
    assert [c.init_std for c in narrow.convs] == [0.01, 0.02, 0.02, 0.02, 0.02]
    assert [d.init_std for d in narrow.dense] == [0.02] * 3
    assert PAPER.scaled(1) == PAPER


def test_every_width_has_two_equal_towers():
    for width in (0.001, 0.1, 0.3, 1.7):
        features = [layer.features for layer in (*PAPER.scaled(width).convs, *PAPER.scaled(width).dense[:2])]
        assert all(n >= 2 and n % 2 == 0 for n in features)
