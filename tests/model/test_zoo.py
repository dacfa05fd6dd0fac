"""Golden numbers: sizes, parameters and arithmetic of the published network, constants of both variants."""

import dataclasses
import math

import jax
import pytest

from alexnet_jax.model.alexnet import get_parameter_shapes, init_parameters
from alexnet_jax.model.spec import ChannelNorm, Lighting, LRMultiplier, MaxPool, Relu, SpatialNorm, get_layer_sizes
from alexnet_jax.model.zoo import PAPER, RELEASED, VARIANTS

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


@pytest.mark.parametrize('name', ['paper', 'released', 'caffe_alexnet', 'caffenet'])
def test_get_layer_sizes_are_the_paper_s(name):
    rows = get_layer_sizes(VARIANTS[name], num_classes=1000)
    assert [(r.name, r.output, r.weights, r.biases, r.macs) for r in rows] == GOLDEN
    assert sum(r.weights + r.biases for r in rows) == 60_965_224
    assert sum(r.macs for r in rows) == 724_406_816


def test_get_layer_sizes_of_one_weird_trick():
    """By hand from torchvision/models/alexnet.py: 224 -> (224 + 4 - 11) // 4 + 1 = 55 -> 27 -> 13 -> 6."""
    rows = get_layer_sizes(VARIANTS['one_weird_trick'], num_classes=1000)
    assert [(row.name, row.output, row.weights) for row in rows] == [
        ('conv1', (27, 27, 64), 11 * 11 * 3 * 64),
        ('conv2', (13, 13, 192), 5 * 5 * 64 * 192),
        ('conv3', (13, 13, 384), 3 * 3 * 192 * 384),
        ('conv4', (13, 13, 256), 3 * 3 * 384 * 256),
        ('conv5', (6, 6, 256), 3 * 3 * 256 * 256),
        ('fc6', (4096,), 9216 * 4096),
        ('fc7', (4096,), 4096 * 4096),
        ('fc8', (1000,), 4096 * 1000),
    ]
    assert sum(row.weights + row.biases for row in rows) == 61_100_840  # what torchvision's documentation says
    assert sum(row.macs for row in rows) == 714_188_480


@pytest.mark.parametrize('name', ['paper', 'released', 'caffe_alexnet', 'caffenet'])
def test_get_parameter_shapes_has_60_965_224_numbers(name):
    shapes = get_parameter_shapes(VARIANTS[name], num_classes=1000)
    counted = {name: (math.prod(p['kernel'].shape), math.prod(p['bias'].shape)) for name, p in shapes.items()}
    assert counted == {name: (weights, biases) for name, _, weights, biases, _ in GOLDEN}
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 60_965_224


def test_zoo_has_the_constants_of_the_paper():
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


def test_zoo_has_the_constants_of_the_released_code():
    norm = ChannelNorm(size=5, k=2.0, alpha=2e-5, beta=0.75)
    assert RELEASED.convs[0].then == (norm, MaxPool(3, 2), Relu())
    assert RELEASED.convs[1].then == (Relu(), norm, SpatialNorm(5, 1.0, 4e-5, 0.75), MaxPool(3, 2))
    assert [c.init_std for c in RELEASED.convs] == [0.01, 0.01, 0.03, 0.03, 0.03]
    assert (RELEASED.bias_rate, RELEASED.bias_drops, PAPER.bias_drops) == (2, False, True)
    assert RELEASED.lighting == Lighting('standard_deviation', strength=0.1, divisor=1.1, until=66 / 91)
    assert RELEASED.images_per_crop == RELEASED.scaled(0.25).images_per_crop == 32


def test_zoo_has_the_constants_of_caffe():
    """models/bvlc_alexnet and models/bvlc_reference_caffenet, train_val.prototxt."""
    norm = ChannelNorm(size=5, k=1.0, alpha=2e-5, beta=0.75, across_towers=True)
    alexnet, caffenet = VARIANTS['caffe_alexnet'], VARIANTS['caffenet']
    assert [conv.then for conv in alexnet.convs[:2]] == [(Relu(), norm, MaxPool(3, 2))] * 2
    assert [conv.then for conv in caffenet.convs[:2]] == [(Relu(), MaxPool(3, 2), norm)] * 2
    for variant, bias in ((alexnet, 0.1), (caffenet, 1.0)):
        layers = (*variant.convs, *variant.dense)
        assert [layer.init_bias for layer in layers] == [0, bias, 0, bias, bias, bias, bias, 0]
        assert [layer.init_std for layer in layers] == [0.01] * 5 + [0.005, 0.005, 0.01]
        assert (variant.input_size, variant.inverted_dropout, variant.bias_rate) == (227, True, 2)
        assert not variant.divisible and PAPER.divisible and RELEASED.divisible


def test_zoo_has_the_author_s_own_ablations():
    """CHM layers/layers-145-half.cfg, -150.cfg, -148.cfg and -147.cfg; parameters counted by hand there."""
    counts = {'half': 59_798_312, 'no_exchange': 60_714_408, 'no_norm': 60_965_224, 'no_overlap': 60_965_224}
    for name, count in counts.items():
        rows = get_layer_sizes(VARIANTS[name], num_classes=1000)
        assert sum(row.weights + row.biases for row in rows) == count
        assert [row.output[0] for row in rows[:5]] == [27, 13, 13, 13, 6]
    assert [conv.features for conv in VARIANTS['half'].convs] == [48, 128, 192, 192, 256]
    assert not VARIANTS['half'].divisible
    assert VARIANTS['no_exchange'].exchanges == ('fc8',)
    assert not any(isinstance(o, ChannelNorm | SpatialNorm) for conv in VARIANTS['no_norm'].convs for o in conv.then)
    pools = {o for conv in VARIANTS['no_overlap'].convs for o in conv.then if isinstance(o, MaxPool)}
    assert pools == {MaxPool(2, 2)}


@pytest.mark.parametrize(
    ('name', 'ended', 'dark', 'slow', 'still'),
    [
        ('released', 91, 67, 67, 72),
        ('half', 96, 66, 66, 72),
        ('no_exchange', 92, 66, 66, 72),
        ('no_norm', 97, 69, 69, 73),
        ('no_overlap', 90, 91, None, 79),
    ],
)
def test_zoo_ends_colour_noise_and_slows_conv1_as_the_log_of_each_run_says(name, ended, dark, slow, still):
    """CHM layers/layer-params-{145,145-half,150,148,147}.cfg; "epoch N" is after N - 1 of those to `ended`."""
    variant = VARIANTS[name]
    assert variant.lighting == dataclasses.replace(RELEASED.lighting, until=pytest.approx((dark - 1) / ended))
    slowed = [(slow, 0.1), (still, 0.0)] if slow else [(still, 0.0)]
    assert variant.lr_multipliers == tuple(
        LRMultiplier('conv1', pytest.approx((at - 1) / ended), rate) for at, rate in slowed
    )


def test_zoo_has_the_constants_of_the_released_schedule():
    """layers-145.cfg's log: conv1 at a tenth from epoch 67 of 91 on, still from epoch 72 on."""
    assert RELEASED.lr_multipliers == (LRMultiplier('conv1', 66 / 91, 0.1), LRMultiplier('conv1', 71 / 91, 0.0))
    assert PAPER.lr_multipliers == ()


def test_scaled_keeps_the_variance_of_every_unit():
    narrow = PAPER.scaled(0.25)
    assert [c.features for c in narrow.convs] == [24, 64, 96, 96, 64]
    assert [d.features for d in narrow.dense] == [1024, 1024, 0]
    # Fan-in is a quarter everywhere but in conv1, which reads three colours at any width.
    assert [c.init_std for c in narrow.convs] == [0.01, 0.02, 0.02, 0.02, 0.02]
    assert [d.init_std for d in narrow.dense] == [0.02] * 3
    assert PAPER.scaled(1) == PAPER


def test_scaled_has_two_equal_towers_at_every_width():
    for width in (0.001, 0.1, 0.3, 1.7):
        features = [layer.features for layer in (*PAPER.scaled(width).convs, *PAPER.scaled(width).dense[:2])]
        assert all(n >= 2 and n % 2 == 0 for n in features)


def test_init_parameters_of_one_weird_trick_starts_as_pytorch_does():
    """torch.nn.Conv2d and Linear: kernel and bias uniform within +-1/sqrt(fan-in), the standard deviation of which is
    1/sqrt(3 fan-in).
    """
    variant = VARIANTS['one_weird_trick'].scaled(0.125)
    params = init_parameters(variant, jax.random.key(0), num_classes=10)
    for layer, both in params.items():
        fan_in = math.prod(both['kernel'].shape[:-1])
        for leaf in both.values():
            assert float(abs(leaf).max()) <= fan_in**-0.5, layer
        assert float(both['kernel'].std()) == pytest.approx((3 * fan_in) ** -0.5, rel=0.1), layer
        assert float(abs(both['bias']).max()) > 0, layer
