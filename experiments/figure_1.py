"""The paper's figure 1 from finished runs: epochs to 25 % training error on CIFAR-10, ReLU against tanh.

    python -m experiments.figure_1 OUTPUT.png RUN_RELU RUN_TANH

An epoch's training error is the mean over its batches, each before its update; between two epochs' ends it is taken to
be on a straight line. Prints where each network crosses 25 % and the ratio of the two.
"""

import json
import pathlib
import sys

import matplotlib as mpl
import numpy as np

mpl.use('Agg')
import matplotlib.pyplot as plt

TARGET = 0.25  # "reaches a 25% training error rate on CIFAR-10 six times faster"


def errors_by_epoch(run: pathlib.Path) -> np.ndarray:
    """The mean training error of each epoch that is in the log to its end, 0..1."""
    lines = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
    tests = [line for line in lines if line['split'] == 'validation' and line['protocol'] == 'centre']
    ends = [line['step'] for line in tests]  # one ends each epoch
    sums, steps, before, epoch = np.zeros(len(ends)), np.zeros(len(ends)), 0, 0
    for line in lines:
        if line['split'] != 'train' or epoch == len(ends):
            continue
        sums[epoch] += line['top1_error'] * (line['step'] - before)
        steps[epoch] += line['step'] - before
        before = line['step']
        epoch += before == ends[epoch]  # the log has a line at every epoch's end
    return sums / steps


def crossing(errors: np.ndarray, target: float = TARGET) -> float | None:
    """Epochs until the error is `target`; None where it never is."""
    below = np.flatnonzero(errors <= target)
    if not len(below):
        return None
    end = int(below[0])
    if end == 0:
        return 1.0
    return end + float((errors[end - 1] - target) / (errors[end - 1] - errors[end]))


def main(output: str, *runs: str) -> None:
    """Draws the runs, the first of which is ReLU's, and prints their crossings."""
    figure, axes = plt.subplots(figsize=(5.5, 4), layout='constrained')
    crossings = []
    for run, style in zip(map(pathlib.Path, runs), ('-', '--'), strict=True):
        config = json.loads((run / 'config.json').read_text())
        name = 'tanh' if 'relu' in config['without'] else 'ReLU'
        errors = errors_by_epoch(run)
        crossings.append(crossing(errors))
        axes.plot(range(1, len(errors) + 1), errors, f'k{style}', label=f'{name}, rate {config["learning_rate"]:g}')
        print(f'{name}: {len(errors)} epochs, last {errors[-1]:.1%}; {TARGET:.0%} after {crossings[-1]} epochs')
    if None not in crossings:
        print(f'ratio: {crossings[1] / crossings[0]:.1f}')
    axes.axhline(TARGET, color='0.6', linewidth=0.8)
    axes.set(xlabel='epochs', ylabel='training error rate', ylim=(0, 0.75), xlim=(0, None))
    axes.legend()
    figure.savefig(output, dpi=110)


if __name__ == '__main__':
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
