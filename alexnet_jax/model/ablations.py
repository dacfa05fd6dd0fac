"""AlexNet without one of its parts: variant in, variant out, everything else as it was.

Most are Krizhevsky's own: CHM `layers/layers-N.cfg` (computerhistory/AlexNet-Source-Code), trained nearly as the
published network was: layer-params-N.cfg says when the rate was lowered; 147 kept its colour noise, 167's rate fell all
the time. His errors beside the published network's 40.7 % top-1 and 18.2 % top-5 (validation of 2012, ten views):

    norm       42.0 / 19.4    layers-148        towers     39.2 / 18.2, of 2010, beside 37.5 / 17.0   layers-145-half
    norm2      40.5 / 18.1    layers-167        exchange   41.8 / 19.3                                layers-150
    overlap    41.1 / 18.5    layers-147
"""

import dataclasses
from collections.abc import Callable, Collection

from alexnet_jax.model.spec import (
    Activation,
    AveragePool,
    ChannelNorm,
    Conv,
    MaxPool,
    Operation,
    Relu,
    Sigmoid,
    SpatialNorm,
    Tanh,
    Variant,
)


def _each_conv(variant: Variant, change: Callable[[Conv], Conv]) -> Variant:
    return dataclasses.replace(variant, convs=tuple(map(change, variant.convs)))


def _each_operation(variant: Variant, change: Callable[[Operation], Operation | None]) -> Variant:
    """Changes what follows the convolutions; None takes an operation away."""
    return _each_conv(variant, lambda conv: dataclasses.replace(conv, then=tuple(filter(None, map(change, conv.then)))))


def _norm(variant: Variant) -> Variant:
    """No local response normalisation. Paper section 3.3: worth 1.4 and 1.2 %; CHM layers/layers-148.cfg."""
    return _each_operation(variant, lambda o: None if isinstance(o, ChannelNorm | SpatialNorm) else o)


def _norm2(variant: Variant) -> Variant:
    """None after the second convolution; CHM layers/layers-167.cfg, which takes both of its norms."""
    return dataclasses.replace(variant, convs=(variant.convs[0], *_norm(variant).convs[1:]))


def _overlap(variant: Variant) -> Variant:
    """Pooling of 2x2 every 2. Paper section 3.4: "output of equivalent dimensions", worth 0.4 and 0.3 %.

    55 -> 27 -> 13 -> 6 as before, so that every layer keeps its fan-in. CHM layers/layers-147.cfg comes to the same 6x6
    by another way: its pooling rounds up, and it takes the zeros around conv2 and conv5 away to make up for that.
    """
    return _each_operation(variant, lambda o: type(o)(2, 2) if isinstance(o, MaxPool | AveragePool) else o)


def _maximum(variant: Variant) -> Variant:
    """The mean of each window where its maximum was taken. Paper section 3.5 has maxima, 3.4 would pool by either.

    Windows, strides and sizes stay; with `overlap` it is the mean of 2x2 every 2. The author's networks for CIFAR-10
    have one layer of maxima and two of means (model/cifar10.py).
    """

    def change(operation: Operation) -> Operation:
        if not isinstance(operation, MaxPool):
            return operation
        return AveragePool(operation.window, operation.stride, operation.partial)

    return _each_operation(variant, change)


def _with_units(variant: Variant, activation: Activation) -> Variant:
    changed = _each_operation(variant, lambda o: activation if isinstance(o, Activation) else o)
    return dataclasses.replace(changed, activation=activation)


def _relu(variant: Variant) -> Variant:
    """tanh(x) for every ReLU. Paper section 3.1 and figure 1: six times as many epochs to the same training error."""
    return _with_units(variant, Tanh())


def _lighting(variant: Variant) -> Variant:
    """No noise along the principal components of RGB. Paper section 4.1: worth over 1 %."""
    return dataclasses.replace(variant, lighting=dataclasses.replace(variant.lighting, strength=0.0, divisor=1.0))


def _towers(variant: Variant) -> Variant:
    """One tower, for one device: half the kernels of conv1 to conv4, every layer reading all of the one before.

    Paper section 3.2: two are worth 1.7 and 1.2 %, and the last convolution and the fully connected layers keep their
    size, so that both networks have about as many parameters; CHM layers/layers-145-half.cfg.
    """
    *others, last = variant.convs
    halved = (dataclasses.replace(conv, features=conv.features // 2) for conv in others)
    return dataclasses.replace(variant, convs=(*halved, last), towers=1)


def _conv3_exchange(variant: Variant) -> Variant:
    """Conv3 reads its own tower, as conv2, conv4 and conv5 do: the towers first meet in fc6. Not in CHM, nor the paper.

    Half of conv3's kernel goes with it; see `_exchange` for what Krizhevsky did.
    """
    return _each_conv(variant, lambda conv: dataclasses.replace(conv, reads='tower') if conv.name == 'conv3' else conv)


def _exchange(variant: Variant) -> Variant:
    """No link between the towers before fc8, which sums them up; CHM layers/layers-150.cfg.

    What fc6 and conv3 lose is given back in width, as there: conv2 has 160 for 128 kernels in each tower and fc6 4096
    for 2048 units, and the network 60,714,408 parameters for 60,965,224.
    """
    apart = _each_conv(
        _conv3_exchange(variant),
        lambda conv: dataclasses.replace(conv, features=conv.features * 160 // 128) if conv.name == 'conv2' else conv,
    )
    fc6, fc7, fc8 = apart.dense
    fc6 = dataclasses.replace(fc6, features=2 * fc6.features, reads='tower')
    return dataclasses.replace(apart, dense=(fc6, dataclasses.replace(fc7, reads='tower'), fc8))


ABLATIONS: dict[str, Callable[[Variant], Variant]] = {
    'norm': _norm,
    'norm2': _norm2,
    'overlap': _overlap,
    'maximum': _maximum,
    'relu': _relu,
    # No dropout in fc6 and fc7. Paper section 4.2: "our network exhibits substantial overfitting".
    'dropout': lambda variant: dataclasses.replace(variant, dropout_rate=0.0),
    'lighting': _lighting,
    # No mirrored images in training. Paper section 4.1 has them with the crops; testing keeps its views.
    'flips': lambda variant: dataclasses.replace(variant, flips=False),
    # The centre crop alone in training. Paper section 4.1: without crops and flips "substantial overfitting".
    'crops': lambda variant: dataclasses.replace(variant, crops=1),
    'towers': _towers,
    'conv3_exchange': _conv3_exchange,
    'exchange': _exchange,
}
TRAINING_ONLY = {'lighting', 'crops', 'flips'}  # leave the network as it is
# Of these pairs the first takes away what the second would, so together they would be named for what they are not.
CONTAINED = (
    ('norm', 'norm2'),
    ('exchange', 'conv3_exchange'),
    ('towers', 'exchange'),
    ('towers', 'conv3_exchange'),
)


def ablate(variant: Variant, without: Collection[str]) -> Variant:
    """Returns `variant`, at the paper's width, without the parts that `without` names: keys of ABLATIONS, any order."""
    for name, ablation in ABLATIONS.items():
        if name in without:
            variant = dataclasses.replace(ablation(variant), without=(*variant.without, name))
    return variant


PIXEL_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)  # torchvision's ImageNet transforms, of pixels of 0..1
ACTIVATIONS: dict[str, Activation] = {'relu': Relu(), 'tanh': Tanh(), 'sigmoid': Sigmoid()}


def activate(variant: Variant, name: str) -> Variant:
    """Returns `variant` with the units that `name` names, a key of ACTIVATIONS; '' or its own leave it as it is.

    Tanh comes with the variant's own initial weights, as in `ablate`: the paper says of figure 1 no other. Sigmoids
    come with those that they were trained from, uniform within +-1/sqrt(fan-in), and biases of 0 (Glorot and Bengio
    2010, equation 1, "commonly used heuristic"). These are for inputs of unit variance (LeCun et al. 1998, "Efficient
    BackProp", section 4.3), so pixels are divided by their spread where the variant does not: of 0..255, nearly all of
    the first layer would begin saturated.
    """
    if not name or variant.activation == ACTIVATIONS[name]:
        return variant
    variant = _with_units(variant, ACTIVATIONS[name])
    if name != 'sigmoid':
        return variant
    pixel_std = PIXEL_STD if variant.pixel_std == (1.0, 1.0, 1.0) else variant.pixel_std
    convs = tuple(dataclasses.replace(conv, init_std=None, init_bias=0.0) for conv in variant.convs)
    dense = tuple(dataclasses.replace(layer, init_std=None, init_bias=0.0) for layer in variant.dense)
    return dataclasses.replace(variant, convs=convs, dense=dense, pixel_std=pixel_std)
