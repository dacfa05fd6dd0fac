"""The configuration of a run: every number that affects a result, its default, and the checks on what users set."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import ml_collections
from ml_collections import config_dict

from alexnet_jax import InputError
from alexnet_jax.model.variants import VARIANTS

DEMO = 'demo'  # the embedded dataset's name


def recipe(dataset: str | None, *, mesh: tuple[int, int]) -> ml_collections.ConfigDict:
    """The paper's recipe for `dataset`, or for the embedded one (None) a small network that takes minutes.

    Args:
      dataset: name of a prepared dataset.
      mesh: (data, tower) device counts.
    """
    config = ml_collections.ConfigDict()
    # The network
    config.variant = 'paper'  # 'paper' (the text) or 'released' (CHM layers-145): alexnet_jax/model/variants.py
    config.width = 1.0  # channels and units, as a fraction of the paper's
    # The data
    config.dataset = dataset or DEMO
    config.data_dir = 'data'  # where prepared datasets are: DATA_DIR/DATASET/VERSION
    config.lighting = True  # RGB noise along the principal components, strength by variant
    config.images_per_crop = config_dict.placeholder(int)  # that share crop and flip; None: 1 of paper, 32 of released
    # The run
    config.seed = 0
    config.batch_size = 128  # section 5; of all devices together
    config.epochs = 90.0  # section 5: "roughly 90 cycles"
    config.steps = config_dict.placeholder(int)  # updates; where set, overrides epochs
    config.mesh = mesh  # (data, tower) devices
    config.precision = 'float32'  # or 'bfloat16': activations and products; weights, norms, softmax stay float32
    config.deterministic = (
        False  # the same bits from every run: GPU kernels chosen for it, CPU thread pools of one size
    )
    # The update (section 5)
    config.learning_rate = 0.01
    config.momentum = 0.9
    config.weight_decay = 5e-4
    config.schedule = 'plateau'  # the paper's rule, or 'steps': drops at fixed epochs
    config.drop_factor = 0.1  # what a drop multiplies the learning rate by
    config.drop_epochs = (25.0, 51.0, 79.0)  # of schedule 'steps' (CHM layers-145.cfg's log)
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


def _positive(value: float) -> bool:
    return value > 0 and math.isfinite(value)


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


_RULES = (
    _Rule('variant', f'one of {", ".join(VARIANTS)}', lambda v: v in VARIANTS),
    _Rule('width', 'above 0 and at most 4', lambda v: 0 < v <= 4),
    _Rule('dataset', 'the name of a prepared dataset', bool),
    _Rule('data_dir', 'a folder', lambda v: isinstance(v, str) and bool(v)),
    _Rule('lighting', 'True or False', lambda v: isinstance(v, bool)),
    _Rule('images_per_crop', 'a whole number, at least 1', lambda v: v is None or _whole(1)(v)),
    _Rule('seed', 'a whole number from 0 to 2**31 - 1', lambda v: _whole(0)(v) and v < 2**31),
    _Rule('batch_size', 'a whole number, at least 1', _whole(1)),
    _Rule('epochs', 'above 0 and finite', _positive),
    _Rule('steps', 'a whole number, at least 1', lambda v: v is None or _whole(1)(v)),
    _Rule(
        'mesh',
        'two whole numbers, data,tower, tower 1 or 2 (--config.mesh=1,2)',
        lambda v: len(v) == 2 and all(map(_whole(1), v)) and v[1] <= 2,
    ),
    _Rule('precision', "'float32' or 'bfloat16'", lambda v: v in ('float32', 'bfloat16')),
    _Rule('deterministic', 'True or False', lambda v: isinstance(v, bool)),
    _Rule('learning_rate', 'above 0 and finite', _positive),
    _Rule('momentum', 'at least 0 and below 1', lambda v: 0 <= v < 1),
    _Rule('weight_decay', 'at least 0 and below 1', lambda v: 0 <= v < 1),
    _Rule('schedule', "'plateau' or 'steps'", lambda v: v in ('plateau', 'steps')),
    _Rule('drop_factor', 'above 0 and below 1', lambda v: 0 < v < 1),
    _Rule(
        'drop_epochs',
        'increasing numbers, each above 0',
        lambda v: all(isinstance(e, int | float) and _positive(e) for e in v) and list(v) == sorted(set(v)),
    ),
    _Rule('patience', 'a whole number, at least 1', _whole(1)),
    _Rule('max_drops', 'a whole number, at least 0', _whole(0)),
    _Rule('clip_norm', 'above 0 and finite', lambda v: v is None or _positive(v)),
    _Rule('evaluate_every', 'a whole number, at least 0', _whole(0)),
    _Rule('checkpoint_every', 'a whole number, at least 0', _whole(0)),
    _Rule('keep_checkpoints', 'a whole number, at least 1', _whole(1)),
    _Rule('log_every', 'a whole number, at least 1', _whole(1)),
    _Rule('on_bad_numbers', "'stop', 'skip' or 'roll_back'", lambda v: v in ('stop', 'skip', 'roll_back')),
    _Rule('max_bad_numbers', 'a whole number, at least 0', _whole(0)),
    _Rule('on_failed_save', "'stop' or 'continue'", lambda v: v in ('stop', 'continue')),
    _Rule('profile', 'a whole number, at least 0', _whole(0)),
)


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks types, ranges and keys, once all overrides are in.

    Raises:
      InputError: one line that names the first wrong key, its value and what it must be.
    """
    known = recipe(None, mesh=(1, 2))
    for key in config:
        if key not in known:
            raise InputError(f'unknown config key {key!r}: known are {", ".join(sorted(known))}')
    for rule in _RULES:
        if rule.key not in config:
            raise InputError(f'config key {rule.key!r} is missing')
        value = config[rule.key]
        try:
            holds = rule.holds(value)
        except TypeError:  # a comparison or len() of another type
            holds = False
        if not holds:  # NaN fails every comparison and so ends here too
            raise InputError(f'config.{rule.key} is {value!r}: it must be {rule.wants}')
    data, _ = config.mesh
    if config.batch_size % data:
        raise InputError(
            f'config.batch_size {config.batch_size} does not divide over the {data} data-parallel devices of '
            f'config.mesh {tuple(config.mesh)}: use a multiple of {data}'
        )


def total_steps(config: ml_collections.ConfigDict, examples: int) -> int:
    """Updates of the whole run: `steps`, or `epochs` passes over `examples` images, rounded up."""
    return config.steps or math.ceil(config.epochs * examples / config.batch_size)


def steps_per_epoch(config: ml_collections.ConfigDict, examples: int) -> int:
    """Updates of an epoch, rounded up, at least 1: how often to evaluate and save where the config says 0."""
    return max(1, math.ceil(examples / config.batch_size))
