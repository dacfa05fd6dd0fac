"""Both towers on every device, the batch split over two devices, gradients averaged: no exchange between towers.

python -m alexnet_jax.main --config=configs/data_parallel.py[:DATASET] [--config.mesh=8,1]
"""

import ml_collections

from alexnet_jax.training.config import make_config


def get_config(dataset: str | None = None) -> ml_collections.ConfigDict:
    """The recipe for `dataset`, a prepared dataset's name; by default the embedded one."""
    return make_config(dataset, parallelism='data_parallel')
