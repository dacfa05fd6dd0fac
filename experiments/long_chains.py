"""What reaches each layer of deep5, deep10 and deep20 with ReLU, tanh and sigmoid, before training and soon after.

    python -m experiments.long_chains OUTPUT.png [DATASET [DATA_DIR]]

The norm of each kernel's gradient beside that of fc8 in the same look, so that what the loss and the classifier do is
left out, over the layers from conv1 to fc8. An eighth of the width, batch 32, one device, seed 0; the embedded dataset
if no other is named.
"""

import sys

import jax
import matplotlib as mpl
import numpy as np

mpl.use('Agg')
import matplotlib.pyplot as plt

from alexnet_jax.model.deep import DEPTHS
from alexnet_jax.run.batches import iter_batches
from alexnet_jax.run.init_from import create_state
from alexnet_jax.run.run_dir import open_or_render
from alexnet_jax.sharding.backend import prepare_backend
from alexnet_jax.training.build import build_run
from alexnet_jax.training.config import make_config
from alexnet_jax.training.layer_probe import make_layer_probe
from alexnet_jax.training.validation import validate_config

UNITS, STEPS = ('relu', 'tanh', 'sigmoid'), 30


def measure(units: str, depth: int, dataset: str, data_dir: str) -> dict[str, tuple[float, float]]:
    """Returns {layer: gradient norm of fc8's, before training and after STEPS steps}; prints them and the losses."""
    config = make_config(None if dataset == 'demo' else dataset, mesh=(1, 1))
    config.update(variant=f'deep{depth}', activation=units, width=0.125, batch_size=32, learning_rate=0.003)
    config.update(steps=STEPS, images_per_crop=1, data_dir=data_dir)
    checked = validate_config(config)
    prepared = open_or_render(checked.dataset, checked.data_dir)
    run = build_run(checked, num_classes=len(prepared.classes), examples=prepared.examples('train'))
    state, batches = create_state(run, prepared), iter_batches(run, prepared, start=0)
    batch = next(batches)
    step = run.make_train_step().lower(state, batch).compile()
    probe = make_layer_probe(run).lower(state, batch).compile()
    looks, losses = [jax.device_get(probe(state, batch))], []
    for _ in range(STEPS):
        state, metrics = step(state, batch)
        losses.append(float(metrics['loss']))
        batch = next(batches)
    looks.append(jax.device_get(probe(state, batch)))
    norms = [{layer.name: float(look[f'{layer.name}/gradient']) for layer in run.variant.layers} for look in looks]
    found = {layer: (norms[0][layer] / norms[0]['fc8'], norms[1][layer] / norms[1]['fc8']) for layer in norms[0]}
    ends = ', '.join(f'{layer} {found[layer][0]:.1e} -> {found[layer][1]:.1e}' for layer in ('conv1', 'conv3', 'fc6'))
    last = f'conv{depth + 2}'
    print(f'deep{depth}, {units}: {ends}, {last} {found[last][0]:.1e} -> {found[last][1]:.1e}; ', end='')
    print(f'loss {losses[0]:.3f} -> {np.mean(losses[-5:]):.3f}', flush=True)
    return found


def main(output: str, dataset: str = 'demo', data_dir: str = 'data') -> None:
    """Measures and draws all nine."""
    prepare_backend((1, 1))
    figure, grid = plt.subplots(1, len(UNITS), figsize=(11, 3.8), layout='constrained', sharex=True)
    for axes, units in zip(grid, UNITS, strict=True):
        for depth, colour in zip(DEPTHS, ('#2b6cb0', '#b7791f', '#c53030'), strict=True):
            found = measure(units, depth, dataset, data_dir)
            for look, style in enumerate(('-', ':')):
                label = f'{depth} layers of 3x3' if look == 0 else None
                axes.plot([both[look] for both in found.values()], style, color=colour, label=label, marker='.')
        axes.set(yscale='log', title=units, xlabel='layer, from conv1 to fc8')
        axes.grid(alpha=0.3)
    grid[0].set_ylabel('gradient, of fc8’s')
    grid[0].legend()
    grid[-1].plot([], [], 'k-', label='before training')
    grid[-1].plot([], [], 'k:', label=f'after {STEPS} steps')
    grid[-1].legend(handles=grid[-1].get_lines()[-2:])
    figure.savefig(output, dpi=110)


if __name__ == '__main__':
    if not 2 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
