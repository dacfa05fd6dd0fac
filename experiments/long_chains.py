"""What reaches each layer of deep5, deep10 and deep20 with ReLU, tanh and sigmoid, before training and soon after.

    python -m experiments.long_chains OUTPUT.png [DATASET [DATA_DIR]]

The norm of each kernel's gradient beside that of fc8, so that what the loss and the classifier do is left out, over the
layers from conv1 to fc8; of 8 images of the embedded dataset, if no other is named, at an eighth of the width, nothing
dropped, before training, and of deep20 after five steps of momentum too. Operation by operation: the layers of a chain
have the same shapes, so that each is compiled once for all networks.
"""

import sys
from collections.abc import Sequence

import jax
import matplotlib as mpl
import numpy as np

mpl.use('Agg')
import matplotlib.pyplot as plt

from alexnet_jax.data.augment import centre_crop
from alexnet_jax.data.pipeline import TrainingBatches
from alexnet_jax.model import ops_cpu
from alexnet_jax.model.ablations import activate
from alexnet_jax.model.alexnet import AlexNet, init_parameters
from alexnet_jax.model.deep import DEPTHS
from alexnet_jax.model.zoo import NETWORKS
from alexnet_jax.run.run_dir import open_or_render
from alexnet_jax.sharding.backend import prepare_backend

UNITS, STEPS, IMAGES, WIDTH = ('relu', 'tanh', 'sigmoid'), 5, 8, 0.125
RATE, MOMENTUM = 0.003, 0.9
Batch = tuple[np.ndarray, np.ndarray]  # images (b, 224, 224, 3) with the mean subtracted, labels (b,)


def measure(units: str, depth: int, batches: Sequence[Batch], *, classes: int) -> list[dict[str, float]]:
    """Returns {layer: gradient norm of fc8's} of the first batch and, after STEPS steps, of the last; prints some."""
    variant = activate(NETWORKS[f'deep{depth}'], units).scaled(WIDTH)
    params = init_parameters(variant, jax.random.key(0), num_classes=classes)
    model, looks, losses = AlexNet(variant, classes, operations=ops_cpu), [], []

    def compute_loss(params: dict, batch: Batch) -> jax.Array:
        logits = model.apply({'params': params}, (batch[0] / np.array(variant.pixel_std)).astype(np.float32))
        return -jax.nn.log_softmax(logits)[np.arange(IMAGES), batch[1]].mean()

    velocity = jax.tree.map(np.zeros_like, params)
    for step, batch in enumerate(batches):
        loss, gradient = jax.value_and_grad(compute_loss)(params, batch)
        losses.append(float(loss))
        if step in (0, STEPS):
            norms = {layer.name: float(np.linalg.norm(gradient[layer.name]['kernel'])) for layer in variant.layers}
            looks.append({layer: norm / norms['fc8'] for layer, norm in norms.items()})
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v - RATE * g, velocity, gradient)
        params = jax.tree.map(lambda p, v: p + v, params, velocity)
    shown = ('conv1', 'conv3', f'conv{depth + 2}', 'fc6')
    text = ', '.join(layer + ' ->'.join(f' {look[layer]:.1e}' for look in looks) for layer in shown)
    print(f'deep{depth}, {units}: {text}; losses {" ".join(f"{loss:.2f}" for loss in losses)}', flush=True)
    return looks


def main(output: str, dataset: str = 'demo', data_dir: str = 'data') -> None:
    """Measures and draws all nine."""
    prepare_backend((1, 1))
    prepared = open_or_render(dataset, data_dir)
    mean, source = centre_crop(prepared.mean_image, 224), prepared.records('train')
    drawn = TrainingBatches(source, IMAGES, 0, np.zeros((3, 3), np.float32))
    batches = [(drawn[step].images - np.asarray(mean), drawn[step].labels) for step in range(STEPS + 1)]
    figure, grid = plt.subplots(1, len(UNITS), figsize=(11, 3.8), layout='constrained', sharex=True)
    for axes, units in zip(grid, UNITS, strict=True):
        for depth, colour in zip(DEPTHS, ('#2b6cb0', '#b7791f', '#c53030'), strict=True):
            used = batches if depth == DEPTHS[-1] else batches[:1]
            looks = measure(units, depth, used, classes=len(prepared.classes))
            for look, style, label in zip(looks, ('-', ':'), (f'{depth} layers of 3x3', None), strict=False):
                axes.plot(list(look.values()), style, color=colour, label=label, marker='.')
        axes.set(yscale='log', title=units, xlabel='layer, from conv1 to fc8')
        axes.grid(alpha=0.3)
    grid[0].set_ylabel('gradient, of fc8’s')
    grid[0].legend(title=f'dotted: after {STEPS} steps')
    figure.savefig(output, dpi=110)


if __name__ == '__main__':
    if not 2 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
