"""Measures how the cost grows with batch, width and devices, and draws it.

    python -m experiments.cost_growth OUTPUT.png [ROUNDS]

Runs `bench step` once for each width, all batch sizes in it, and prints a table. The largest step takes 22 GB for the
two measured processes together.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import matplotlib as mpl

mpl.use('Agg')
import matplotlib.pyplot as plt

BATCHES, WIDTHS = (1, 8, 32, 128, 512, 1024), (0.125, 0.25, 0.5, 1.0)
DEVICES = {'one_device': 'one device', 'two_device': 'two devices'}


def measure(width: float, rounds: int) -> dict[str, Any]:
    """bench's figures by batch size."""
    batches = ','.join(map(str, BATCHES))
    command = [sys.executable, '-m', 'alexnet_jax', 'bench', 'step', '--json', '--nolayers', '--seconds=0.5']
    command += [f'--width={width}', f'--batch={batches}', f'--rounds={rounds}']
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])['by_batch']


def main(output: str, rounds: int = 3) -> None:
    """Prints the table and writes the plot."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout='constrained')
    print('| width | batch | one device, images/s | two devices | inference, one device | MB, one device | two |')
    print('|---|---|---|---|---|---|---|')
    for index, width in enumerate(WIDTHS):
        found = measure(width, rounds)
        for line, device in zip(('-', '--'), DEVICES, strict=True):
            train = [(figures if device == 'one_device' else figures[device])['train'] for figures in found.values()]
            speeds = [program['images_per_second'] for program in train]
            peaks = [figures['peak_bytes'][device] / 1e9 for figures in found.values()]
            label = f'width {width:g}, {DEVICES[device]}'
            for axis, values in zip(axes, (speeds, peaks), strict=True):
                axis.loglog(BATCHES, values, line, color=f'C{index}', marker='.', label=label)
        for batch, figures in found.items():
            one, two = figures['train'], figures['two_device']['train']
            peaks = ' | '.join(f'{figures["peak_bytes"][device] / 1e6:,.0f}' for device in DEVICES)
            speeds = f'{one["images_per_second"]:.1f} | {two["images_per_second"]:.1f}'
            inference = figures['inference']['images_per_second']
            print(f'| {width:g} | {batch} | {speeds} | {inference:.1f} | {peaks} |', flush=True)
    axes[0].set(xlabel='batch', ylabel='training, images/s')
    axes[1].set(xlabel='batch', ylabel='peak memory of training, GB')
    for axis in axes:
        axis.grid(alpha=0.3, which='both')
    axes[0].legend(fontsize=7)
    figure.savefig(output, dpi=110)


if __name__ == '__main__':
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], *map(int, sys.argv[2:]))
