"""AlexNet with a longer chain of 3x3 layers: nobody's networks, for lessons on what reaches the first of them."""

import dataclasses
import math

from alexnet_jax.model.spec import Conv, Variant

DEPTHS = (5, 10, 20)  # 3x3 layers, where AlexNet has three


def deepen(variant: Variant, count: int) -> Variant:
    """Returns `variant` with `count` 3x3 layers, two at least, in place of conv3 to conv5, called conv3, conv4, ...

    The first reads both towers as conv3 does, those behind it are like conv4, which reads its own, and the last like
    conv5, with its pooling. Biases are 0 and weights N(0, 2 / fan-in) (He et al. 2015, arXiv 1502.01852, equation 10),
    so that ReLUs hand on what they get at its size, however many there are; the other layers start as `variant`'s do.
    """
    first, second, entry, middle, last = variant.convs
    chain = [entry, *(dataclasses.replace(middle, name=f'conv{4 + i}') for i in range(count - 2))]
    chain.append(dataclasses.replace(last, name=f'conv{2 + count}'))
    convs, channels = [first, second], second.features

    def start(conv: Conv) -> Conv:
        fan_in = conv.kernel**2 * (channels if conv.reads == 'both' else channels // variant.towers)
        return dataclasses.replace(conv, init_std=math.sqrt(2 / fan_in), init_bias=0.0)

    for conv in chain:
        convs.append(start(conv))
        channels = conv.features
    source = f'none: {variant.name} with a chain of {count} layers of 3x3, of initial weights as in arXiv 1502.01852'
    return dataclasses.replace(variant, name=f'deep{count}', source=source, sources=(), convs=tuple(convs))
