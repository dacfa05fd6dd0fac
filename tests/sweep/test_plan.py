"""Points before any of them runs: values, names, options, and their mistakes."""

import pathlib
import re
import subprocess
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from alexnet_jax.errors import InputError
from alexnet_jax.sweep import plan
from alexnet_jax.sweep.plan import (
    check_points,
    format_options,
    load_sweep,
    make_point,
    make_point_name,
    parse_values,
    split_options,
)
from alexnet_jax.training.config import make_config


@pytest.fixture
def base():
    return make_config(None)


@pytest.mark.parametrize(
    ('key', 'text', 'values'),
    [
        ('learning_rate', '0.01,1e-3,1', [0.01, 0.001, 1.0]),
        ('seed', '3,1', [3, 1]),
        ('lighting', 'true,False', [True, False]),
        ('variant', 'paper,released', ['paper', 'released']),
        ('mesh', '1,1;1,2', [(1, 1), (1, 2)]),
        ('mesh', '2,2', [(2, 2)]),
        ('drop_epochs', '25;1,2.5', [(25,), (1, 2.5)]),
        ('steps', '5', [5]),  # a key whose default is None
    ],
)
def test_parse_values_returns_the_type_of_the_key(base, key, text, values):
    found = parse_values(base, key, text)
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


@pytest.mark.parametrize(
    ('key', 'text', 'line'),
    [
        ('learning_rat', '1', r"unknown config key 'learning_rat': did you mean 'learning_rate'\?"),
        ('zzzz', '1', r"unknown config key 'zzzz': known are accumulate, activation, .*"),
        ('seed', '1,2.5', r'--sweep\.seed=1,2\.5: config\.seed=2\.5: .*'),
        ('seed', '1,,2', r'--sweep\.seed=1,,2: config\.seed=: .*'),
        ('lighting', 'maybe', r'--sweep\.lighting=maybe: .*'),
    ],
)
def test_parse_values_refuses_invalid_values_in_one_line(base, key, text, line):
    with pytest.raises(InputError) as caught:
        parse_values(base, key, text)
    assert re.fullmatch(line, str(caught.value)), caught.value


@pytest.mark.parametrize(
    ('overrides', 'name'),
    [
        ({'seed': 2, 'learning_rate': 0.01}, 'learning_rate=0.01,seed=2'),
        ({'width': 0.5, 'seed': 0, 'momentum': 0.9}, 'momentum=0.9,width=0.5,seed=0'),
        ({'mesh': (1, 2)}, 'mesh=1x2'),
        ({'drop_epochs': ()}, 'drop_epochs=none'),
        ({'learning_rate': 1e-05}, 'learning_rate=1e-05'),
        ({}, 'base'),
    ],
)
def test_make_point_name_lists_overrides(overrides, name):
    assert make_point_name(overrides) == name


def test_make_point_name_is_safe_short_and_unique():
    odd = [make_point_name({'data_dir': text}) for text in ('a/b', 'a-b', '../x', 'ü', 'x' * 300, 'x' * 301)]
    assert len(set(odd)) == len(odd)
    for name in odd:
        assert re.fullmatch(r'[\w.+=,-]+', name, re.ASCII) and len(name) <= plan.MAX_NAME_LENGTH
    assert odd[1] == 'data_dir=a-b'  # nothing had to be replaced


def test_make_point_name_ignores_the_order_of_keys(base):
    one, other = check_points(base, [{'seed': 1, 'width': 0.5}]), check_points(base, [{'width': 0.5, 'seed': 1}])
    assert one[0].name == other[0].name


def test_format_options_survives_the_training_command(base):
    overrides = {
        'mesh': (1, 1),
        'drop_epochs': (25.0,),
        'lighting': False,
        'learning_rate': 1.5e-07,
        'data_dir': 'a b,c',
        'steps': 7,
        'seed': 3,
    }
    argv = ['main', *format_options(make_point(base, overrides).overrides)]
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict('config', make_config(None), flag_values=values, sys_argv=argv)
    values(argv)
    assert {key: values.config[key] for key in overrides} == overrides


def test_make_point_copies_the_config(base):
    point = make_point(base, {'batch_size': 8, 'seed': 4})
    assert (point.config.batch_size, point.config.seed, point.config.mesh) == (8, 4, (1, 2))
    assert (base.batch_size, base.seed, base.mesh) == (32, 0, None)


@pytest.mark.parametrize(
    ('sweep', 'line'),
    [
        ([{'seed': 1}, {'learning_rat': 0.1, 'seed': 2}], "point learning_rat=0.1,seed=2: unknown config key 'learn"),
        ([{'width': 9.0}], 'point width=9.0: config.width is 9.0: it must be at least 0.001 and at most 4'),
        ([{'batch_size': 0.5}], 'point batch_size=0.5: config.batch_size=0.5: invalid literal for int() with base'),
        ([{'mesh': (2, 1), 'batch_size': 33}], 'point batch_size=33,mesh=2x1: config.batch_size 33 does not divide'),
        ([{'steps': None}], 'point steps=None: config.steps cannot be set to None: leave it out'),
        ([{'learning_rate': 1}, {'learning_rate': 1.0}], 'point learning_rate=1.0 is there twice: leave one out'),
        ([('seed', 1)], "sweep() must give dicts of config overrides, not ('seed', 1)"),
        ([], 'nothing to sweep: give --sweep.KEY=VALUES, or a config file with a sweep()'),
    ],
)
def test_check_points_names_an_invalid_point_in_one_line(base, sweep, line):
    with pytest.raises(InputError) as caught:
        check_points(base, sweep)
    assert str(caught.value).startswith(line)
    assert '\n' not in str(caught.value)


def test_split_options_takes_sweep_options_out():
    rest, sweep = split_options(['sweep.py', '--config=x.py', '--sweep.seed=0,1', '-sweep.width=0.5', '--jobs=2'])
    assert rest == ['sweep.py', '--config=x.py', '--jobs=2']
    assert sweep == {'seed': '0,1', 'width': '0.5'}


@pytest.mark.parametrize(
    ('argv', 'line'),
    [
        (['--sweep.seed'], '--sweep.seed: options of the sweep look like'),
        (['--sweep.seed='], '--sweep.seed=: options of the sweep look like'),
        (['--sweep.seed=1', '--sweep.seed=2'], '--sweep.seed is given twice'),
    ],
)
def test_split_options_refuses_invalid_options(argv, line):
    with pytest.raises(InputError, match=re.escape(line)):
        split_options(argv)


def test_load_sweep_returns_points_or_none(tmp_path):
    (tmp_path / 'with.py').write_text(
        'from alexnet_jax.sweep.points import product, each, seeds\n'
        "def sweep():\n    yield from product(each('width', [0.5]), seeds(2))\n"
    )
    assert load_sweep(f'{tmp_path}/with.py:demo') == [{'width': 0.5, 'seed': 0}, {'width': 0.5, 'seed': 1}]
    assert load_sweep('configs/two_device.py') is None


def test_command_module_imports_no_jax():
    code = "import sys, alexnet_jax.commands.sweep; assert 'jax' not in sys.modules, 'jax'; print('fine')"
    root = pathlib.Path(plan.__file__).parents[2]
    done = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.stdout == 'fine\n', done.stderr
