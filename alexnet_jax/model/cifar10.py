"""Krizhevsky's own networks for CIFAR-10, the ones behind the paper's figure 1 and its 13 % and 11 % (section 3.3).

Each is a pair of files, layers-N.cfg and layer-params-N.cfg, the `source` here: in CHM `example-layers/`
(computerhistory/AlexNet-Source-Code), but for 11pct, which CHM does not have. That one is of CC (cuda-convnet, which
dnouri/cuda-convnet mirrors) at commit a2a6af8; 11pct_draft is its first form, 3878e8f, which lasted 93 seconds.

The files of 80sec, 19pct and 18pct are of 2011-09-18, and so are their errors. Until dd8fd31 of 2012-07-17 average
pooling divided by whole windows: so do the networks whose names end in `_published`. Those without it are what the
same files have made since.

They have one tower and neither dropout nor lighting. The learning rate is 0.001 for weights and 0.002 for biases, the
momentum 0.9, the batch 128; the weight decay is in multiples of 0.004, which configs/cifar10.py sets. What the files
call fc64 and fc10 is fc7 and fc8 here, as in every network.
"""

import dataclasses

from alexnet_jax.model.spec import (
    AveragePool,
    ChannelNorm,
    Conv,
    Dense,
    Lighting,
    MaxPool,
    Operation,
    Relu,
    SpatialNorm,
    Variant,
)

DECAY = 0.004  # `wc` of most layers, the unit of the decays below
_PAD1, _PAD2 = ((1, 1), (1, 1)), ((2, 2), (2, 2))
# `sizeX=3 stride=2 start=0`, as many outputs as begin within the image (CHM layer.py: ceil): 32 -> 16 -> 8 -> 4.
_MAX, _AVERAGE = MaxPool(3, 2, partial=True), AveragePool(3, 2, partial=True)
# layers-18pct.cfg: same map, 3x3 window, scale 5e-5 over its 9 places (CHM layer.py:1183), and k = 1.
_SAME_MAP = SpatialNorm(size=3, k=1.0, alpha=5e-5 / 9, beta=0.75)
# CC a2a6af8 example-layers/layers-conv-local-11pct.cfg: nine neighbouring maps, scale 1e-3 over them, and k = 1.
_NINE_MAPS = ChannelNorm(size=9, k=1.0, alpha=1e-3 / 9, beta=0.75)
_FIVE_MAPS = ChannelNorm(size=5, k=1.0, alpha=1e-3 / 5, beta=0.75)  # the same at 3878e8f


def _network(
    name: str, files: str, convs: tuple[Conv, ...], dense: tuple[Dense, ...], *, crop: int = 32, origin: str = 'CHM'
) -> Variant:
    return Variant(
        name=name,
        source=f'{origin} example-layers/layers-{files}.cfg and layer-params-{files}.cfg',
        convs=convs,
        dense=dense,
        lighting=Lighting('standard_deviation', strength=0.0),  # none
        bias_rate=2.0,  # epsB is twice epsW
        # CC example-layers/layer-params-conv-local-11pct.cfg lowers epsW alone, 18pct's all rates.
        bias_drops=crop == 32,
        input_size=crop,
        record_size=32,
        dropout_rate=0.0,
        towers=1,
        # "without any image translations/transformations", or with both
        crops=None if crop < 32 else 1,
        flips=crop < 32,
    )


def _shallow(*norm: Operation) -> tuple[Conv, ...]:
    """The three convolutions of 80sec, 19pct and 18pct, the first two followed by `norm`."""
    return (
        Conv('conv1', 32, 5, 'image', _PAD2, (_MAX, Relu(), *norm), init_std=0.0001, init_bias=0.0),
        Conv('conv2', 32, 5, 'both', _PAD2, (Relu(), _AVERAGE, *norm), init_std=0.01, init_bias=0.0),
        Conv('conv3', 64, 5, 'both', _PAD2, (Relu(), _AVERAGE), init_std=0.01, init_bias=0.0),
    )


def _local(first: tuple[Operation, ...], second: tuple[Operation, ...], *, filters: int = 32) -> tuple[Conv, ...]:
    """The two convolutions, with what follows them, and two locally connected layers of 13pct and 11pct."""
    return (
        Conv('conv1', 64, 5, 'image', _PAD2, first, init_std=0.0001, init_bias=0.0, decay=0.0),
        Conv('conv2', 64, 5, 'both', _PAD2, second, init_std=0.01, init_bias=0.0, decay=0.0),
        Conv('local3', filters, 3, 'both', _PAD1, (Relu(),), init_std=0.04, init_bias=0.0, shared=False),
        Conv('local4', 32, 3, 'both', _PAD1, (Relu(),), init_std=0.04, init_bias=0.0, shared=False),
    )


def _classifier(*, decay: float, init_std: float = 0.01) -> Dense:
    return Dense('fc8', 0, init_std=init_std, init_bias=0.0, decay=decay / DECAY)


_FC64 = Dense('fc7', 64, init_std=0.1, init_bias=0.0, decay=0.03 / DECAY)


def _published(network: Variant) -> Variant:
    """The network as it was when its error was published: average pooling divides by the whole window."""
    convs = []
    for conv in network.convs:
        then = (dataclasses.replace(o, divides_by='window') if isinstance(o, AveragePool) else o for o in conv.then)
        convs.append(dataclasses.replace(conv, then=tuple(then)))
    source = network.source.replace('CHM', 'CC 9438cba')
    return dataclasses.replace(network, name=f'{network.name}_published', source=source, convs=tuple(convs))


_PLAIN = (Relu(), _MAX)
_DRAFT = (Relu(), _FIVE_MAPS, _MAX)
_SHALLOW = (
    _network('cifar10_80sec', '80sec', _shallow(), (_FC64, _classifier(decay=0.03, init_std=0.1))),
    _network('cifar10_19pct', '19pct', _shallow(), (_classifier(decay=3.0),)),
    _network('cifar10_18pct', '18pct', _shallow(_SAME_MAP), (_classifier(decay=1.0),)),
)
CIFAR10 = {
    network.name: network
    for network in (
        *_SHALLOW,
        *map(_published, _SHALLOW),
        _network('cifar10_13pct', 'conv-local-13pct', _local(_PLAIN, _PLAIN), (_classifier(decay=DECAY),), crop=24),
        _network(
            'cifar10_11pct',
            'conv-local-11pct',
            # The first norm stands behind the pooling, the second before it.
            _local((Relu(), _MAX, _NINE_MAPS), (Relu(), _NINE_MAPS, _MAX), filters=64),
            (_classifier(decay=0.01),),
            crop=24,
            origin='CC a2a6af8',
        ),
        _network(
            'cifar10_11pct_draft',
            'conv-local-11pct',
            _local(_DRAFT, _DRAFT),
            (_classifier(decay=DECAY),),
            crop=24,
            origin='CC 3878e8f',
        ),
    )
}
# What a name meant in files and run folders of earlier versions.
RENAMED = {'cifar10_11pct': 'cifar10_11pct_draft'}
