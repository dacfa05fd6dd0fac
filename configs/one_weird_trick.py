"""One weird trick (Krizhevsky, arXiv 1404.5997): convolutions data-parallel, fully connected layers model-parallel.

python -m alexnet_jax.main --config=configs/one_weird_trick.py[:DATASET] [--config.mesh=1,8 --config.batch_size=1024]

Mesh (r, m): r groups of m devices. The learning rate grows with the batch: it is that of config.rate_batch_size images.
"""

import ml_collections

from alexnet_jax.training.config import make_config


def get_config(dataset: str | None = None) -> ml_collections.ConfigDict:
    """The recipe for `dataset`, a prepared dataset's name; by default the embedded one."""
    return make_config(dataset, parallelism='one_weird_trick')
