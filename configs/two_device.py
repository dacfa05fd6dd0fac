"""The paper's AlexNet: one tower on each of two devices, talking only before conv3, fc6, fc7 and fc8.

    python -m alexnet_jax.main --config=configs/two_device.py               the embedded dataset
    python -m alexnet_jax.main --config=configs/two_device.py:imagenet2012  the paper's recipe

On a machine without two accelerators the devices are virtual ones of the CPU: the same program, slower.
"""

import ml_collections

from alexnet_jax.training.config import make_config


def get_config(dataset: str | None = None) -> ml_collections.ConfigDict:
    """The recipe for `dataset`, a prepared dataset's name; by default the embedded one."""
    return make_config(dataset, parallelism='two_device')
