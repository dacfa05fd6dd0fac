"""A config: the author's 18pct for CIFAR-10 with and without four parts, on which no initial weight depends.

    alexnet sweep --config=experiments/ingredient_pilot.py --config.width=0.25 --config.steps=150 \\
        --config.learning_rate=0.004 --jobs=2 --workdir=runs/ingredient_pilot
    python -m experiments.ingredient_power runs/ingredient_pilot/results.csv

Runs of one seed have the same images in the same order and the same initial weights, so their errors are pairs. Seeds
come one after another, each with all of its runs: a sweep that is stopped early has whole pairs.
"""

import ml_collections

from alexnet_jax.model.cifar10 import DECAY
from alexnet_jax.sweep.points import Points, chain, each, product, seeds
from alexnet_jax.training.config import make_config

PARTS = ('norm', 'overlap', 'maximum', 'relu')


def get_config() -> ml_collections.ConfigDict:
    """The recipe of configs/cifar10.py:18pct, to be cut short."""
    config = make_config('cifar10', mesh=(1, 1))
    config.update(variant='cifar10_18pct', learning_rate=0.001, weight_decay=DECAY, epochs=140.0, schedule='steps')
    config.update(drop_epochs=(120.0, 130.0), evaluate_every=1_000_000, checkpoint_every=1_000_000, log_every=50)
    return config


def sweep() -> Points:
    """Eight seeds; of each the whole network and the network without each part."""
    return product(seeds(8), chain([{}], each('without', [(part,) for part in PARTS])))
