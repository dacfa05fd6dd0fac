"""The error of training and of validation images under one protocol, in runs with and without dropout and augmentation.

    python -m experiments.overfitting OUTPUT.png runs/neither runs/dropout runs/augmentation runs/both

Reads what runs with --config.test_training_images=N have logged; docs/lessons/overfitting.md has their commands.
Thin lines are what training itself reports: of random crops, with units dropped.
"""

import json
import pathlib
import sys

import matplotlib as mpl

mpl.use('Agg')
import matplotlib.pyplot as plt


def main(output: str, *runs: str) -> None:
    """Draws a panel for each run; prints the errors after its last update."""
    figure, grid = plt.subplots(1, len(runs), figsize=(3 * len(runs), 3.4), layout='constrained', sharey=True)
    for run, axes in zip(map(pathlib.Path, runs), grid, strict=True):
        lines = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
        tested = [line for line in lines if line.get('protocol') == 'centre']
        curves = {
            'in training': ([line for line in lines if line['split'] == 'train'], {'color': '#a0aec0', 'linewidth': 1}),
            'training images': ([line for line in tested if line['split'] == 'training_images'], {'linestyle': '--'}),
            'validation images': ([line for line in tested if line['split'] == 'validation'], {'linestyle': '-'}),
        }
        for label, (points, style) in curves.items():
            style = style if 'color' in style else style | {'color': '#2b6cb0', 'marker': 'o', 'markersize': 3}
            steps, errors = [line['step'] for line in points], [100 * line['top1_error'] for line in points]
            axes.plot(steps, errors, label=label, **style)
        trained, training, validation = (points[-1]['top1_error'] for points, _ in curves.values())
        axes.set(title=f'{run.name}: gap {100 * (validation - training):.0f} points', xlabel='updates', ylim=(0, 100))
        axes.grid(alpha=0.3)
        print(
            f'{run.name}: step {tested[-1]["step"]}, training images {training:.1%}, validation {validation:.1%}, gap '
            f'{100 * (validation - training):.1f} points; in training {trained:.1%}'
        )
    grid[0].set_ylabel('top-1 error, %')
    grid[0].legend()
    figure.savefig(output, dpi=110)


if __name__ == '__main__':
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
