"""Functions that a config's sweep() is written with: lists of points, a point being a dict of config overrides.

def sweep():
    rates = each('learning_rate', [0.001, 0.003, 0.01])
    plain = product(rates, each('momentum', [0.0, 0.9]))
    return product(chain(plain, [{'schedule': 'plateau'}]), seeds(4))
"""

import itertools
from collections.abc import Iterable
from typing import Any

from alexnet_jax.errors import InputError

Points = list[dict[str, Any]]


def each(key: str, values: Iterable[Any]) -> Points:
    """Makes a point for each value of one config key."""
    return [{key: value} for value in values]


def seeds(count: int) -> Points:
    """Makes a point for each seed from 0 to `count` - 1; results are means over seeds."""
    return each('seed', range(count))


def product(*sweeps: Iterable[dict[str, Any]]) -> Points:
    """Makes every combination, the last changing fastest; InputError where two set the same key."""
    return [_merge(*points) for points in itertools.product(*map(list, sweeps))]


def zip_(*sweeps: Iterable[dict[str, Any]]) -> Points:
    """Combines the first points of all, the second points of all, ...; InputError where the lengths differ."""
    lists = list(map(list, sweeps))
    if len({len(points) for points in lists}) > 1:
        raise InputError(f'zip_ of {" and ".join(str(len(points)) for points in lists)} points: they must be as many')
    return [_merge(*points) for points in zip(*lists, strict=True)]


def chain(*sweeps: Iterable[dict[str, Any]]) -> Points:
    """Appends the points of each sweep to those of the one before."""
    return [dict(point) for point in itertools.chain(*sweeps)]


def _merge(*points: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for point in points:
        if repeated := merged.keys() & point.keys():
            raise InputError(f'a product or zip_ in which {" and ".join(sorted(repeated))} is set twice')
        merged |= point
    return merged
