"""Krizhevsky's own networks for CIFAR-10, with his schedules: 80sec, 19pct, 18pct, 13pct and 11pct.

80sec_published, 19pct_published and 18pct_published are the first three as they were when their errors were published,
11pct_draft a form of 11pct that was replaced at once: model/cifar10.py.

    alexnet prepare --images=DIR --name=cifar10 --size=32         DIR/{train,validation}/<class>/<image>
    python -m alexnet_jax.main --config=configs/cifar10.py                      80sec: ten epochs
    python -m alexnet_jax.main --config=configs/cifar10.py:18pct
    alexnet sweep --config=configs/cifar10.py:80sec --workdir=runs/80sec    three seeds

One device; --config.mesh=2,1 shares the batch of two. docs/cifar10.md: what was measured.
"""

from collections.abc import Iterator
from typing import Any

import ml_collections

from alexnet_jax.errors import InputError
from alexnet_jax.model.cifar10 import CIFAR10, DECAY
from alexnet_jax.training.config import make_config

# (epochs, those after which the rate is divided by 10), from the head of each layer-params file: 18pct's in CHM and CC,
# 80sec's and 11pct's in CC alone: of 11pct about 350 and 150, ten and ten, at commit 3878e8f 300 for 350. 80sec's does
# not say when it ends. 19pct's says nothing: it has 18pct's. 13pct's names a web page that is gone: it has 11pct's.
_LONG = (140.0, (120.0, 130.0))
SCHEDULES = {
    '80sec': (10.0, (8.0,)),
    '19pct': _LONG,
    '18pct': _LONG,
    '80sec_published': (10.0, (8.0,)),
    '19pct_published': _LONG,
    '18pct_published': _LONG,
    '13pct': (520.0, (500.0, 510.0)),
    '11pct': (520.0, (500.0, 510.0)),
    '11pct_draft': (470.0, (450.0, 460.0)),
}


def get_config(network: str | None = None) -> ml_collections.ConfigDict:
    """The recipe of `network`, a key of SCHEDULES, by default 80sec, for the prepared dataset 'cifar10'."""
    network = network or '80sec'
    if network not in SCHEDULES:
        raise InputError(f'configs/cifar10.py:{network}: there is no such network; use one of {", ".join(SCHEDULES)}')
    config = make_config('cifar10', mesh=(1, 1))
    config.update(variant=CIFAR10[f'cifar10_{network}'].name, learning_rate=0.001, weight_decay=DECAY)
    epochs, drops = SCHEDULES[network]
    config.update(epochs=epochs, schedule='steps', drop_epochs=drops)
    return config


def sweep() -> Iterator[dict[str, Any]]:
    """Three seeds."""
    yield from ({'seed': seed} for seed in (0, 1, 2))
