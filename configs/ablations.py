"""The network without each of its parts in turn, on one device: what every part is worth.

    python -m alexnet_jax.main --config=configs/ablations.py --config.without=norm           one row, embedded dataset
    python -m alexnet_jax.main --config=configs/ablations.py:NAME --config.without=norm,overlap
    alexnet sweep --config=configs/ablations.py --workdir=runs/ablations            all rows and seeds

Names and sources: alexnet_jax/model/ablations.py. One device, because one row is a network of one tower; the others run
with --config.mesh=1,2 too, with the same results.
"""

from collections.abc import Iterator
from typing import Any

import ml_collections

from alexnet_jax.model.ablations import ABLATIONS
from alexnet_jax.training.config import make_config

SEEDS = (0, 1, 2)


def get_config(dataset: str | None = None) -> ml_collections.ConfigDict:
    """The recipe for `dataset`, a prepared dataset's name; by default the embedded one."""
    return make_config(dataset, mesh=(1, 1))


def sweep() -> Iterator[dict[str, Any]]:
    """Overrides of each run: the whole network, without each part, with 8 crops, with sigmoids; each seed in turn."""
    rows: list[dict[str, Any]] = [{'without': without} for without in ((), *((name,) for name in ABLATIONS))]
    rows += [{'without': (), 'crops': 8}, {'without': (), 'activation': 'sigmoid'}]
    for seed in SEEDS:
        yield from ({**row, 'seed': seed} for row in rows)
