"""Krizhevsky's own networks for CIFAR-10, the ones behind the paper's figure 1 and its 13 % and 11 % (section 3.3).

Each is a pair of files, layers-N.cfg and layer-params-N.cfg, the `source` here: in CHM `example-layers/`
(computerhistory/AlexNet-Source-Code), but for 11pct, which CHM does not have. That one is of CC (cuda-convnet, which
dnouri/cuda-convnet mirrors) at commit 3878e8f, the first of two forms: 93 seconds later a2a6af8 replaced it by a wider
network that normalises behind the first pooling. They have one tower and neither dropout nor lighting. The learning
rate is 0.001 for weights and 0.002 for biases, the momentum 0.9, the batch 128; the weight decay is in multiples of
0.004, which configs/cifar10.py sets. What the files call fc64 and fc10 is fc7 and fc8 here, as in every network.
"""

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
# CC 3878e8f example-layers/layers-conv-local-11pct.cfg: five neighbouring maps, scale 1e-3 over them, and k = 1.
_ACROSS_MAPS = ChannelNorm(size=5, k=1.0, alpha=1e-3 / 5, beta=0.75)


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
        # CC example-layers/layer-params-conv-local-11pct.cfg: "Lower learning rates (epsW)"; 18pct's: "all learning
        # rates".
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


def _local(*norm: Operation) -> tuple[Conv, ...]:
    """The two convolutions, followed by `norm`, and two locally connected layers of 13pct and 11pct."""
    then = (Relu(), *norm, _MAX)
    return (
        Conv('conv1', 64, 5, 'image', _PAD2, then, init_std=0.0001, init_bias=0.0, decay=0.0),
        Conv('conv2', 64, 5, 'both', _PAD2, then, init_std=0.01, init_bias=0.0, decay=0.0),
        Conv('local3', 32, 3, 'both', _PAD1, (Relu(),), init_std=0.04, init_bias=0.0, shared=False),
        Conv('local4', 32, 3, 'both', _PAD1, (Relu(),), init_std=0.04, init_bias=0.0, shared=False),
    )


def _classifier(*, decay: float, init_std: float = 0.01) -> Dense:
    return Dense('fc8', 0, init_std=init_std, init_bias=0.0, decay=decay / DECAY)


_FC64 = Dense('fc7', 64, init_std=0.1, init_bias=0.0, decay=0.03 / DECAY)

CIFAR10 = {
    network.name: network
    for network in (
        _network('cifar10_80sec', '80sec', _shallow(), (_FC64, _classifier(decay=0.03, init_std=0.1))),
        _network('cifar10_19pct', '19pct', _shallow(), (_classifier(decay=3.0),)),
        _network('cifar10_18pct', '18pct', _shallow(_SAME_MAP), (_classifier(decay=1.0),)),
        _network('cifar10_13pct', 'conv-local-13pct', _local(), (_classifier(decay=DECAY),), crop=24),
        _network(
            'cifar10_11pct',
            'conv-local-11pct',
            _local(_ACROSS_MAPS),
            (_classifier(decay=DECAY),),
            crop=24,
            origin='CC 3878e8f',
        ),
    )
}
