"""The networks: AlexNet's variants as data, every size, order and constant with its source.

Sources: *paper* is Krizhevsky, Sutskever and Hinton (NIPS 2012), cited by section. *CHM* is the code of 2012
released by the Computer History Museum (computerhistory/AlexNet-Source-Code), cited by file and line; its
`layers/layers-145.cfg` is the network whose log, in layer-params-145.cfg, equals the paper's results.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from alexnet_jax.model.ablations import ablate
from alexnet_jax.model.cifar10 import CIFAR10
from alexnet_jax.model.spec import (
    ChannelNorm,
    Conv,
    Dense,
    Lighting,
    LRMultiplier,
    MaxPool,
    Operation,
    Relu,
    SpatialNorm,
    Variant,
)

# 224 input pixels give 55 outputs only if the last windows reach 3 pixels past the bottom and right edges. The paper
# is silent; CHM layer.py:1004 takes the ceiling, which reads zeros there. Ports reach 55 with a 227 crop instead.
_CONV1_PADDING = ((0, 3), (0, 3))
_PAD1, _PAD2 = ((1, 1), (1, 1)), ((2, 2), (2, 2))

# Paper section 3.3: k = 2, n = 5, alpha = 1e-4, beta = 0.75, alpha multiplying the plain sum.
_PAPER_NORM = ChannelNorm(size=5, k=2.0, alpha=1e-4, beta=0.75)
# CHM layer.py:1183 divides the configured alpha by the window's size before it reaches the kernel.
_RELEASED_NORM = ChannelNorm(size=5, k=2.0, alpha=1e-4 / 5, beta=0.75)
# CHM layers-145.cfg, second norm layer: same map, 5x5 window, scale 1e-3 over 25 places, k = 1.
_RELEASED_SPATIAL_NORM = SpatialNorm(size=5, k=1.0, alpha=1e-3 / 25, beta=0.75)


def _convs(*, deep_std: float, first: tuple[Operation, ...], second: tuple[Operation, ...]) -> tuple[Conv, ...]:
    """The five convolutions: sizes from paper section 3.5, biases of 1 on conv2, conv4 and conv5 from section 5."""
    return (
        Conv('conv1', 96, 11, 'image', _CONV1_PADDING, first, init_std=0.01, init_bias=0.0, stride=4),
        Conv('conv2', 256, 5, 'tower', _PAD2, second, init_std=0.01, init_bias=1.0),
        Conv('conv3', 384, 3, 'both', _PAD1, (Relu(),), init_std=deep_std, init_bias=0.0),
        Conv('conv4', 384, 3, 'tower', _PAD1, (Relu(),), init_std=deep_std, init_bias=1.0),
        Conv('conv5', 256, 3, 'tower', _PAD1, (Relu(), MaxPool()), init_std=deep_std, init_bias=1.0),
    )


# Paper section 3.5 for the sizes; section 5 for std 0.01 and for biases of 1 "in the fully-connected hidden layers".
_DENSE = (
    Dense('fc6', 4096, init_std=0.01, init_bias=1.0),
    Dense('fc7', 4096, init_std=0.01, init_bias=1.0),
    Dense('fc8', 0, init_std=0.01, init_bias=0.0),
)

PAPER = Variant(
    name='paper',
    source='Krizhevsky, Sutskever, Hinton (NIPS 2012), sections 3 to 5',
    convs=_convs(
        deep_std=0.01,  # section 5
        first=(Relu(), _PAPER_NORM, MaxPool()),  # section 3.5: ReLU everywhere, then norm, then pool
        second=(Relu(), _PAPER_NORM, MaxPool()),
    ),
    dense=_DENSE,
    lighting=Lighting('eigenvalue'),  # section 4.1
    bias_rate=1.0,  # section 5: "an equal learning rate for all layers"
    sources=(
        ('crop', '4.1'),
        ('conv1', '3.5, figure 2; edges CHM layer.py:1004'),
        ('kernels', '3.5'),
        ('layer 1', '3.5'),
        ('layer 2', '3.5'),
        ('channel norm', '3.3'),
        ('initial weights', '5'),
        ('initial biases', '5'),
        ('bias rate', '5'),
        ('dropout', '4.2'),
        ('lighting', '4.1'),
    ),
)


def _conv1(*, slow: float, still: float) -> tuple[LRMultiplier, ...]:
    return LRMultiplier('conv1', after=slow, factor=0.1), LRMultiplier('conv1', after=still, factor=0.0)


RELEASED = Variant(
    name='released',
    source='CHM layers/layers-145.cfg and layer-params-145.cfg',
    convs=_convs(
        deep_std=0.03,  # layers-145.cfg initW of conv3 to conv5
        first=(_RELEASED_NORM, MaxPool(), Relu()),  # layers-145.cfg: the norm sees signed values
        second=(Relu(), _RELEASED_NORM, _RELEASED_SPATIAL_NORM, MaxPool()),
    ),
    dense=_DENSE,
    # CHM convdata_jpeg.py:155-179; off from epoch 67 of 91 on by layer-params-145.cfg's log.
    lighting=Lighting('standard_deviation', divisor=1.1, until=66 / 91),
    # layer-params-145.cfg: epsB is twice the first epsW, and stayed at 0.02 when that was lowered to 0.00001.
    bias_rate=2.0,
    bias_drops=False,
    # The log in layer-params-145.cfg: conv1 from 1e-4 to 1e-5 at epoch 67, and to 0 at epoch 72, of 91.
    lr_multipliers=_conv1(slow=66 / 91, still=71 / 91),
    images_per_crop=32,  # CHM convdata_jpeg.py `crop_chunk`: a quarter of a batch of 128 at a time
    sources=(
        ('crop', 'convdata_jpeg.py'),
        ('conv1', 'layer.py:1004'),
        ('kernels', 'layers-145.cfg'),
        ('layer 1', 'layers-145.cfg'),
        ('layer 2', 'layers-145.cfg'),
        ('channel norm', 'layer.py:1183'),
        ('spatial norm', 'layers-145.cfg'),
        ('initial weights', 'layers-145.cfg'),
        ('initial biases', 'layers-145.cfg'),
        ('bias rate', 'layer-params-145.cfg'),
        ('slowed', 'layer-params-145.cfg, log'),
        ('dropout', 'layers-145.cfg'),
        ('lighting', 'convdata_jpeg.py:155-179'),
    ),
)


def _without(name: str, part: str, source: str, until: float, lr_multipliers: tuple[LRMultiplier, ...]) -> Variant:
    """`RELEASED` without a part; the colour noise `until`, and conv1's rate, as the log of that run says."""
    lighting = dataclasses.replace(RELEASED.lighting, until=until)
    return dataclasses.replace(
        ablate(RELEASED, (part,)),
        name=name,
        source=source,
        lighting=lighting,
        lr_multipliers=lr_multipliers,
        sources=_logged(source),
    )


def _logged(source: str) -> tuple[tuple[str, str], ...]:
    log = f'{source.rpartition("/")[2].replace("layers", "layer-params")}, log'
    return tuple((point, log if point == 'slowed' else where) for point, where in RELEASED.sources)


# Caffe divides alpha by the window's size, as CHM does, and has k = 1; its window crosses the border of the groups.
_CAFFE_NORM = ChannelNorm(size=5, k=1.0, alpha=1e-4 / 5, beta=0.75, across_towers=True)


def _caffe(name: str, *, layer12: tuple[Operation, ...], bias: float) -> Variant:
    """A network of BVLC/caffe, models/NAME/train_val.prototxt: `bias` fills what the paper fills with 1."""
    none, pad1, pad2 = ((0, 0), (0, 0)), _PAD1, _PAD2
    return Variant(
        name=name,
        source=f'BVLC/caffe, models/bvlc_{"reference_" if name == "caffenet" else ""}{name.removeprefix("caffe_")}',
        convs=(
            Conv('conv1', 96, 11, 'image', none, layer12, init_std=0.01, init_bias=0.0, stride=4),
            Conv('conv2', 256, 5, 'tower', pad2, layer12, init_std=0.01, init_bias=bias),
            Conv('conv3', 384, 3, 'both', pad1, (Relu(),), init_std=0.01, init_bias=0.0),
            Conv('conv4', 384, 3, 'tower', pad1, (Relu(),), init_std=0.01, init_bias=bias),
            Conv('conv5', 256, 3, 'tower', pad1, (Relu(), MaxPool()), init_std=0.01, init_bias=bias),
        ),
        dense=(
            Dense('fc6', 4096, init_std=0.005, init_bias=bias),
            Dense('fc7', 4096, init_std=0.005, init_bias=bias),
            Dense('fc8', 0, init_std=0.01, init_bias=0.0),
        ),
        lighting=Lighting('standard_deviation', strength=0.0),  # none
        bias_rate=2.0,  # lr_mult: 2, decay_mult: 0
        input_size=227,  # crop_size: 227, and no padding: the same 55x55
        inverted_dropout=True,
        sources=(
            *((point, 'train_val.prototxt') for point in ('crop', 'conv1', 'kernels', 'layer 1', 'layer 2')),
            ('channel norm', 'lrn_layer.cpp'),
            *((point, 'train_val.prototxt') for point in ('initial weights', 'initial biases', 'bias rate')),
            ('dropout', 'dropout_layer.cpp'),
        ),
    )


# bvlc_alexnet's readme: "initializing non-zero biases to 0.1 instead of 1 was found necessary for training, as the
# initialization to 1 gave flat loss".
CAFFE_ALEXNET = _caffe('caffe_alexnet', layer12=(Relu(), _CAFFE_NORM, MaxPool()), bias=0.1)
CAFFENET = _caffe('caffenet', layer12=(Relu(), MaxPool(), _CAFFE_NORM), bias=1.0)


def _torchvision_conv(name: str, features: int, kernel: int, pad: int, *, pool: bool, stride: int = 1) -> Conv:
    then = (Relu(), MaxPool()) if pool else (Relu(),)
    reads: Literal['image', 'both'] = 'image' if name == 'conv1' else 'both'
    return Conv(name, features, kernel, reads, ((pad, pad),) * 2, then, init_std=None, init_bias=0.0, stride=stride)


ONE_WEIRD_TRICK = Variant(
    name='one_weird_trick',
    source='Krizhevsky, "One weird trick" (arXiv 1404.5997) as in torchvision/models/alexnet.py',
    convs=(
        _torchvision_conv('conv1', 64, 11, 2, pool=True, stride=4),
        _torchvision_conv('conv2', 192, 5, 2, pool=True),
        _torchvision_conv('conv3', 384, 3, 1, pool=False),
        _torchvision_conv('conv4', 256, 3, 1, pool=False),
        _torchvision_conv('conv5', 256, 3, 1, pool=True),
    ),
    dense=(
        Dense('fc6', 4096, init_std=None, init_bias=0.0),
        Dense('fc7', 4096, init_std=None, init_bias=0.0),
        Dense('fc8', 0, init_std=None, init_bias=0.0),
    ),
    lighting=Lighting('standard_deviation', strength=0.0),  # none
    bias_rate=1.0,
    pixel_std=(0.229 * 255, 0.224 * 255, 0.225 * 255),  # torchvision's ImageNet transforms, of pixels of 0..1
    drops='inputs',
    inverted_dropout=True,
    towers=1,
    sources=(
        *((point, 'alexnet.py') for point in ('crop', 'conv1', 'kernels', 'layer 1', 'layer 2', 'dropout')),
        *((point, 'torch.nn.Conv2d, Linear') for point in ('initial weights', 'initial biases')),
    ),
)

# Krizhevsky's own ablations of the released network, each a configuration and a log beside it in CHM layers/.
# Of the rates of biases the logs say nothing: in the end they were 0.002 in 147 and in conv1 and conv2 of the half
# network, from when on is not known, and 0.02, as here, elsewhere.
HALF = _without(
    'half',
    'towers',
    'CHM layers/layers-145-half.cfg',
    until=65 / 96,
    lr_multipliers=_conv1(slow=65 / 96, still=71 / 96),
)
NO_EXCHANGE = _without(
    'no_exchange',
    'exchange',
    'CHM layers/layers-150.cfg',
    until=65 / 92,
    lr_multipliers=_conv1(slow=65 / 92, still=71 / 92),
)
NO_NORM = _without('no_norm', 'norm', 'CHM layers/layers-148.cfg', 68 / 97, _conv1(slow=68 / 97, still=72 / 97))
NO_OVERLAP = _without(
    'no_overlap',
    'overlap',
    'CHM layers/layers-147.cfg',
    until=1.0,
    lr_multipliers=(LRMultiplier('conv1', 78 / 90, 0.0),),
)

VARIANTS = {
    variant.name: variant
    for variant in (
        PAPER,
        RELEASED,
        CAFFE_ALEXNET,
        CAFFENET,
        ONE_WEIRD_TRICK,
        HALF,
        NO_EXCHANGE,
        NO_NORM,
        NO_OVERLAP,
    )
}

# All that can be trained, by name.
NETWORKS = VARIANTS | CIFAR10
