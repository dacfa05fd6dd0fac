"""Draws the learning curves of a run: python -m experiments.training_curve WORKDIR OUTPUT.png."""

import json
import pathlib
import sys

import matplotlib as mpl

mpl.use('Agg')
import matplotlib.pyplot as plt


def main(workdir: str, output: str) -> None:
    """Training error (means over the log's intervals) and centre validation error, against images seen."""
    run = pathlib.Path(workdir)
    config = json.loads((run / 'config.json').read_text())
    lines = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
    tests = [line for line in lines if line['split'] == 'validation']
    figure, axes = plt.subplots(figsize=(7, 4), layout='constrained')
    for name, chosen in (
        ('training batches', [line for line in lines if line['split'] == 'train']),
        ('validation, centre', [line for line in tests if line['protocol'] == 'centre']),
    ):
        seen = [line['step'] * config['batch_size'] for line in chosen]
        axes.plot(seen, [100 * line['top1_error'] for line in chosen], label=name, marker='.' if 'val' in name else '')
    ten_view = [line for line in lines if line.get('protocol') == 'ten_view']
    if ten_view:
        last = ten_view[-1]
        axes.plot(last['step'] * config['batch_size'], 100 * last['top1_error'], 'k*', label='validation, ten-view')
    axes.set(
        title=f'{config["dataset"]}: {config["variant"]}, width {config["width"]:g}',
        xlabel='training images seen',
        ylabel='top-1 error, %',
        ylim=(0, None),
        xlim=(0, None),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(output, dpi=110)


if __name__ == '__main__':
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
