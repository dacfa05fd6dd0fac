"""The configuration of a run: every number that affects a result, its default, and the checks on what users set.

A config file is Python code, and --config=FILE executes it: give it none that you would not run yourself. The values of
--config.KEY=VALUE are only ever read as values.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import ml_collections
from ml_collections import config_dict

from alexnet_jax import InputError
from alexnet_jax.model.ablations import ABLATIONS, CONTAINED, ablate
from alexnet_jax.model.catalogue import NETWORKS

DEMO = 'demo'  # the embedded dataset's name
ONE_WEIRD_TRICK = 'one_weird_trick'
# What devices share, by name, and the smallest mesh of each: (data, tower), of one weird trick (data, model).
MESHES = {'two_device': (1, 2), 'data_parallel': (2, 1), 'hybrid': (2, 2), ONE_WEIRD_TRICK: (1, 2)}
MOST_STEPS = 2**31 - 1  # the step counter is an int32, and no other whole number here needs more
# The update computes in float32: what is not a number there, or is rounded to another bound, is no use.
_SMALLEST = 2.0**-126  # of its normal numbers; devices take smaller ones for 0
_ONE = 1 - 2.0**-25  # what it rounds to 1
_INFINITE = 2.0**128 - 2.0**103  # and to infinity
_IN_FLOAT32, _AT_MOST = ' (in float32)', ' and at most 2**31 - 1'  # ends of what rules want


def recipe(
    dataset: str | None, *, parallelism: str = 'two_device', mesh: tuple[int, int] | None = None
) -> ml_collections.ConfigDict:
    """The paper's recipe for `dataset`, or for the embedded one (None) a small network that takes minutes.

    Args:
      dataset: name of a prepared dataset.
      parallelism: one of MESHES.
      mesh: (data, tower) device counts; None: the smallest of `parallelism`.
    """
    config = ml_collections.ConfigDict()
    # The network
    config.variant = 'paper'  # the text; or 'released', CHM layers-145, and others: alexnet_jax/model/catalogue.py
    config.width = 1.0  # channels and units, as a fraction of the paper's
    config.without = ()  # parts to take away (--config.without=norm,overlap): alexnet_jax/model/ablations.py
    # The data
    config.dataset = dataset or DEMO
    config.data_dir = 'data'  # where prepared datasets are: DATA_DIR/DATASET/VERSION
    config.lighting = True  # RGB noise along the principal components, strength by variant
    config.crops = config_dict.placeholder(int)  # offsets to crop at, the centre and others; None: the variant's
    config.images_per_crop = config_dict.placeholder(int)  # that share crop and flip; None: 1 of paper, 32 of released
    # The run
    config.seed = 0
    config.batch_size = 128  # section 5; of all devices together
    config.epochs = 90.0  # section 5: "roughly 90 cycles"
    config.steps = config_dict.placeholder(int)  # updates; where set, overrides epochs
    config.parallelism = parallelism  # two_device, data_parallel, hybrid or one_weird_trick: docs/parallelism.md
    config.mesh = config_dict.placeholder(tuple)  # (data, tower) devices; None: the smallest mesh of parallelism
    config.mesh = mesh
    config.precision = 'float32'  # or 'bfloat16': activations and products; weights, norms, softmax stay float32
    config.deterministic = (
        False  # the same bits from every run: GPU kernels chosen for it, CPU thread pools of one size
    )
    # The update (section 5)
    config.learning_rate = 0.01
    # Batch size that learning_rate is for, and with which it grows; None: it is what it says, but with one weird trick
    # the default batch size.
    config.rate_batch_size = config_dict.placeholder(int)
    config.momentum = 0.9
    config.weight_decay = 5e-4
    config.schedule = 'plateau'  # the paper's rule, or 'steps': drops at fixed epochs
    config.drop_factor = 0.1  # what a drop multiplies the learning rate by
    config.drop_epochs = (24.0, 50.0, 78.0)  # of schedule 'steps' (CHM layer-params-145.cfg: "epoch 25", 51, 79)
    config.patience = 5  # of schedule 'plateau': evaluations without a better error before a drop
    config.max_drops = 3  # of schedule 'plateau': "reduced three times prior to termination"
    config.clip_norm = config_dict.placeholder(float)  # gradients' norm is scaled down to this; None: never
    # Watching and keeping
    config.evaluate_every = 0  # steps between validations; 0: once an epoch
    config.checkpoint_every = 0  # steps between checkpoints; 0: once an epoch
    config.keep_checkpoints = 3  # the latest ones; the best is kept besides
    config.log_every = 20  # steps between lines of the log
    config.on_bad_numbers = 'stop'  # a loss that is no number: or 'skip' that batch, or 'roll_back' and go another way
    config.max_bad_numbers = 3  # how often it may, before it stops after all
    config.on_failed_save = 'stop'  # what a disk does not take: or 'continue' without it, saying so
    config.tracking = ''  # 'wandb', 'mlflow' or 'trackio' besides TensorBoard: alexnet_jax/training/tracking.py
    config.profile = 0  # steps to trace into WORKDIR/profile, once warm; 0: none
    if config.dataset == DEMO:
        # Minutes instead of days. The paper's initial weights would spend them near ln(10), as they do on ImageNet for
        # the first epochs; the released ones, with stronger deep layers, leave it after about 100 steps.
        config.update(variant='released', width=0.25, batch_size=32, learning_rate=0.003, epochs=4.0)
        config.update(schedule='steps', drop_epochs=(3.0,))
        config.images_per_crop = 1  # 32 would be all of a step; of the original's 128 they were a quarter
    return config


@dataclasses.dataclass(frozen=True)
class _Rule:
    """`key` must satisfy `holds`; `wants` completes "KEY must be ..."."""

    key: str
    wants: str
    holds: Callable[[Any], bool]


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= MOST_STEPS


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _positive(value: Any) -> bool:
    return _number(value) and _SMALLEST <= value < _INFINITE


def _fraction(value: Any) -> bool:
    return _number(value) and 0 <= value < _ONE


def _epochs(value: Any) -> bool:
    return _number(value) and 0 < value <= MOST_STEPS


def _one_of(*names: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in names


def _true_or_false(value: Any) -> bool:
    return isinstance(value, bool)


def _several(value: Any) -> bool:
    return isinstance(value, tuple | list)


def _parts(without: Any) -> list[str]:
    """The names in a value of `without`: --config.without=a,b comes as ('a,b',)."""
    return [name for entry in without for name in entry.split(',')]


def _names_parts(value: Any) -> bool:
    if not _several(value) or not all(isinstance(entry, str) for entry in value):
        return False
    parts = _parts(value)
    return set(parts) <= set(ABLATIONS) and len(set(parts)) == len(parts)


# No rule may fail: each looks at the type before it compares. NaN fails every comparison.
_RULES = (
    _Rule('variant', f'one of {", ".join(NETWORKS)}', _one_of(*NETWORKS)),
    # Below 0.001 every layer has two units, the least, and only their initial weights go on growing.
    _Rule('width', 'at least 0.001 and at most 4', lambda v: _number(v) and 0.001 <= v <= 4),
    _Rule('without', f'names, each once, out of {", ".join(ABLATIONS)}', _names_parts),
    _Rule(
        'dataset',
        'the name of a prepared dataset: lower-case letters, digits and underscores, a letter first',
        lambda v: isinstance(v, str) and re.fullmatch(r'[a-z][a-z0-9_]*', v) is not None,
    ),
    _Rule(
        'data_dir', 'a folder, of printable characters', lambda v: isinstance(v, str) and v != '' and v.isprintable()
    ),
    _Rule('lighting', 'True or False', _true_or_false),
    _Rule('crops', f'a whole number, at least 1{_AT_MOST}', lambda v: v is None or _whole(1)(v)),
    _Rule('images_per_crop', f'a whole number, at least 1{_AT_MOST}', lambda v: v is None or _whole(1)(v)),
    _Rule('seed', 'a whole number from 0 to 2**31 - 1', _whole(0)),
    _Rule('batch_size', f'a whole number, at least 1{_AT_MOST}', _whole(1)),
    _Rule('epochs', 'above 0 and below 2**31', _epochs),
    _Rule('steps', f'a whole number, at least 1{_AT_MOST}', lambda v: v is None or _whole(1)(v)),
    _Rule('parallelism', f'one of {", ".join(MESHES)}', _one_of(*MESHES)),
    _Rule(
        'mesh',
        'two whole numbers, data,tower, tower 1 or 2 (--config.mesh=1,2)',
        lambda v: v is None or (_several(v) and len(v) == 2 and all(map(_whole(1), v))),
    ),
    _Rule('precision', "'float32' or 'bfloat16'", _one_of('float32', 'bfloat16')),
    _Rule('deterministic', 'True or False', _true_or_false),
    _Rule('learning_rate', f'above 0 and finite{_IN_FLOAT32}', _positive),
    _Rule('rate_batch_size', f'a whole number, at least 1{_AT_MOST}', lambda v: v is None or _whole(1)(v)),
    _Rule('momentum', f'at least 0 and below 1{_IN_FLOAT32}', _fraction),
    _Rule('weight_decay', f'at least 0 and below 1{_IN_FLOAT32}', _fraction),
    _Rule('schedule', "'plateau' or 'steps'", _one_of('plateau', 'steps')),
    _Rule('drop_factor', f'above 0 and below 1{_IN_FLOAT32}', lambda v: _positive(v) and _fraction(v)),
    _Rule(
        'drop_epochs',
        'increasing numbers, each above 0 and below 2**31',
        lambda v: _several(v) and all(map(_epochs, v)) and list(v) == sorted(set(v)),
    ),
    _Rule('patience', f'a whole number, at least 1{_AT_MOST}', _whole(1)),
    _Rule('max_drops', f'a whole number, at least 0{_AT_MOST}', _whole(0)),
    _Rule('clip_norm', f'above 0 and finite{_IN_FLOAT32}', lambda v: v is None or _positive(v)),
    _Rule('evaluate_every', f'a whole number, at least 0{_AT_MOST}', _whole(0)),
    _Rule('checkpoint_every', f'a whole number, at least 0{_AT_MOST}', _whole(0)),
    _Rule('keep_checkpoints', f'a whole number, at least 1{_AT_MOST}', _whole(1)),
    _Rule('log_every', f'a whole number, at least 1{_AT_MOST}', _whole(1)),
    _Rule('on_bad_numbers', "'stop', 'skip' or 'roll_back'", _one_of('stop', 'skip', 'roll_back')),
    _Rule('max_bad_numbers', f'a whole number, at least 0{_AT_MOST}', _whole(0)),
    _Rule('on_failed_save', "'stop' or 'continue'", _one_of('stop', 'continue')),
    _Rule('tracking', "'wandb', 'mlflow', 'trackio' or ''", _one_of('wandb', 'mlflow', 'trackio', '')),
    _Rule('profile', f'a whole number, at least 0{_AT_MOST}', _whole(0)),
)


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks types, ranges and keys, once all overrides are in, and sets what follows from `parallelism`.

    Raises:
      InputError: one line that names the first wrong key, its value and what it must be.
    """
    known = recipe(None)
    for key in config:
        if key not in known:
            raise InputError(f'unknown config key {key!r}: known are {", ".join(sorted(known))}')
    for rule in _RULES:
        if rule.key not in config:
            raise InputError(f'config key {rule.key!r} is missing')
        value = config[rule.key]
        if not rule.holds(value):
            raise InputError(f'config.{rule.key} is {_shown(value)}: it must be {rule.wants}')
    if config.mesh is None:
        config.mesh = MESHES[config.parallelism]
    replicas, second = config.mesh
    if config.parallelism == ONE_WEIRD_TRICK:
        if not {'fc6', 'fc7'} <= {layer.name for layer in NETWORKS[config.variant].dense}:
            raise InputError(
                f'config.variant {config.variant} has no fc6 and fc7 for one weird trick to split: use '
                f'--config.parallelism=data_parallel --config.mesh=2,1'
            )
        if config.rate_batch_size is None:
            config.rate_batch_size = recipe(config.dataset if config.dataset != DEMO else None).batch_size
        replicas *= second
        hidden = [layer.features for layer in NETWORKS[config.variant].scaled(config.width).dense if layer.features]
        if second > 1 and (second % 2 or any(units % second for units in hidden)):
            raise InputError(
                f'config.mesh is {tuple(config.mesh)}: its second number must be 1, or even and divide the {hidden[0]} '
                f'hidden units, which one weird trick splits'
            )
    elif second > 2:
        raise InputError(f'config.mesh is {tuple(config.mesh)}: it must be {_wants("mesh")}')
    if config.batch_size % replicas:
        raise InputError(
            f'config.batch_size {config.batch_size} does not divide over the {replicas} data-parallel devices of '
            f'config.mesh {tuple(config.mesh)}: use a multiple of {replicas}'
        )
    if not _positive(learning_rate_of(config)):
        raise InputError(
            f'config.learning_rate {config.learning_rate} for {config.rate_batch_size} images is '
            f'{learning_rate_of(config)} for {config.batch_size}: that must be above 0 and finite{_IN_FLOAT32}'
        )
    _check_parts(config)


def learning_rate_of(config: ml_collections.ConfigDict) -> float:
    """The learning rate before any drop: the config's, grown with the batch where the config asks for it."""
    if config.rate_batch_size is None:
        return config.learning_rate
    return config.learning_rate * (config.batch_size / config.rate_batch_size)


def _wants(key: str) -> str:
    return next(rule.wants for rule in _RULES if rule.key == key)


def _check_parts(config: ml_collections.ConfigDict) -> None:
    """Makes `without` one name an entry, and checks what it says beside other keys."""
    config.without = tuple(_parts(config.without))
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
        raise InputError(
            f'{key}, whose towers have fully connected layers of their own, and one weird trick has them split '
            f'otherwise: use --config.parallelism=two_device'
        )
    if not whole.divisible and config.mesh[1] > 1 and not trick:
        raise InputError(
            f'config.variant {config.variant} has no two towers that could live apart, and config.mesh '
            f'{tuple(config.mesh)} has devices for two: use --config.mesh={config.mesh[0]},1'
        )
    if 'towers' in config.without and config.mesh[1] > 1 and not trick:
        raise InputError(
            f'config.without names towers, which leaves one, and config.mesh {tuple(config.mesh)} has devices for two: '
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


def _shown(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, ml_collections.ConfigDict):  # whose own text has a line for each entry
        return 'a table'
    try:
        return repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return 'too long a number'


def total_steps(config: ml_collections.ConfigDict, examples: int) -> int:
    """Updates of the whole run: `steps`, or `epochs` passes over `examples` images, rounded up.

    Raises:
      InputError: there are more than can be counted.
    """
    steps = config.steps or updates_in(config.epochs, config, examples)
    if steps > MOST_STEPS:
        raise InputError(
            f'config.epochs {config.epochs} are {steps:,} updates with this dataset, of which {MOST_STEPS:,} can be '
            f'counted: use fewer'
        )
    return steps


def updates_in(epochs: float, config: ml_collections.ConfigDict, examples: int) -> int:
    """Updates of so many epochs, rounded up: of the number as it is written, 1.1, which binary fractions exceed."""
    return math.ceil(Fraction(repr(float(epochs))) * examples / config.batch_size)


def steps_per_epoch(config: ml_collections.ConfigDict, examples: int) -> int:
    """Updates of an epoch, rounded up, at least 1: how often to evaluate and save where the config says 0."""
    return max(1, math.ceil(examples / config.batch_size))
