"""What pooling leaves of a photograph's edges: the maximum and the mean of windows, overlapping and not.

    python -m experiments.pooling_edges PHOTO OUTPUT.png

The photograph's edges, the length of its luminance's gradient, are pooled once, twice and three times as the network
pools its maps: 3x3 every 2 (paper section 3.4), or 2x2 every 2. The number is what is left of the strongest edges:
the mean of the hundredth part of the map with the largest values, beside that of the photograph's. Below: a line, one
pixel wide, that moves over the image by a pixel at a time, and what the middle of the map has of it after two poolings.
"""

import pathlib
import sys

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np

from alexnet_jax.data.augment import centre_crop
from alexnet_jax.data.photo import square_image
from alexnet_jax.model import ops
from alexnet_jax.model.spec import AveragePool, MaxPool

mpl.use('Agg')
import matplotlib.pyplot as plt

FORMS = {
    'maximum, 3x3 every 2': MaxPool(3, 2),
    'maximum, 2x2 every 2': MaxPool(2, 2),
    'mean, 3x3 every 2': AveragePool(3, 2),
    'mean, 2x2 every 2': AveragePool(2, 2),
}
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
_STRONGEST = 99  # percentile
_SIDE, _MOVES = 63, 16  # of the image with the line, and how far the line goes


def pool(image: np.ndarray, form: MaxPool | AveragePool, times: int) -> np.ndarray:
    """Pools (h, w) so many times."""
    x = jnp.asarray(image, jnp.float32)[None, :, :, None]
    for _ in range(times):
        x = ops.max_pool(x, form) if isinstance(form, MaxPool) else ops.average_pool(x, form)
    return np.asarray(x)[0, :, :, 0]


def measure_strongest(image: np.ndarray) -> float:
    """Averages the hundredth part of the values that are largest."""
    return float(image[image >= np.percentile(image, _STRONGEST)].mean())


def trace_line(form: MaxPool | AveragePool) -> list[float]:
    """Lists what the middle of the map has of a vertical line, at each place of the line."""
    found = []
    for move in range(_MOVES):
        image = np.zeros((_SIDE, _SIDE))
        image[:, _SIDE // 2 - _MOVES // 2 + move] = 1
        pooled = pool(image, form, 2)
        found.append(float(pooled[tuple(side // 2 for side in pooled.shape)]))
    return found


def find_edges(image: np.ndarray) -> np.ndarray:
    """Finds how strong the edges of an RGB image (h, w, 3) are: (h, w), grey levels a pixel."""
    rows, columns = np.gradient(image @ np.array(_LUMINANCE))
    return np.hypot(rows, columns)


def draw(edges: np.ndarray, output: pathlib.Path) -> None:
    """Draws the figure of the edges of an image (h, w) and prints its numbers."""
    figure, axes = plt.subplots(len(FORMS), 5, figsize=(11, 9), layout='constrained')
    for (name, form), own in zip(FORMS.items(), axes, strict=True):
        left = [measure_strongest(pool(edges, form, times)) / measure_strongest(edges) for times in range(4)]
        for times, (axis, share) in enumerate(zip(own, left, strict=False)):
            pooled = pool(edges, form, times)
            axis.imshow(pooled, cmap='gray', vmin=0, vmax=np.percentile(edges, 99.5), interpolation='nearest')
            axis.set_title(f'{pooled.shape[0]}x{pooled.shape[1]}: {share:.0%}', size=9)
            axis.set(xticks=[], yticks=[])
        own[0].set_ylabel(name)
        line = trace_line(form)
        own[-1].plot(line, 'o-', markersize=3)
        own[-1].set(ylim=(-0.05, 1.05), xticks=[], title='a line that moves')
        print(
            f'{name}: {", ".join(f"{share:.1%}" for share in left[1:])} left; line {min(line):.2f} to {max(line):.2f}'
        )
    figure.savefig(output, dpi=110)


def main(photo: str, output: str) -> None:
    """Draws the figure of a photograph's centre."""
    record = square_image(pathlib.Path(photo).read_bytes())
    draw(find_edges(np.asarray(centre_crop(record, 224))), pathlib.Path(output))


if __name__ == '__main__':
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
