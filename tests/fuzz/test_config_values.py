"""`validate_config` accepts what the statement below admits, nothing else; a command line ends in one line or in that.

absl's flags are global: the parser gets fresh ones here, for each input, with the config flag of alexnet_jax/main.py.
"""

import ast
import functools
import itertools
import math
import pathlib
import re
import struct

import hypothesis
import pytest
from absl import flags
from fuzzing import fuzzed, outcome
from hypothesis import strategies as st
from ml_collections import ConfigDict, config_flags

import alexnet_jax
from alexnet_jax.commands import command_line
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.errors import InputError
from alexnet_jax.model.ablations import ABLATIONS, CONTAINED
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.training.build import build_run, make_variant
from alexnet_jax.training.config import TRACKING, make_config
from alexnet_jax.training.schedule import Plateau
from alexnet_jax.training.validation import validate_config

pytestmark = pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')  # by which configs are read
CONFIG = pathlib.Path(alexnet_jax.__file__).parents[1] / 'configs/two_device.py'
IMAGENET = 1_281_167  # training images


def as_float32(value):
    try:
        return struct.unpack('f', struct.pack('f', float(value)))[0]
    except OverflowError:
        return math.inf


def number(value):
    return type(value) in (int, float) and value == value


def positive32(value):
    """Above 0 and finite, also in float32 and without the precision that its subnormal numbers lose."""
    return number(value) and value >= 2.0**-126 and as_float32(value) < math.inf


def fraction32(value):
    return number(value) and value >= 0 and as_float32(value) < 1


def int32(least):
    return lambda value: type(value) is int and least <= value < 2**31


def either(*names):
    return lambda value: type(value) is str and value in names


def optional(admits):
    return lambda value: value is None or admits(value)


def parts(without):
    """What it names: each entry is a name or several with commas between them."""
    return ','.join(without).split(',') if without else []


def known_names(value, known):
    if type(value) not in (tuple, list) or not all(type(entry) is str for entry in value):
        return False
    return all(parts(value).count(name) == 1 and name in known for name in parts(value))


def known_parts(value):
    return known_names(value, ABLATIONS)


OTHERS = {'local3', 'local4', *(f'conv{i}' for i in range(6, 23))}  # layers that no network of VARIANTS has
LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8', *OTHERS)


def epochs(value):
    return number(value) and 0 < value < 2**31


# What each key admits: written from what the code that reads it can use, not from alexnet_jax/training/config.py.
ADMITS = {
    'variant': either(*VARIANTS),
    'width': lambda value: number(value) and 0.001 <= value <= 4,
    'dataset': lambda value: type(value) is str and re.fullmatch('[a-z][a-z0-9_]*', value) is not None,
    'data_dir': lambda value: type(value) is str and value != '' and value.isprintable(),
    'lighting': lambda value: type(value) is bool,
    'without': known_parts,
    'activation': either('relu', 'tanh', 'sigmoid', ''),
    'crops': optional(int32(1)),
    'images_per_crop': optional(int32(1)),
    'mean_at': optional(either('centre', 'crop')),
    'cache': either('none', 'memory'),
    'tracking': either('', *TRACKING),
    'init_from': lambda value: type(value) is str and (value == '' or value.isprintable()),
    'init_step': optional(int32(0)),
    'init_mean': either('source', 'dataset'),
    'classes': either('new', 'keep'),
    'warmup_epochs': lambda value: number(value) and 0 <= value < 2**31,
    'frozen': lambda value: known_names(value, LAYERS),
    'rate_factors': lambda value: (
        isinstance(value, ConfigDict) and all(layer in LAYERS and positive32(factor) for layer, factor in value.items())
    ),
    'seed': int32(0),
    'batch_size': int32(1),
    'accumulate': int32(1),
    'epochs': epochs,
    'steps': optional(int32(1)),
    'parallelism': either('two_device', 'data_parallel', 'hybrid', 'one_weird_trick'),
    'mesh': optional(
        lambda value: type(value) in (tuple, list) and len(value) == 2 and int32(1)(value[0]) and int32(1)(value[1])
    ),
    'rate_batch_size': optional(int32(1)),
    'precision': either('float32', 'bfloat16'),
    'deterministic': lambda value: type(value) is bool,
    'learning_rate': positive32,
    'momentum': fraction32,
    'weight_decay': fraction32,
    'schedule': either('plateau', 'steps', 'polynomial'),
    'schedule_power': positive32,
    'trust_coefficient': optional(positive32),
    'drop_factor': lambda value: positive32(value) and as_float32(value) < 1,
    'drop_epochs': lambda value: (
        type(value) in (tuple, list)
        and all(map(epochs, value))
        and all(early < late for early, late in itertools.pairwise(value))
    ),
    'patience': int32(1),
    'max_drops': int32(0),
    'clip_norm': optional(positive32),
    'evaluate_every': int32(0),
    'test_training_images': int32(0),
    'checkpoint_every': int32(0),
    'keep_checkpoints': int32(1),
    'keep_every_epochs': int32(0),
    'log_every': int32(1),
    'on_non_finite': either('stop', 'skip', 'roll_back'),
    'max_non_finite': int32(0),
    'on_failed_save': either('stop', 'continue'),
    'profile': int32(0),
    'probe_every': int32(0),
}


TWO_TOWERS = {'paper', 'released', 'no_exchange', 'no_norm', 'no_overlap'}  # that can live apart
CAFFE_LACKS = {'lighting'}
MISSING = {  # parts that a network has not, and so cannot be without
    'caffe_alexnet': CAFFE_LACKS,
    'caffenet': CAFFE_LACKS,
    'half': {'towers', 'exchange', 'conv3_exchange'},
    'no_exchange': {'exchange', 'conv3_exchange'},
    'no_norm': {'norm', 'norm2'},
    'no_overlap': {'overlap'},
    'one_weird_trick': {'norm', 'norm2', 'lighting', 'towers', 'exchange', 'conv3_exchange'},
}


def admitted(values):
    """Whether the statement admits a whole config."""
    if not all(ADMITS[key](value) for key, value in values.items()):
        return False
    if not values['init_from'] and (values['init_step'], values['init_mean'], values['classes']) != (
        *(None, 'source', 'new'),
    ):
        return False
    frozen, factors = parts(values['frozen']), {layer for layer, x in values['rate_factors'].items() if x != 1}
    if OTHERS & {*frozen, *factors} or len(frozen) == 8 or factors & {*frozen}:
        return False
    without = set(parts(values['without']))
    if any(set(pair) <= without for pair in CONTAINED) or ('crops' in without and values['crops'] not in (None, 1)):
        return False
    if 'relu' in without and values['activation'] in ('relu', 'sigmoid'):
        return False
    if (values['crops'] or 0) > (30**2 if values['variant'] in ('caffe_alexnet', 'caffenet') else 33**2):
        return False
    trick, mesh, batch = values['parallelism'] == 'one_weird_trick', values['mesh'], values['batch_size']
    replicas, second = mesh or {'data_parallel': (2, 1), 'hybrid': (2, 2)}.get(values['parallelism'], (1, 2))
    if trick:
        if 'exchange' in without or values['variant'] == 'no_exchange':
            return False
        replicas *= second
        units = max(2, 2 * round(4096 * values['width'] / 2))
        if second > 1 and (second % 2 or units % second):
            return False
    elif second > 1 and ('towers' in without or values['variant'] not in TWO_TOWERS):
        return False
    if without & MISSING.get(values['variant'], set()):
        return False
    base = values['rate_batch_size'] or (trick and 128) or batch
    rate = values['learning_rate'] * (batch / base)
    if batch % replicas or batch // replicas % values['accumulate']:
        return False
    return (trick or second < 3) and positive32(rate)


MODES = ['hybrid', 'one_weird_trick']
ANSWERS = ['keep', 'dataset', 'plateau', 'steps', 'stop', 'skip', 'roll_back', 'continue']
WORDS = st.sampled_from([*VARIANTS, 'float32', 'bfloat16', *MODES, *ANSWERS, 'birds', 'data', ''])
NUMBERS = st.one_of(
    st.integers(-3, 300),
    st.integers(),
    st.sampled_from([2**31 - 1, 2**31, 2**63, 10**400, -(10**400), 16**4000]),
    st.floats(0, 1),
    st.floats(),
    st.sampled_from([1 - 2.0**-25, 1 - 2.0**-24, 2.0**-126, 2.0**-149, 1e-300, 3.4e38, 3.5e38, 4.0, 0.001, -0.0]),
    st.booleans(),
)
SCALARS = st.one_of(NUMBERS, WORDS, st.text(), st.none(), st.binary(max_size=3))
VALUES = st.one_of(
    SCALARS,
    st.tuples(SCALARS),
    st.tuples(st.integers(1, 8), st.integers(1, 3)),
    st.lists(NUMBERS, max_size=4),
    st.lists(st.floats(0, 100), max_size=4, unique=True).map(sorted).map(tuple),
    st.lists(SCALARS, max_size=3).map(tuple),
    st.lists(st.sampled_from([*ABLATIONS, 'norm,overlap', 'norm,']), max_size=3).map(tuple),
    st.dictionaries(st.integers(0, 3) | st.text('ab', max_size=2), SCALARS, max_size=3),
)
KEYS = st.sampled_from(sorted(ADMITS))
ALIKE = {  # what may well be meant, by the type of the default
    bool: st.booleans(),
    int: st.integers(0, 300),
    float: st.floats(0, 1),
    str: WORDS,
    tuple: st.tuples(st.integers(1, 4), st.integers(1, 2)),
    type(None): st.integers(1, 300) | st.floats(0, 1),
    ConfigDict: st.dictionaries(st.sampled_from(LAYERS), st.floats(0.01, 100), max_size=3),
}


PARTS = st.lists(st.sampled_from([*ABLATIONS]), max_size=3, unique=True).map(tuple)
FROZEN = st.lists(st.sampled_from(LAYERS), max_size=8, unique=True).map(tuple)


def pair(key):
    """A key with what may well be meant, or with anything."""
    alike = (
        PARTS
        if key == 'without'
        else FROZEN
        if key == 'frozen'
        else ALIKE[type(make_config('birds', mesh=(1, 2))[key])]
    )
    return st.tuples(st.just(key), st.booleans().flatmap(lambda likely: alike if likely else VALUES))


PAIRS = KEYS.flatmap(pair)


def use(config):
    """Turns an accepted config into the parts of a run; the dataset, which is not there, is the only thing refused."""
    with pytest.raises(InputError) as missing:
        open_dataset(config.dataset, data_dir=config.data_dir)
    assert len(str(missing.value).splitlines()) == 1
    variant = make_variant(config)
    stds = {layer.init_std for layer in (*variant.convs, *variant.dense)}
    assert stds == {None} or all(0 < std < math.inf for std in stds)
    made = functools.partial(build_run, config, num_classes=3, examples=IMAGENET, mesh=make_mesh(1, 1))
    if config.steps is None and config.epochs * IMAGENET / config.batch_size > 2**31 - 1:  # which no rule can foresee
        with pytest.raises(InputError, match=r'^config.epochs .* use fewer$'):
            made()
        return
    run = made()
    assert run.evaluate_every >= 1 and run.checkpoint_every >= 1
    assert 1 <= run.steps < 2**31
    assert 0 <= run.lighting_steps <= run.steps
    rate = run.schedule(0, Plateau.start())
    assert 0 < rate < math.inf


def test_statement_has_every_key():
    assert set(ADMITS) == set(make_config('birds', mesh=(1, 2)))


@pytest.mark.slow
@fuzzed(250)
@hypothesis.given(st.lists(PAIRS, min_size=1, max_size=3).map(dict))
def test_validate_config_accepts_what_the_statement_admits(values):
    config = make_config('birds', mesh=(1, 2))
    with config.unlocked():
        for key, value in values.items():
            del config[key]  # with its type, to which ml_collections would convert
            config[key] = value
    found = outcome('validate_config', lambda: validate_config(config), InputError)
    assert isinstance(found, InputError) != admitted({**config}), found
    if not isinstance(found, InputError):
        use(found)


def parsed(options, monkeypatch):
    """The config that a command line gives, validated; SystemExit or InputError."""
    argv = ['main', f'--config={CONFIG}:birds', *options]
    fresh = flags.FlagValues()
    with monkeypatch.context() as patch:
        patch.setattr(flags, 'FLAGS', fresh)
        config = config_flags.DEFINE_config_file('config', None, '', flag_values=fresh, sys_argv=argv)
        assert command_line.parse_config_flags(argv) == ['main']
        return validate_config(config.value)


def as_given(config):
    """The values of a validated config as flags give them."""
    return vars(config) | {'rate_factors': ConfigDict(dict(config.rate_factors))}


def written(value):
    try:
        return str(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return hex(value) if isinstance(value, int) else '0x' + 'f' * 4000


TEXTS = st.one_of(
    st.text(),
    WORDS,
    VALUES.map(written),
    st.sampled_from(
        [
            'true',
            'false',
            '1,2',
            '(1, 2)',
            '1,,2',
            '1 2',
            '(' * 300,
            '{',
            '9' * 5000,
            '1e400',
            '1_0',
            '0x10',
            '[[1], 2]',
        ]
    ),
)


def meaning(key, text):
    """What a text stands for, by the type of the key's default."""
    default = make_config('birds', mesh=(1, 2))[key]
    if key == 'without':  # of which only names are admitted, with or without quotes
        return tuple(word for word in re.findall(r'\w+', text) if word in ABLATIONS)
    if key == 'frozen':
        return tuple(word for word in re.findall(r'\w+', text) if word in LAYERS)
    if key == 'rate_factors':  # written like a dictionary
        return ast.literal_eval(text)
    whole = dict.fromkeys(('steps', 'init_step', 'images_per_crop', 'crops', 'rate_batch_size'), int)
    kinds = whole | {'clip_norm': float, 'trust_coefficient': float, 'mean_at': str}
    kind = kinds.get(key, type(default))
    if kind is int:
        return int(text, 16) if text.lower().startswith(('0x', '-0x')) else int(text)
    if kind is bool:
        return text.lower() in ('true', 't', '1')
    if kind is tuple:
        value = ast.literal_eval(text)
        return tuple(value) if isinstance(value, tuple | list | dict | set | bytes) else (value,)
    return kind(text)


@fuzzed(150)
@hypothesis.given(pair=st.tuples(KEYS, TEXTS) | PAIRS.map(lambda pair: (pair[0], written(pair[1]))))
def test_parse_config_flags_reads_an_override_as_written_or_refuses_it_in_one_line(pair, monkeypatch):
    key, text = pair
    found = outcome('command line', lambda: parsed([f'--config.{key}={text}'], monkeypatch), InputError, SystemExit)
    if isinstance(found, Exception | SystemExit):
        return
    assert admitted(as_given(found))
    expected = make_config('birds')  # whose mesh, as that of the file, follows from its parallelism
    with expected.ignore_type():
        expected[key] = meaning(key, text)
    assert found == validate_config(expected)


ARGUMENTS = st.tuples(
    st.sampled_from(['--config.', '-config.', '--noconfig.', '--', '']),
    KEYS | st.text(),
    st.just('') | TEXTS.map('={}'.format),
).map(''.join)


@fuzzed(100)
@hypothesis.example(options=['--noconfig.lighting=true'])
@hypothesis.example(options=['--config.0=1'])
@hypothesis.example(options=['--config.else=1'])
@hypothesis.example(options=['--config.a\nb=1'])
@hypothesis.given(options=st.lists(ARGUMENTS, min_size=1, max_size=3))
def test_parse_config_flags_refuses_any_other_argument_in_one_line(options, monkeypatch):
    found = outcome('arguments', lambda: parsed(options, monkeypatch), InputError, SystemExit)
    assert isinstance(found, InputError | SystemExit) or admitted(as_given(found))
