"""The network of 2012 as its code trained it, and its author's own ablations, each with the times of its log.

    python -m alexnet_jax.main --config=configs/released.py              on ImageNet, as prepared by alexnet prepare
    python -m alexnet_jax.main --config=configs/released.py:no_norm      or half, no_exchange, no_overlap

Epochs, drops of the rate, the end of the colour noise and conv1's slower rates are those of the log of each run, in CHM
layers/layer-params-145.cfg, 145-half, 150, 148 and 147. --config.dataset=NAME trains on another dataset. None of them
was run here.
"""

import ml_collections

from alexnet_jax.errors import InputError
from alexnet_jax.model.zoo import LOGS, VARIANTS
from alexnet_jax.training.config import make_config


def get_config(network: str | None = None) -> ml_collections.ConfigDict:
    """The recipe of `network`, a key of model.zoo.LOGS, by default 'released', for ImageNet."""
    network = network or 'released'
    if network not in LOGS:
        raise InputError(f'configs/released.py:{network}: there is no such network; use one of {", ".join(LOGS)}')
    config = make_config('imagenet2012', mesh=(1, 2) if VARIANTS[network].divisible else (1, 1))
    epochs, drops = LOGS[network]
    config.update(variant=network, schedule='steps', epochs=epochs, drop_epochs=drops)
    return config
