"""The two-tower network written plainly, to compare with: one device, grouped convolutions, powers, no Flax.

Written from the paper's formulas and from layers-145.cfg, and sharing no code with the package: constants are repeated
here on purpose.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def conv(x, layer, *, stride=1, pad=((0, 0), (0, 0)), groups=1):
    y = lax.conv_general_dilated(
        x,
        layer['kernel'],
        (stride, stride),
        pad,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        feature_group_count=groups,
    )
    return y + layer['bias']


def pool(x):
    rows = [x[:, i : i + 2 * ((x.shape[1] - 3) // 2) + 1 : 2] for i in range(3)]
    x = jnp.stack(rows).max(axis=0)
    columns = [x[:, :, i : i + 2 * ((x.shape[2] - 3) // 2) + 1 : 2] for i in range(3)]
    return jnp.stack(columns).max(axis=0)


def average_pool(x):
    """The mean of each 3x3 window every 2: the nine shifted images, added up."""
    h, w = (2 * ((size - 3) // 2) + 1 for size in x.shape[1:3])
    return sum(x[:, i : i + h : 2, j : j + w : 2] for i in range(3) for j in range(3)) / 9


def small_average_pool(x):
    """The mean of each 2x2 window every 2: no pixel in two windows, the last row and column of odd sizes in none."""
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    return x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).mean(axis=(2, 4))


def channel_norm(x, alpha, k=2.0, beta=0.75, size=5, towers=2):
    """Tower by tower, channel by channel."""
    halves = []
    for tower in jnp.split(x, towers, axis=-1):
        channels = tower.shape[-1]
        sums = [
            sum(tower[..., j] ** 2 for j in range(max(0, i - size // 2), min(channels, i + size // 2 + 1)))
            for i in range(channels)
        ]
        halves.append(tower / (k + alpha * jnp.stack(sums, axis=-1)) ** beta)
    return jnp.concatenate(halves, axis=-1)


def spatial_norm(x, alpha, size=5, beta=0.75):
    half = size // 2
    squares = jnp.pad(x * x, ((0, 0), (half, half), (half, half), (0, 0)))
    h, w = x.shape[1:3]
    total = sum(squares[:, i : i + h, j : j + w] for i in range(size) for j in range(size))
    return x / (1 + alpha * total) ** beta


def relu(x):
    return jnp.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + jnp.exp(-x))


def caffe_norm(x):
    return channel_norm(x, 2e-5, k=1.0, towers=1)


# What follows the first and the second convolution, by variant.
FIRST = {
    'paper': lambda x, act=relu, pool=pool: pool(channel_norm(act(x), 1e-4)),
    'released': lambda x, act=relu, pool=pool: act(pool(channel_norm(x, 2e-5))),
    'caffe_alexnet': lambda x, act=relu, pool=pool: pool(caffe_norm(act(x))),
    'caffenet': lambda x, act=relu, pool=pool: caffe_norm(pool(act(x))),
}
SECOND = FIRST | {'released': lambda x, act=relu, pool=pool: pool(spatial_norm(channel_norm(act(x), 2e-5), 4e-5))}


def network(variant, params, x, masks, act=relu, pool=pool):
    """Logits; `masks` are the 0/1 arrays of fc6 and fc7, or None in testing. Caffe's are inverted."""
    if variant == 'one_weird_trick':
        return one_weird_trick(params, x, masks, act, pool)
    caffe = variant.startswith('caffe')
    if caffe:
        masks = [mask * 2 for mask in masks] if masks else (1.0, 1.0)
    edges = ((0, 0),) * 2 if caffe else ((0, 3), (0, 3))
    x = FIRST[variant](conv(x, params['conv1'], stride=4, pad=edges), act, pool)
    x = SECOND[variant](conv(x, params['conv2'], pad=((2, 2), (2, 2)), groups=2), act, pool)
    one = ((1, 1), (1, 1))
    x = act(conv(x, params['conv3'], pad=one))
    x = act(conv(x, params['conv4'], pad=one, groups=2))
    x = pool(act(conv(x, params['conv5'], pad=one, groups=2)))
    x = x.reshape(len(x), -1)
    for name, mask in zip(('fc6', 'fc7'), masks or (0.5, 0.5), strict=True):
        x = act(x @ params[name]['kernel'] + params[name]['bias']) * mask
    return x @ params['fc8']['kernel'] + params['fc8']['bias']


def one_weird_trick(params, x, masks, act=relu, pool=pool):
    """torchvision/models/alexnet.py; dropout before the first and the second fully connected layer, inverted."""
    first, second = [mask * 2 for mask in masks] if masks else (1.0, 1.0)
    x = pool(act(conv(x, params['conv1'], stride=4, pad=((2, 2), (2, 2)))))
    x = pool(act(conv(x, params['conv2'], pad=((2, 2), (2, 2)))))
    for name in ('conv3', 'conv4', 'conv5'):
        x = act(conv(x, params[name], pad=((1, 1), (1, 1))))
    x = pool(x).reshape(len(x), -1) * first
    x = act(x @ params['fc6']['kernel'] + params['fc6']['bias']) * second
    x = act(x @ params['fc7']['kernel'] + params['fc7']['bias'])
    return x @ params['fc8']['kernel'] + params['fc8']['bias']


def dropout_masks(key, rows, widths):
    """The rule, in loops: a unit's mask hangs on the step's key, the layer, the global row and the tower alone."""
    masks = []
    for layer, width in enumerate(widths):
        layer_key = jax.random.fold_in(key, layer)
        masks.append(
            np.stack(
                [
                    np.concatenate(
                        [
                            jax.random.bernoulli(
                                jax.random.fold_in(jax.random.fold_in(layer_key, row), tower),
                                jnp.float32(0.5),
                                (width // 2,),
                            )
                            for tower in range(2)
                        ]
                    )
                    for row in range(rows)
                ]
            ).astype(np.float64)
        )
    return masks


def mean_cross_entropy(logits, labels):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return (jnp.log(jnp.exp(shifted).sum(axis=1)) - shifted[jnp.arange(len(labels)), labels]).mean()


def paper_update(weights, gradients, rates, *, momentum=0.9, decay=5e-4, velocity=None):
    """Section 5's recurrence in NumPy: v <- .9 v - decay * rate * w - rate * g; w <- w + v. All w, in order."""
    w, v, path = weights, np.zeros_like(weights) if velocity is None else velocity, []
    for g, rate in zip(gradients, rates, strict=True):
        v = momentum * v - decay * rate * w - rate * g
        w = w + v
        path.append(w)
    return path


def lars_update(weights, gradients, rates, *, decay=5e-4, decayed=True, trust=0.001, momentum=0.9, velocity=None):
    """LARS in NumPy, from the paper's algorithm 1 and its authors' solver (see training/optimizer.py). All w, in order.

    `decayed`: whether the array is; the local rate is the same.
    """
    w, v, path = weights, np.zeros_like(weights) if velocity is None else velocity, []
    for g, rate in zip(gradients, rates, strict=True):
        size, slope = np.sqrt((w**2).sum()), np.sqrt((g**2).sum())
        local = trust * size / (slope + decay * size) if size > 0 and slope > 0 else 1.0
        v = momentum * v + rate * local * (g + decay * w * decayed)
        w = w - v
        path.append(w)
    return path
