"""What reaches each layer in training with ReLU, tanh and sigmoid, as the runs' own looks into their steps tell it.

    for UNITS in relu tanh sigmoid; do python -m alexnet_jax.main --config=configs/two_device.py --config.steps=100 \\
        --config.probe_every=10 --config.evaluate_every=100 --config.activation=$UNITS --workdir=runs/$UNITS; done
    python -m experiments.signals OUTPUT.png runs/relu runs/tanh runs/sigmoid

Above: the norm of each kernel's gradient beside that of the last layer in the same look, so that what the loss and the
classifier do is left out. Below: the share of units that are lost, ReLUs that give 0 for all of the batch, values of
tanh and sigmoid where their slope is under a hundredth of its largest.
"""

import json
import pathlib
import sys

import matplotlib as mpl
import numpy as np

mpl.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.colors import LogNorm


def read_probes(run: pathlib.Path) -> list[dict[str, float]]:
    """Reads the run's looks, in order."""
    lines = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
    return [line for line in lines if line['split'] == 'probe']


def make_rows(probes: list[dict[str, float]], *ends: str) -> dict[str, np.ndarray]:
    """Makes {layer: (looks,)} of the first of `ends` that a layer has, in the layers' order."""
    layers = [key.split('/')[0] for key in probes[0] if key.endswith('/gradient')]
    found = {}
    for layer in layers:
        key = next((f'{layer}/{end}' for end in ends if f'{layer}/{end}' in probes[0]), None)
        if key:
            found[layer] = np.array([probe[key] for probe in probes], float)
    return found


def main(output: str, *runs: str) -> None:
    """Draws the picture; prints the medians over each run's looks."""
    figure, grid = plt.subplots(2, len(runs), figsize=(3.4 * len(runs), 6), layout='constrained', squeeze=False)
    for run, (above, below) in zip(map(pathlib.Path, runs), grid.T, strict=True):
        config = json.loads((run / 'config.json').read_text())
        name = config['activation'] or ('tanh' if 'relu' in config['without'] else 'relu')
        probes = read_probes(run)
        steps = [probe['step'] for probe in probes]
        gradients, lost = make_rows(probes, 'gradient'), make_rows(probes, 'dead', 'saturated')
        last = list(gradients)[-1]
        gradients = {layer: own / gradients[last] for layer, own in gradients.items()}
        options = ((above, gradients, {'norm': LogNorm(1e-6, 1)}), (below, lost, {'vmin': 0, 'vmax': 1}))
        for axes, rows, scale in options:
            image = axes.imshow(np.stack(list(rows.values())), aspect='auto', interpolation='nearest', **scale)
            axes.set_yticks(range(len(rows)), list(rows))
            axes.set_xticks(range(0, len(steps), 3), steps[::3])
            figure.colorbar(image, ax=axes)
        above.set_title(f'{name}: gradient, of {last}’s', size=10)
        below.set_title('dead' if name == 'relu' else 'saturated', size=10)
        below.set_xlabel('step')
        for title, rows in (('gradient', gradients), ('lost', lost)):
            medians = ', '.join(f'{layer} {np.median(own):.1e}' for layer, own in rows.items())
            print(f'{name}, {title}: {medians}')
    figure.savefig(output, dpi=110)


if __name__ == '__main__':
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
