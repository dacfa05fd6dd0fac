"""Three ways to train with larger batches, on CIFAR-10: the sweep, and its table.

    alexnet sweep --config=experiments/large_batches.py --workdir=SWEEP
    python -m experiments.large_batches SWEEP/results.csv

80sec at a quarter of its width, equal epochs, a rate that falls to 0 as the square of the steps that are left. Plain
keeps the rate of 128 images; linear multiplies it by batch_size / 128 and warms up; LARS has the rates of its authors'
solver files at 1,024 and 4,096 (NVIDIA/caffe models/bvlc_alexnet); at 128, of which they say nothing, half of 1,024's.
"""

import csv
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import ml_collections

from alexnet_jax.model.cifar10 import CIFAR10, DECAY
from alexnet_jax.training.config import make_config

BATCHES = (128, 1024, 4096)
RATE, WARMUP, TRUST = 0.001, 0.5, 0.001  # 80sec's rate, of 128 images; epochs; the paper's
LARS_RATES = {128: 1.0, 1024: 2.0, 4096: 10.0}


def get_config() -> ml_collections.ConfigDict:
    """What all runs have: four epochs, one test at the end."""
    config = make_config('cifar10', mesh=(1, 1))
    config.update(variant=CIFAR10['cifar10_80sec'].name, width=0.25, weight_decay=DECAY, epochs=4.0)
    config.update(schedule='polynomial', evaluate_every=1_000_000, checkpoint_every=1_000_000, cache='memory')
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """The runs, the largest batch first; at 128 images linear is plain but for the warm-up."""
    for batch in reversed(BATCHES):
        warm = {'batch_size': batch, 'warmup_epochs': WARMUP}
        yield warm | {'learning_rate': LARS_RATES[batch], 'trust_coefficient': TRUST}
        yield warm | {'learning_rate': RATE * batch / 128}
        yield {'batch_size': batch, 'warmup_epochs': 0.0, 'learning_rate': RATE}


def table(path: pathlib.Path) -> str:
    """The centre top-1 errors in %, a row a batch, as Markdown, with the rate of each run."""
    cells: dict[tuple[int, str], str] = {}
    with path.open(newline='') as file:
        for row in csv.DictReader(file):
            if row['centre_top1_error']:
                rule = 'LARS' if row['trust_coefficient'] not in ('', 'none', 'None') else 'linear'
                rule = rule if float(row['warmup_epochs']) else 'plain'
                rate, error = float(row['learning_rate']), 100 * float(row['centre_top1_error'])
                cells[int(row['batch_size']), rule] = f'{error:.1f} ({rate:g})'
    lines = ['| batch | steps | plain | linear, warm-up | LARS, warm-up |', '|---|---|---|---|---|']
    for batch in BATCHES:
        own = [cells.get((batch, rule), '-') for rule in ('plain', 'linear', 'LARS')]
        lines.append(f'| {batch:,} | {-(-4 * 50_000 // batch):,} | {" | ".join(own)} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    print(table(pathlib.Path(sys.argv[1])))
