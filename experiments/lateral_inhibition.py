"""Response normalisation as competition: what neighbouring channels of the first layer take from one another.

    python -m experiments.lateral_inhibition RUN_OR_WEIGHTS PHOTO OUTPUT.png

RUN_OR_WEIGHTS is a run folder or a file of weights of a network that reads pixels of 0..255 (paper, released, Caffe's).
The first layer's responses to PHOTO are normalised as paper, released and Caffe do, each with its own constants, order
of ReLU and neighbourhood (section 3.3 and the two programs). Above: the channels of the place with the strongest
response, before and after. Below: how much of a response its neighbours take as k, n, alpha and beta move, each from
the paper's.

A channel's inhibition is 1 - y / y_alone: what it has, beside what it would have if the other channels of its window
were silent. Its own response is in the sum too, so it shrinks without any neighbour; that part is not counted.
"""

import dataclasses
import pathlib
import sys

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np

from alexnet_jax.data.photo import square_image
from alexnet_jax.library import load
from alexnet_jax.model import ops
from alexnet_jax.model.spec import ChannelNorm, Relu, Variant
from alexnet_jax.model.zoo import PAPER, VARIANTS

mpl.use('Agg')
import matplotlib.pyplot as plt

FORMS = ('paper', 'released', 'caffe_alexnet')
SWEPT = {
    'k': (0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
    'size': (1, 3, 5, 7, 9, 15),
    'alpha': (1e-6, 1e-5, 2e-5, 1e-4, 1e-3, 1e-2),
    'beta': (0.0, 0.25, 0.5, 0.75, 1.0),
}
LABELS = {'size': 'n'}


def get_norm(variant: Variant) -> tuple[ChannelNorm, bool]:
    """Gets the norm behind the first layer, and whether a ReLU comes before it."""
    then = variant.convs[0].then
    (place,) = (index for index, operation in enumerate(then) if isinstance(operation, ChannelNorm))
    norm = then[place]
    assert isinstance(norm, ChannelNorm)
    return norm, any(isinstance(operation, Relu) for operation in then[:place])


def normalise(x: np.ndarray, norm: ChannelNorm, *, towers: int = 2) -> np.ndarray:
    """Normalises responses (h, w, channels) as the network does."""
    towers = 1 if norm.across_towers else towers
    return np.asarray(ops.channel_norm(jnp.asarray(x)[None], norm, towers=towers))[0]


def measure_inhibition(x: np.ndarray, norm: ChannelNorm, *, towers: int = 2) -> np.ndarray:
    """Measures what the neighbours take of each response (h, w, channels), 0..1; NaN where there is none."""
    alone = x / (norm.k + norm.alpha * x.astype(np.float64) ** 2) ** norm.beta
    with np.errstate(invalid='ignore'):
        return np.where(x == 0, np.nan, 1 - normalise(x, norm, towers=towers) / np.where(x == 0, 1, alone))


def weighted_mean(inhibition: np.ndarray, x: np.ndarray) -> float:
    """Averages over all responses, each by its size: of what the layer gives, the share that neighbours take."""
    return float(np.nansum(inhibition * np.abs(x)) / np.abs(x).sum())


def draw(linear: np.ndarray, output: pathlib.Path, *, towers: int) -> None:
    """Draws the figure of the first layer's responses (h, w, channels) before any ReLU; prints its numbers."""
    rectified = np.maximum(linear, 0)
    row, column, strongest = np.unravel_index(rectified.argmax(), rectified.shape)
    figure = plt.figure(figsize=(11, 8.5), layout='constrained')
    axes = figure.subplot_mosaic([[name] * 4 for name in FORMS] + [list(SWEPT)])
    places = np.arange(linear.shape[-1])
    for name in FORMS:
        norm, behind_relu = get_norm(VARIANTS[name])
        x = rectified if behind_relu else linear
        after, inhibition = normalise(x, norm, towers=towers), measure_inhibition(x, norm, towers=towers)
        own = after[row, column]
        axes[name].bar(places, x[row, column] / np.abs(x[row, column]).max(), width=0.9, color='0.8', label='before')
        axes[name].bar(places, own / np.abs(own).max(), width=0.45, color='C0', label='after')
        if towers == 2 and not norm.across_towers:
            axes[name].axvline(places.size / 2 - 0.5, color='C3', linewidth=0.8)
        share = weighted_mean(inhibition, x)
        top = inhibition[row, column, strongest]
        axes[name].set(
            title=f'{name}: k {norm.k:g}, n {norm.size}, alpha {norm.alpha:g}, beta {norm.beta:g}, '
            f'{"behind ReLU" if behind_relu else "signed, before ReLU"}; neighbours take {share:.1%} of all responses',
            xlim=(-1, places.size),
            ylabel='of the largest',
        )
        print(f'{name}: neighbours take {share:.2%} of all responses, {top:.2%} of the strongest')
    axes[FORMS[0]].legend(loc='upper right')
    norm, _ = get_norm(PAPER)
    for key, values in SWEPT.items():
        shares = []
        for value in values:
            moved = dataclasses.replace(norm, **{key: value})
            shares.append(100 * weighted_mean(measure_inhibition(rectified, moved, towers=towers), rectified))
        axes[key].plot(values, shares, 'o-')
        axes[key].axvline(getattr(norm, key), color='0.6', linewidth=0.8)
        axes[key].set(xlabel=LABELS.get(key, key), ylim=(0, None), xscale='log' if key == 'alpha' else 'linear')
        print(
            f'{LABELS.get(key, key)}: '
            + ', '.join(f'{v:g} {abs(s):.1f} %' for v, s in zip(values, shares, strict=True))
        )
    axes['k'].set_ylabel('neighbours take, %')
    figure.savefig(output, dpi=110)


def main(source: str, photo: str, output: str) -> None:
    """Draws the figure of a trained network and a photograph."""
    network = load(source)
    variant = network.network.variant
    record = square_image(
        pathlib.Path(photo).read_bytes(), record_size=variant.record_size, preprocessing=network.network.preprocessing
    )
    draw(np.asarray(network.features(record, 'conv1/linear')), pathlib.Path(output), towers=variant.towers)


if __name__ == '__main__':
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
