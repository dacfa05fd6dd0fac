"""Validates a configuration: each key by its own rule, then what keys say beside one another."""

from typing import Any

import ml_collections

from alexnet_jax.console import suggest
from alexnet_jax.errors import InputError
from alexnet_jax.model.ablations import CONTAINED, ablate
from alexnet_jax.model.zoo import NETWORKS
from alexnet_jax.training.config import (
    DEMO,
    KEYS,
    MESHES,
    ONE_WEIRD_TRICK,
    Config,
    make_config,
)
from alexnet_jax.training.config_rules import POSITIVE, is_factor, is_sequence, split_names


def validate_config(config: ml_collections.ConfigDict) -> Config:
    """Checks types, ranges and keys, once all overrides are in, and sets what follows from `parallelism`.

    Raises:
      InputError: one line that names the first wrong key, its value and what it must be.
    """
    for key in config:
        if key not in KEYS:
            raise InputError(f'unknown config key {key!r}: {suggest(key, KEYS)}')
    for key, field in KEYS.items():
        if key not in config:
            raise InputError(f'config key {key!r} is missing')
        rule = field.metadata['rule']
        if not rule.holds(config[key]):
            where, value = key, config[key]
            if key == 'rate_factors' and isinstance(value, ml_collections.ConfigDict):  # then one of its entries
                where, value = next((f'{key}.{layer}', x) for layer, x in value.items() if not is_factor(layer, x))
            raise InputError(f'config.{where} is {_format_value(value)}: it must be {rule.wants}')
    values: dict[str, Any] = {key: tuple(config[key]) if is_sequence(config[key]) else config[key] for key in KEYS}
    for key in ('without', 'frozen'):
        values[key] = tuple(split_names(values[key]))
    factors = config.rate_factors.to_dict()
    values['rate_factors'] = tuple((layer, float(factors[layer])) for layer in sorted(factors) if factors[layer] != 1)
    if 'relu' in values['without'] and values['activation'] not in ('', 'tanh'):
        raise InputError(
            f'config.without names relu, for which tanh stands in, and config.activation is {values["activation"]}: '
            f'leave one out'
        )
    # One network has one name, whichever way it was asked for, so that its run folder and its weights know it again.
    if values['activation'] == 'tanh':
        values['without'] = tuple(dict.fromkeys([*values['without'], 'relu']))
    if values['activation'] and values['activation'] != 'sigmoid':
        values['activation'] = ''
    if values['mesh'] is None:
        values['mesh'] = MESHES[values['parallelism']]
    if values['parallelism'] == ONE_WEIRD_TRICK and values['rate_batch_size'] is None:
        dataset = values['dataset']
        values['rate_batch_size'] = make_config(None if dataset == DEMO else dataset).batch_size
    checked = Config(**values)
    check_together(checked)
    return checked


def check_together(config: Config) -> None:
    """Checks what keys say beside one another; `InputError` as `validate_config`."""
    _check_mesh(config)
    _check_parts(config)
    _check_layers(config)
    if not config.init_from:
        for key in ('init_step', 'init_mean', 'classes'):
            if getattr(config, key) != KEYS[key].default:
                raise InputError(
                    f'config.{key} is {getattr(config, key)}, and config.init_from names no weights: name some, or '
                    f'leave it out'
                )


def _check_layers(config: Config) -> None:
    """Checks that the layers that are frozen, or have a rate of their own, are the network's, and one learns."""
    own = [layer.name for layer in NETWORKS[config.variant].layers]
    for key, layers in (('frozen', config.frozen), ('rate_factors', [layer for layer, _ in config.rate_factors])):
        if strangers := [layer for layer in layers if layer not in own]:
            raise InputError(
                f'config.{key} names {strangers[0]}, and the layers of config.variant {config.variant} are '
                f'{", ".join(own)}: leave it out'
            )
    if set(own) == set(config.frozen):
        raise InputError('config.frozen names every layer, so nothing would learn: leave one out')
    if both := [layer for layer, _ in config.rate_factors if layer in config.frozen]:
        raise InputError(f'config.frozen and config.rate_factors name {both[0]}: leave it out of one of them')


def _check_mesh(config: Config) -> None:
    """Checks that the devices of the mesh can share the network and the batch."""
    replicas, second = config.mesh
    if config.parallelism == ONE_WEIRD_TRICK:
        if not {'fc6', 'fc7'} <= {layer.name for layer in NETWORKS[config.variant].dense}:
            raise InputError(
                f'config.variant {config.variant} has no fc6 and fc7 for one weird trick to split: use '
                f'--config.parallelism=data_parallel --config.mesh=2,1'
            )
        replicas *= second
        hidden = [layer.features for layer in NETWORKS[config.variant].scaled(config.width).dense if layer.features]
        if second > 1 and (second % 2 or any(units % second for units in hidden)):
            raise InputError(
                f'config.mesh is {config.mesh}: its second number must be 1, or even and divide the {hidden[0]} '
                f'hidden units, which one weird trick splits'
            )
    elif second > 2:
        raise InputError(f'config.mesh is {config.mesh}: it must be {KEYS["mesh"].metadata["rule"].wants}')
    if config.batch_size % replicas:
        raise InputError(
            f'config.batch_size {config.batch_size} does not divide over the {replicas} data-parallel devices of '
            f'config.mesh {config.mesh}: use a multiple of {replicas}'
        )
    if config.batch_size // replicas % config.accumulate:
        raise InputError(
            f'config.accumulate {config.accumulate} does not divide the {config.batch_size // replicas} images that '
            f'a device has of config.batch_size {config.batch_size}: use a divisor of them'
        )
    rate = config.initial_learning_rate
    if not POSITIVE.holds(rate):
        raise InputError(
            f'config.learning_rate {config.learning_rate} for {config.rate_batch_size} images is {rate} for '
            f'{config.batch_size}: that must be {POSITIVE.wants}'
        )


def _check_parts(config: Config) -> None:
    """Checks what `without` and `crops` say beside other keys."""
    whole, trick = NETWORKS[config.variant], config.parallelism == ONE_WEIRD_TRICK
    for larger, smaller in CONTAINED:
        if {larger, smaller} <= set(config.without):
            raise InputError(f'config.without names {larger} and {smaller}, which {larger} is without too: name one')
        if larger in config.without and smaller in whole.without:
            raise InputError(
                f'config.without names {larger}, and config.variant {whole.name} is without {smaller}, which {larger} '
                f'takes away too: use --config.variant=released'
            )
    for name in config.without:
        if whole.towers == 1 and name in ('towers', 'exchange', 'conv3_exchange'):
            raise InputError(
                f'config.without names {name}, and config.variant {whole.name} has one tower: leave it out'
            )
        # Of the parts that hold another, the smaller tells: taken from what lacks it, they would not leave it as it is.
        if ablate(whole, ('conv3_exchange' if name == 'exchange' else name,)) == whole:
            raise InputError(f'config.without names {name}, which config.variant {whole.name} has not: leave it out')
    if trick and any(layer.reads == 'tower' for layer in ablate(whole, config.without).dense):
        key = 'config.without names exchange' if 'exchange' in config.without else f'config.variant is {whole.name}'
        mesh = '' if config.mesh[1] <= 2 else f' --config.mesh={config.mesh[0]},2'
        raise InputError(
            f'{key}, whose towers have fully connected layers of their own, and one weird trick has them split '
            f'otherwise: use --config.parallelism=two_device{mesh}'
        )
    if not whole.divisible and config.mesh[1] > 1 and not trick:
        raise InputError(
            f'config.variant {config.variant} has no two towers that could live apart, and config.mesh '
            f'{config.mesh} has devices for two: use --config.mesh={config.mesh[0]},1'
        )
    if 'towers' in config.without and config.mesh[1] > 1 and not trick:
        raise InputError(
            f'config.without names towers, which leaves one, and config.mesh {config.mesh} has devices for two: '
            f'use --config.mesh={config.mesh[0]},1'
        )
    offsets = (whole.record_size - whole.input_size + 1) ** 2
    if config.crops is not None and config.crops > offsets:
        raise InputError(
            f'config.crops is {config.crops}: {whole.input_size} of {whole.record_size} pixels can be cropped at '
            f'{offsets} offsets: use at most that'
        )
    if 'crops' in config.without and config.crops not in (None, 1):
        raise InputError(f'config.without names crops, and config.crops is {config.crops}: use one of them')


def _format_value(value: Any) -> str:
    if isinstance(value, ml_collections.ConfigDict):  # whose own text has a line for each entry
        return 'a table'
    try:
        return repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return 'too long a number'
