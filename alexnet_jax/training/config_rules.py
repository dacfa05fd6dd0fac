"""What a value of the config may be: a rule for each kind of key."""

import dataclasses
import re
import string
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from alexnet_jax.model.zoo import NETWORKS

MAX_STEPS = 2**31 - 1  # the step counter is an int32, and no other whole number here needs more
# Those of all networks, in order: conv1, ..., fc8.
LAYERS = tuple(
    sorted(
        {layer.name for network in NETWORKS.values() for layer in network.layers},
        key=lambda name: (name.rstrip(string.digits), int(name.lstrip(string.ascii_letters))),
    )
)
# The update computes in float32: what is not finite there, or is rounded to another bound, is refused.
_SMALLEST = 2.0**-126  # of its normal numbers; devices take smaller ones for 0
_ONE = 1 - 2.0**-25  # what it rounds to 1
_INFINITE = 2.0**128 - 2.0**103  # and to infinity


class Rule(NamedTuple):
    """A constraint: `wants` completes "KEY must be ...". `holds` never raises: it looks at the type first."""

    wants: str
    holds: Callable[[Any], bool]


def make_key(default: Any, rule: Rule, text: str, *, optional: type | None = None) -> Any:
    """Makes a field of `config.Config`; `optional` is the type of a key whose default is None."""
    if optional:
        rule = Rule(rule.wants, lambda value, holds=rule.holds: value is None or holds(value))  # type: ignore[misc]
    return dataclasses.field(default=default, metadata={'rule': rule, 'text': text, 'optional': optional})


def is_sequence(value: Any) -> bool:
    """Tells whether `value` is a tuple or a list."""
    return isinstance(value, tuple | list)


def split_names(value: Any) -> list[str]:
    """Splits the entries of a value that names things: --config.without=a,b comes as ('a,b',)."""
    return [name for entry in value for name in entry.split(',')]


def is_real(value: Any) -> bool:
    """Tells whether `value` is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: Any, least: int = 1) -> bool:
    """Tells whether `value` is a whole number from `least` to MAX_STEPS."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MAX_STEPS


def is_epochs(value: Any) -> bool:
    """Tells whether `value` is a number of epochs that can be counted in steps."""
    return is_real(value) and 0 < value <= MAX_STEPS


def are_names(value: Any, known: Collection[str]) -> bool:
    """Tells whether `value` names some of `known`, each once; an entry is a name, or several with commas between."""
    if not is_sequence(value) or not all(isinstance(entry, str) for entry in value):
        return False
    names = split_names(value)
    return set(names) <= set(known) and len(set(names)) == len(names)


def is_factor(layer: Any, value: Any) -> bool:
    """Tells whether `layer` is one of LAYERS, and `value` may multiply its rate."""
    return layer in LAYERS and POSITIVE.holds(value)


def are_factors(value: Any) -> bool:
    """Tells whether `value` is a table of layers and factors."""
    return isinstance(value, ConfigDict) and all(is_factor(layer, factor) for layer, factor in value.items())


def make_int_rule(least: int) -> Rule:
    """Makes the rule of whole numbers from `least` on."""
    return Rule(f'a whole number, at least {least} and at most 2**31 - 1', lambda value: is_whole(value, least))


def make_choice_rule(*names: str, wants: str = '') -> Rule:
    """Makes the rule of a choice; `wants` says it otherwise than by listing the names."""
    return Rule(wants or f'one of {", ".join(names)}', lambda value: isinstance(value, str) and value in names)


FLAG = Rule('True or False', lambda value: isinstance(value, bool))
POSITIVE = Rule('above 0 and finite (in float32)', lambda value: is_real(value) and _SMALLEST <= value < _INFINITE)
FRACTION = Rule('at least 0 and below 1 (in float32)', lambda value: is_real(value) and 0 <= value < _ONE)
DATASET_NAME = Rule(
    'the name of a prepared dataset: lower-case letters, digits and underscores, a letter first',
    lambda value: isinstance(value, str) and re.fullmatch(r'[a-z][a-z0-9_]*', value) is not None,
)
FOLDER = Rule(
    'a folder, of printable characters',
    lambda value: isinstance(value, str) and value != '' and value.isprintable(),
)
