"""The networks: AlexNet's variants as data, every size, order and constant with its source.

Sources: *paper* is Krizhevsky, Sutskever and Hinton (NIPS 2012), cited by section. *CHM* is the code of 2012
released by the Computer History Museum (computerhistory/AlexNet-Source-Code), cited by file and line; its
`layers/layers-145.cfg` is the network whose log, in layer-params-145.cfg, equals the paper's results.
"""

import dataclasses
from typing import Literal

from alexnet_jax.model.ablations import PIXEL_STD, ablate
from alexnet_jax.model.cifar10 import CIFAR10
from alexnet_jax.model.deep import DEPTHS, deepen
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
_PAD0, _PAD1, _PAD2 = ((0, 0), (0, 0)), ((1, 1), (1, 1)), ((2, 2), (2, 2))

# Paper section 3.3: k = 2, n = 5, alpha = 1e-4, beta = 0.75, alpha multiplying the plain sum.
_PAPER_NORM = ChannelNorm(size=5, k=2.0, alpha=1e-4, beta=0.75)
# CHM layer.py:1183 divides the configured alpha by the window's size before it reaches the kernel.
_RELEASED_NORM = ChannelNorm(size=5, k=2.0, alpha=1e-4 / 5, beta=0.75)
# CHM layers/layers-145.cfg, second norm layer: same map, 5x5 window, scale 1e-3 over 25 places, k = 1.
_RELEASED_SPATIAL_NORM = SpatialNorm(size=5, k=1.0, alpha=1e-3 / 25, beta=0.75)


def _make_convs(
    *,
    first: tuple[Operation, ...],
    second: tuple[Operation, ...],
    edge: tuple[tuple[int, int], tuple[int, int]] = _CONV1_PADDING,
    deep_std: float = 0.01,
    bias: float = 1.0,
) -> tuple[Conv, ...]:
    """Makes the five convolutions: sizes from paper section 3.5; section 5 for std 0.01 and for which biases are 1."""
    return (
        Conv('conv1', 96, 11, 'image', edge, first, init_std=0.01, init_bias=0.0, stride=4),
        Conv('conv2', 256, 5, 'tower', _PAD2, second, init_std=0.01, init_bias=bias),
        Conv('conv3', 384, 3, 'both', _PAD1, (Relu(),), init_std=deep_std, init_bias=0.0),
        Conv('conv4', 384, 3, 'tower', _PAD1, (Relu(),), init_std=deep_std, init_bias=bias),
        Conv('conv5', 256, 3, 'tower', _PAD1, (Relu(), MaxPool()), init_std=deep_std, init_bias=bias),
    )


def _make_dense(
    *, std: float | None = 0.01, bias: float | None = 1.0, last_std: float | None = 0.01
) -> tuple[Dense, ...]:
    """Makes fc6 to fc8: paper section 3.5; section 5 for std 0.01 and 1 "in the fully-connected hidden layers"."""
    return (
        Dense('fc6', 4096, init_std=std, init_bias=bias),
        Dense('fc7', 4096, init_std=std, init_bias=bias),
        Dense('fc8', 0, init_std=last_std, init_bias=None if last_std is None else 0.0),
    )


PAPER = Variant(
    name='paper',
    source='Krizhevsky, Sutskever, Hinton (NIPS 2012), sections 3 to 5',
    # Section 3.5: ReLU everywhere, then norm, then pool.
    convs=_make_convs(first=(Relu(), _PAPER_NORM, MaxPool()), second=(Relu(), _PAPER_NORM, MaxPool())),
    dense=_make_dense(),
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


def _slow_conv1(*, slow: float | None, still: float) -> tuple[LRMultiplier, ...]:
    """Slows conv1 to a tenth from `slow`, a fraction of the run, on (None: never), and stops it from `still` on."""
    held = (LRMultiplier('conv1', after=still, factor=0.0),)
    return held if slow is None else (LRMultiplier('conv1', after=slow, factor=0.1), *held)


RELEASED = Variant(
    name='released',
    source='CHM layers/layers-145.cfg and layer-params-145.cfg',
    convs=_make_convs(
        deep_std=0.03,  # layers-145.cfg initW of conv3 to conv5
        first=(_RELEASED_NORM, MaxPool(), Relu()),  # layers-145.cfg: the norm sees signed values
        second=(Relu(), _RELEASED_NORM, _RELEASED_SPATIAL_NORM, MaxPool()),
    ),
    dense=_make_dense(),
    # CHM convdata_jpeg.py:155-179; off from epoch 67 of 91 on by layer-params-145.cfg's log.
    lighting=Lighting('standard_deviation', divisor=1.1, until=66 / 91),
    # layer-params-145.cfg: epsB is twice the first epsW, and stayed at 0.02 when that was lowered to 0.00001.
    bias_rate=2.0,
    bias_drops=False,
    # The log in layer-params-145.cfg: conv1 from 1e-4 to 1e-5 at epoch 67, and to 0 at epoch 72, of 91.
    lr_multipliers=_slow_conv1(slow=66 / 91, still=71 / 91),
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


def _make_ablation(name: str, part: str, file: str, *, slow: float | None, still: float) -> Variant:
    """Makes `RELEASED` without a part, slowed as the log of that run says; where it was slowed, colour noise ended."""
    log = f'{file.replace("layers", "layer-params")}, log'
    return dataclasses.replace(
        ablate(RELEASED, (part,)),
        name=name,
        source=f'CHM layers/{file}',
        lighting=dataclasses.replace(RELEASED.lighting, until=1.0 if slow is None else slow),
        lr_multipliers=_slow_conv1(slow=slow, still=still),
        sources=tuple((point, log if point == 'slowed' else where) for point, where in RELEASED.sources),
    )


# Caffe divides alpha by the window's size, as CHM does, and has k = 1; its window crosses the border of the groups.
_CAFFE_NORM = ChannelNorm(size=5, k=1.0, alpha=1e-4 / 5, beta=0.75, across_towers=True)


def _make_caffe(name: str, model: str, *, layer12: tuple[Operation, ...], bias: float) -> Variant:
    """Makes a network of BVLC/caffe, models/MODEL/train_val.prototxt: `bias` fills what the paper fills with 1."""
    return Variant(
        name=name,
        source=f'BVLC/caffe, models/{model}',
        convs=_make_convs(first=layer12, second=layer12, edge=_PAD0, bias=bias),
        dense=_make_dense(std=0.005, bias=bias),
        lighting=Lighting('standard_deviation', strength=0.0),  # none
        bias_rate=2.0,  # lr_mult: 2, decay_mult: 0
        input_size=227,  # crop_size: 227, and no padding: the same 55x55
        preprocessing='caffe',
        mean_at='crop',  # src/caffe/data_transformer.cpp
        inverted_dropout=True,
        sources=(
            *((point, 'train_val.prototxt') for point in ('crop', 'conv1', 'kernels', 'layer 1', 'layer 2')),
            ('squares', 'create_imagenet.sh, io.cpp'),
            ('mean', 'data_transformer.cpp'),
            ('channel norm', 'lrn_layer.cpp'),
            *((point, 'train_val.prototxt') for point in ('initial weights', 'initial biases', 'bias rate')),
            ('dropout', 'dropout_layer.cpp'),
        ),
    )


def _make_torchvision_conv(name: str, features: int, kernel: int, pad: int, *, pool: bool, stride: int = 1) -> Conv:
    then = (Relu(), MaxPool()) if pool else (Relu(),)
    reads: Literal['image', 'both'] = 'image' if name == 'conv1' else 'both'
    return Conv(name, features, kernel, reads, ((pad, pad),) * 2, then, init_std=None, init_bias=None, stride=stride)


_TORCHVISION = Variant(
    name='one_weird_trick',
    source='Krizhevsky, "One weird trick" (arXiv 1404.5997) as in torchvision/models/alexnet.py',
    convs=(
        _make_torchvision_conv('conv1', 64, 11, 2, pool=True, stride=4),
        _make_torchvision_conv('conv2', 192, 5, 2, pool=True),
        _make_torchvision_conv('conv3', 384, 3, 1, pool=False),
        _make_torchvision_conv('conv4', 256, 3, 1, pool=False),
        _make_torchvision_conv('conv5', 256, 3, 1, pool=True),
    ),
    dense=_make_dense(std=None, bias=None, last_std=None),
    lighting=Lighting('standard_deviation', strength=0.0),  # none
    bias_rate=1.0,
    preprocessing='torchvision',
    pixel_std=PIXEL_STD,
    drops='inputs',
    inverted_dropout=True,
    towers=1,
    sources=(
        ('squares', 'transforms/_presets.py'),
        *((point, 'alexnet.py') for point in ('crop', 'conv1', 'kernels', 'layer 1', 'layer 2', 'dropout')),
        *((point, 'torch.nn.Conv2d, Linear') for point in ('initial weights', 'initial biases')),
    ),
)

VARIANTS = {
    variant.name: variant
    for variant in (
        PAPER,
        RELEASED,
        # Biases of 0.1, "since initialization to 1 resulted in flat training loss": BVLC/caffe pull request 327.
        _make_caffe('caffe_alexnet', 'bvlc_alexnet', layer12=(Relu(), _CAFFE_NORM, MaxPool()), bias=0.1),
        _make_caffe('caffenet', 'bvlc_reference_caffenet', layer12=(Relu(), MaxPool(), _CAFFE_NORM), bias=1.0),
        _TORCHVISION,
        # Krizhevsky's own ablations of the released network, each a configuration and a log beside it in CHM layers/.
        # Of the rates of biases the logs say nothing: in the end they were 0.002 in 147 and in conv1 and conv2 of the
        # half network, from when on is not known, and 0.02, as here, elsewhere.
        _make_ablation('half', 'towers', 'layers-145-half.cfg', slow=65 / 96, still=71 / 96),
        _make_ablation('no_exchange', 'exchange', 'layers-150.cfg', slow=65 / 92, still=71 / 92),
        _make_ablation('no_norm', 'norm', 'layers-148.cfg', slow=68 / 97, still=72 / 97),
        _make_ablation('no_overlap', 'overlap', 'layers-147.cfg', slow=None, still=78 / 90),
    )
}

# How many epochs Krizhevsky's runs of these took, and behind which he divided the rate by ten: the logs in
# layer-params-N.cfg, whose epochs count from 1, so that "epoch 25: set epsw to 0.001" is behind 24.
LOGS = {
    'released': (91.0, (24.0, 50.0, 78.0)),
    'half': (96.0, (19.0, 47.0)),
    'no_exchange': (92.0, (24.0, 48.0, 78.0)),
    'no_norm': (97.0, (21.0, 43.0, 85.0)),
    'no_overlap': (90.0, (22.0, 50.0, 78.0)),
}

DEEP = {network.name: network for network in (deepen(RELEASED, count) for count in DEPTHS)}

# All that can be trained, by name.
NETWORKS = VARIANTS | CIFAR10 | DEEP
