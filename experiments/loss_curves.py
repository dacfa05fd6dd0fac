"""Draws the training losses of several runs, one line each: python -m experiments.loss_curves OUTPUT.png WORKDIR..."""

import json
import pathlib
import sys

import matplotlib as mpl

mpl.use('Agg')
import matplotlib.pyplot as plt


def main(output: str, *workdirs: str) -> None:
    """Training loss (nats, means over the log's intervals) and centre validation loss (points), against the step."""
    figure, axes = plt.subplots(figsize=(7, 4), layout='constrained')
    for workdir in map(pathlib.Path, workdirs):
        lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
        train = [line for line in lines if line['split'] == 'train']
        (curve,) = axes.plot([line['step'] for line in train], [line['loss'] for line in train], label=workdir.name)
        tests = [line for line in lines if line['split'] == 'validation' and line['protocol'] == 'centre']
        axes.plot([line['step'] for line in tests], [line['loss'] for line in tests], 'o', color=curve.get_color())
    axes.set(xlabel='step', ylabel='loss, nats', ylim=(0, None), xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(output, dpi=110)


if __name__ == '__main__':
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
