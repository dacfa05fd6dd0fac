"""A small two-tower network and, in NumPy and by hand, what it computes and what goes back through it.

Two convolutions with ReLU, normalisation within towers and overlapping pooling, a hidden layer with the paper's
dropout, a classifier. Float64; shares no code with the package but the network as data.
"""

import dataclasses
import math

import numpy as np

from alexnet_jax.model.spec import ChannelNorm, Conv, Dense, MaxPool, Relu
from alexnet_jax.model.zoo import NETWORKS

SIZE, CLASSES = 9, 4
K, ALPHA, BETA, NEIGHBOURS = 2.0, 0.3, 0.75, 3
PAD = ((1, 1), (1, 1))
_THEN = (Relu(), ChannelNorm(size=NEIGHBOURS, k=K, alpha=ALPHA, beta=BETA), MaxPool(3, 2))
VARIANT = dataclasses.replace(
    NETWORKS['paper'],
    name='slow',
    convs=(
        Conv('conv1', 8, 3, 'image', PAD, _THEN, 0.3, 0.0),
        Conv('conv2', 6, 3, 'tower', PAD, (Relu(),), 0.3, 0.1),
    ),
    dense=(Dense('fc6', 10, 0.2, 0.1), Dense('fc8', 0, 0.3, 0.0)),
    input_size=SIZE,
    record_size=SIZE,
)


def make_parameters(seed=0):
    """Float64, about half of the units active."""
    random = np.random.default_rng(seed)
    shapes = {'conv1': (3, 3, 3, 8), 'conv2': (3, 3, 4, 6), 'fc6': (96, 10), 'fc8': (10, CLASSES)}
    return {
        layer: {
            'kernel': random.normal(0, 2 * math.prod(shape[:-1]) ** -0.5, shape),
            'bias': random.normal(0, 0.1, shape[-1]),
        }
        for layer, shape in shapes.items()
    }


def make_images(count, seed=1):
    return np.random.default_rng(seed).normal(0, 1, (count, SIZE, SIZE, 3))


def convolve(x, layer, groups):
    """(h, w, i) -> (h, w, o), 3x3, padded by 1."""
    padded, (kernel, bias) = np.pad(x, (*PAD, (0, 0))), (layer['kernel'], layer['bias'])
    inputs, outputs = kernel.shape[2], kernel.shape[3] // groups
    y = np.zeros((*x.shape[:2], kernel.shape[3])) + bias
    for group in range(groups):
        read, made = (slice(group * n, (group + 1) * n) for n in (inputs, outputs))
        for i, j in np.ndindex(3, 3):
            y[..., made] += padded[i : i + len(x), j : j + len(x), read] @ kernel[i, j][:, made]
    return y


def convolve_back(signal, layer, groups, channels):
    """What arrives at the inputs: each output's signal times its kernel, added up."""
    kernel = layer['kernel']
    outputs, size = kernel.shape[3] // groups, len(signal)
    padded = np.zeros((size + 2, size + 2, channels))
    for row, column, o in np.ndindex(*signal.shape):
        group = o // outputs
        read = slice(group * kernel.shape[2], (group + 1) * kernel.shape[2])
        padded[row : row + 3, column : column + 3, read] += signal[row, column, o] * kernel[..., o]
    return padded[1:-1, 1:-1]


def list_neighbours(channel, channels):
    """Those within NEIGHBOURS // 2, of the same of two towers."""
    half, reach = channels // 2, NEIGHBOURS // 2
    first = channel // half * half
    return range(max(first, channel - reach), min(first + half, channel + reach + 1))


def get_bases(x):
    channels = x.shape[-1]
    sums = [sum(x[..., j] ** 2 for j in list_neighbours(i, channels)) for i in range(channels)]
    return K + ALPHA * np.stack(sums, axis=-1)


def normalise_back(signal, x):
    """Through y_i = x_i s_i^-beta: from each output i to each input j that it depends on."""
    channels, s, found = x.shape[-1], get_bases(x), np.zeros_like(x)
    for i in range(channels):
        found[..., i] += signal[..., i] * s[..., i] ** -BETA
        for j in list_neighbours(i, channels):
            slope = -BETA * s[..., i] ** (-BETA - 1) * 2 * ALPHA * x[..., j]
            found[..., j] += signal[..., i] * x[..., i] * slope
    return found


def pool(x):
    """Maxima of 3x3 windows every 2, and where in x each is: its switch."""
    side = (len(x) - 3) // 2 + 1
    y, switches = np.zeros((side, side, x.shape[-1])), {}
    for row, column, channel in np.ndindex(*y.shape):
        window = x[2 * row : 2 * row + 3, 2 * column : 2 * column + 3, channel]
        i, j = np.unravel_index(np.argmax(window), (3, 3))
        y[row, column, channel] = window[i, j]
        switches[row, column, channel] = (2 * row + i, 2 * column + j, channel)
    return y, switches


@dataclasses.dataclass
class Passed:
    """What one image became on its way."""

    linear1: np.ndarray
    switches: dict
    linear2: np.ndarray
    linear6: np.ndarray
    logits: np.ndarray


def classify(params, maps):
    """From what conv2's ReLU has made: fc6 before its ReLU, and the logits."""
    linear6 = maps.reshape(-1) @ params['fc6']['kernel'] + params['fc6']['bias']
    return linear6, np.maximum(linear6, 0) * 0.5 @ params['fc8']['kernel'] + params['fc8']['bias']


def go_forward(params, image):
    linear1 = convolve(image, params['conv1'], 1)
    active = np.maximum(linear1, 0)
    pooled, switches = pool(active * get_bases(active) ** -BETA)
    linear2 = convolve(pooled, params['conv2'], 2)
    return Passed(linear1, switches, linear2, *classify(params, np.maximum(linear2, 0)))


def go_back(params, passed, label, *, rectify, through_norm=True):
    """Sends 1 back from a logit to the pixels; rectify(what ReLU read, signal) is ReLU's way back."""
    signal = rectify(passed.linear6, 0.5 * params['fc8']['kernel'][:, label])
    signal = (params['fc6']['kernel'] @ signal).reshape(passed.linear2.shape)
    signal = convolve_back(rectify(passed.linear2, signal), params['conv2'], 2, 8)
    unpooled = np.zeros_like(passed.linear1)
    for place, switch in passed.switches.items():
        unpooled[switch] += signal[place]
    if through_norm:
        unpooled = normalise_back(unpooled, np.maximum(passed.linear1, 0))
    return convolve_back(rectify(passed.linear1, unpooled), params['conv1'], 1, 3)
