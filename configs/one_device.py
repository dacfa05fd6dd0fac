"""The same two towers, both on one device: the same parameters, checkpoints and results, and nothing to exchange.

python -m alexnet_jax.main --config=configs/one_device.py[:DATASET]
"""

import ml_collections

from alexnet_jax.training.config import make_config


def get_config(dataset: str | None = None) -> ml_collections.ConfigDict:
    """The recipe for `dataset`, a prepared dataset's name; by default the embedded one."""
    return make_config(dataset, mesh=(1, 1))
