"""Reads the published errors, each with the protocol under which it was measured: references.csv, beside this file."""

import csv
import dataclasses
import pathlib
from collections.abc import Collection

from alexnet_jax.model.spec import RECORD_SIZE, Variant
from alexnet_jax.model.zoo import NETWORKS

# What each is called as a prepared dataset, and which of its splits validates there. ILSVRC-2010 has the same 1000
# classes only in part, and other images.
DATASETS = {'ILSVRC-2012': ('imagenet2012', 'validation'), 'CIFAR-10': ('cifar10', 'test')}


@dataclasses.dataclass(frozen=True)
class Reference:
    """One published figure.

    Attributes:
      run: whose, such as 'released 145'.
      variant: the network of model.zoo that it is an error of; '' where that has none, or nobody knows: whether
        the paper's figures are those of its text or of the released code.
      change: how its network differs from the published one, in words; '' where it does not.
      without: the same as a name of model.ablations; '' for none, 'pretraining' for what has more data.
      models: how many networks' probabilities were averaged.
      protocol: 'centre', 'ten_view', or 'nine_view' (nine places of the crop, none mirrored), which is not tested here.
      top1_error, top5_error: fractions, 0..1; None where it was not published.
    """

    run: str
    variant: str
    change: str
    without: str
    models: int
    dataset: str
    split: str
    protocol: str
    top1_error: float
    top5_error: float | None
    source: str

    def is_of(self, networks: Collection[Variant]) -> bool:
        """Finds whether this is an error of one of `networks`, however it is called: of 'released' without norm too.

        When its colour noise ends and conv1 is slowed does not matter: each of these runs has its own log.
        """
        own = NETWORKS.get(self.variant)
        return own is not None and any(_take_times(network, own) == own for network in networks)

    def unlike(self, dataset: str, split: str) -> str:
        """Returns why an error on `split` of prepared `dataset` cannot be compared with this one; '' where it can."""
        name, validates = DATASETS.get(self.dataset, ('', ''))
        if name != dataset:
            other = 'the embedded dataset' if dataset == 'demo' else dataset
            return f'not comparable: {self.dataset}, not {other}'
        tested = validates if split == 'validation' else split
        return '' if tested == self.split else f'not comparable: {self.split}, not {split}'


def load_references() -> list[Reference]:
    """Reads every row of references.csv, in its order."""
    with (pathlib.Path(__file__).parent / 'references.csv').open(newline='') as file:
        return [_parse_reference(row) for row in csv.DictReader(file)]


def select_references(protocol: str, *, networks: Collection[Variant] = (), models: int = 1) -> list[Reference]:
    """Returns the rows of one protocol that belong beside `networks`, or an ensemble of `models`; the same come first.

    Rows of what lacks a part (Krizhevsky's ablations) belong beside networks that lack it, those of CIFAR-10 beside
    networks for it, all others beside any other.
    """
    small = {network.record_size < RECORD_SIZE for network in networks} or {False}
    without = {'', *(part for network in networks for part in network.without)}
    rows = [
        row
        for row in load_references()
        if row.protocol == protocol
        and row.without in without
        and (row.dataset == 'CIFAR-10') in small
        and (row.models == 1 or models > 1)
    ]
    return sorted(rows, key=lambda row: not row.is_of(networks))


def _take_times(network: Variant, own: Variant) -> Variant:
    lighting = dataclasses.replace(network.lighting, until=own.lighting.until)
    named = dataclasses.replace(network, name=own.name, source=own.source, sources=own.sources)
    return dataclasses.replace(named, lighting=lighting, lr_multipliers=own.lr_multipliers)


def _parse_reference(row: dict[str, str]) -> Reference:
    top1, top5, models = (row.pop(name) for name in ('top1', 'top5', 'models'))
    top5_error = float(top5) / 100 if top5 else None
    return Reference(**row, models=int(models), top1_error=float(top1) / 100, top5_error=top5_error)
