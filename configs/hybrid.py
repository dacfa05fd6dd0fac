"""Two towers on two devices each, and the batch split over such pairs: exchanges within a pair, gradients averaged.

python -m alexnet_jax.main --config=configs/hybrid.py[:DATASET] [--config.mesh=4,2]
"""

import ml_collections

from alexnet_jax.training.config import make_config


def get_config(dataset: str | None = None) -> ml_collections.ConfigDict:
    """The recipe for `dataset`, a prepared dataset's name; by default the embedded one."""
    return make_config(dataset, parallelism='hybrid')
