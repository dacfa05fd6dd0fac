"""Every wrong value is one line that names its key; the recipes are what the paper says."""

import ast
import math
import pathlib
import re
import runpy

import jax.numpy as jnp
import numpy as np
import pytest

import alexnet_jax
from alexnet_jax.errors import InputError
from alexnet_jax.model.ablations import ABLATIONS
from alexnet_jax.training.build import build_run, make_variant
from alexnet_jax.training.config import KEYS, make_config
from alexnet_jax.training.schedule import Plateau
from alexnet_jax.training.validation import validate_config

PACKAGE = pathlib.Path(alexnet_jax.__file__).parent
NAN, INF = math.nan, math.inf

WRONG = {
    'variant': ['alexnet', '', 3, ('paper',), ['paper']],
    'width': [0.0, -1.0, 5.0, NAN, INF, 'wide', True, 1e-300],
    'dataset': ['', 'two\nlines', '../birds', 'Birds', 5, True],
    'seed': [-1, 2**31, 1.5, True],
    'batch_size': [0, -8, 8.0, True, 2**31],
    'accumulate': [0, -1, 2.0, True, None],
    'epochs': [0.0, -1.0, NAN, INF, 1e308, 10**400, True, 'ten'],
    'steps': [0, -1, 1.5, 2**31],
    'mesh': [(1,), (1, 2, 1), (1, 3), (0, 2), (1, 0), (1.0, 2), ('a,b',), 2, '12', 2**31],
    'parallelism': ['towers', '', 2],
    'rate_batch_size': [0, -128, 1.5, True, 2**31],
    'precision': ['float16', 'bf16', 32],
    'learning_rate': [0.0, -0.1, NAN, INF, 'fast', 1e308, 1e-50, 10**400, True],
    'momentum': [-0.1, 1.0, NAN, 1 - 2**-30, False],
    'weight_decay': [-1e-9, 1.0, NAN],
    'schedule': ['cosine', ''],
    'schedule_power': [0.0, -2.0, NAN, INF, 'two', True],
    'trust_coefficient': [0.0, -0.001, NAN, INF, 1e308, 'lars', True],
    'drop_factor': [0.0, 1.0, NAN, 1e-50, 1 - 2**-30],
    'drop_epochs': [(0.0,), (2.0, 1.0), (1.0, 1.0), (NAN,), (INF,), ('a',), 3.0, '', (True,), (10**400,), (1e308,)],
    'patience': [0, 1.5],
    'max_drops': [-1],
    'evaluate_every': [-1, 0.5],
    'test_training_images': [-1, 1.5, True, None],
    'checkpoint_every': [-1],
    'keep_checkpoints': [0],
    'keep_every_epochs': [-1, 0.5],
    'log_every': [0],
    'profile': [-1, 1.5, True],
    'probe_every': [-1, 1.5, True, None],
    'deterministic': [1, 'yes'],
    'clip_norm': [0.0, -1.0, NAN, INF, 1e308, 10**400, True],
    'on_non_finite': ['ignore', ''],
    'max_non_finite': [-1, 0.5],
    'on_failed_save': ['ignore', ''],
    'lighting': [1, 'yes'],
    'images_per_crop': [0, -32, 1.5, True],
    'cache': ['disk', '', None, True],
    'mean_at': ['', 'corner', 0, True],
    'without': ['norm', ('lrn',), ('norm', 'norm'), ('norm,norm',), ('norm,',), ('',), (3,), 3, {'norm': 1}.keys()],
    'activation': ['Sigmoid', 'gelu', 1, None, True],
    'crops': [0, 1.5, True],
    'init_from': [3, None, True, 'two\nlines'],
    'init_step': [-1, 1.5, True, 2**31],
    'init_mean': ['', 'mine', None],
    'classes': ['', 'all', 3, None],
    'warmup_epochs': [-1.0, NAN, INF, 2.0**31, True, 'ten'],
    'frozen': ['conv1', ('conv99',), ('conv1', 'conv1'), ('conv1,conv1',), ('conv1,',), (3,), 3],
    'rate_factors': [{'fc8': 0.0}, {'fc8': -1.0}, {'fc8': NAN}, {'fc8': 'fast'}, {'fc9': 2.0}, {'fc8': True}, 3, None],
    'tracking': ['tensorboard', 'WANDB', True, None],
    'data_dir': ['', 3, 'two\nlines'],
}


def changed(**values):
    config = make_config('birds', mesh=(1, 2))
    with config.unlocked():
        for key, value in values.items():
            del config[key]  # and its type, to which ml_collections would convert
            config[key] = value
    return config


def test_wrong_values_are_here_for_every_key():
    assert set(WRONG) == set(make_config('birds', mesh=(1, 2)))


@pytest.mark.parametrize(('key', 'value'), [(key, value) for key, values in WRONG.items() for value in values])
def test_validate_config_refuses_a_wrong_value_in_one_line(key, value):
    with pytest.raises(InputError) as error:
        validate_config(changed(**{key: value}))
    if isinstance(value, dict):
        ((entry, value),) = value.items()
        key = f'{key}.{entry}'
    assert str(error.value).startswith(f'config.{key} is {value!r}: it must be ')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (
            {'frozen': ('local3',)},
            'frozen names local3, and the layers of config.variant paper are conv1, .*, fc8: ',
        ),
        ({'rate_factors': {'local4': 2.0}}, 'config.rate_factors names local4, and the layers of config.variant paper'),
        ({'variant': 'cifar10_18pct', 'mesh': (1, 1), 'frozen': ('conv1,conv2', 'conv3', 'fc8')}, 'names every layer'),
        ({'frozen': ('fc8',), 'rate_factors': {'fc8': 2.0}}, 'config.frozen and config.rate_factors name fc8'),
        ({'classes': 'keep'}, 'config.classes is keep, and config.init_from names no weights'),
    ],
)
def test_validate_config_refuses_layers_that_are_not_there_or_named_twice(values, message):
    with pytest.raises(InputError, match=message):
        validate_config(changed(**values))


def test_validate_config_keeps_the_factors_that_are_not_1():
    config = validate_config(
        changed(rate_factors={'fc8': 10, 'conv1': 1.0, 'conv5': 0.5}, frozen=('conv1,conv2', 'fc6'))
    )
    assert config.rate_factors == (('conv5', 0.5), ('fc8', 10.0))
    assert config.frozen == ('conv1', 'conv2', 'fc6')
    assert config.to_json()['rate_factors'] == {'conv5': 0.5, 'fc8': 10.0}


def test_validate_config_describes_a_value_whose_text_is_not_one_line():
    with pytest.raises(InputError, match=r'^config.seed is too long a number: it must be'):
        validate_config(changed(seed=16**4000))
    with pytest.raises(InputError, match=r'^config.drop_epochs is a table: it must be'):
        validate_config(changed(drop_epochs={'a': 1, 'b': 2}))


def test_validate_config_names_an_unknown_and_a_missing_key():
    config = changed()
    with config.unlocked():
        config.colour = 'red'
    with pytest.raises(InputError, match=r"^unknown config key 'colour': known are accumulate, activation, .*without$"):
        validate_config(config)
    config = changed()
    with config.unlocked():
        del config.patience
    with pytest.raises(InputError, match=r"^config key 'patience' is missing$"):
        validate_config(config)


def test_validate_config_refuses_a_batch_that_the_data_axis_does_not_divide():
    with pytest.raises(InputError, match=r'batch_size 10 does not divide over the 4 .* \(4, 2\): use a multiple of 4$'):
        validate_config(changed(batch_size=10, mesh=(4, 2)))
    validate_config(changed(batch_size=12, mesh=(4, 2)))


def test_validate_config_refuses_parts_that_a_devices_images_do_not_make():
    assert validate_config(changed(mesh=(2, 2), parallelism='hybrid', batch_size=24, accumulate=4)).accumulate == 4
    with pytest.raises(InputError, match=r'^config.accumulate 5 does not divide the 12 images that a device has of '):
        validate_config(changed(mesh=(2, 2), parallelism='hybrid', batch_size=24, accumulate=5))


def test_validate_config_splits_without_into_names():
    for written in (('norm', 'overlap'), ('norm,overlap',)):  # the second is what --config.without=norm,overlap gives
        assert validate_config(changed(without=written)).without == ('norm', 'overlap')


@pytest.mark.parametrize(
    ('values', 'line'),
    [
        ({'without': ('norm2', 'norm')}, 'config.without names norm and norm2, which norm is without too: name one'),
        (
            {'without': ('conv3_exchange', 'towers'), 'mesh': (1, 1)},
            'config.without names towers and conv3_exchange, which towers is without too: name one',
        ),
        (
            {'variant': 'one_weird_trick', 'mesh': (1, 1), 'without': ('conv3_exchange',)},
            'config.without names conv3_exchange, and config.variant one_weird_trick has one tower: leave it out',
        ),
        (
            {'variant': 'one_weird_trick', 'mesh': (1, 1), 'without': ('norm',)},
            'config.without names norm, which config.variant one_weird_trick has not: leave it out',
        ),
        (
            {'without': ('towers',), 'mesh': (4, 2)},
            'config.without names towers, which leaves one, and config.mesh (4, 2) has devices for two: '
            'use --config.mesh=4,1',
        ),
        (
            {'without': ('exchange',), 'parallelism': 'one_weird_trick'},
            'config.without names exchange, whose towers have fully connected layers of their own, and one weird trick '
            'has them split otherwise: use --config.parallelism=two_device',
        ),
        ({'without': ('crops',), 'crops': 8}, 'config.without names crops, and config.crops is 8: use one of them'),
        (
            {'without': ('towers',), 'variant': 'no_exchange', 'mesh': (1, 1)},
            'config.without names towers, and config.variant no_exchange is without exchange, which towers takes away '
            'too: use --config.variant=released',
        ),
    ],
)
def test_validate_config_refuses_parts_that_contradict_something_else(values, line):
    with pytest.raises(InputError) as error:
        validate_config(changed(**values))
    assert str(error.value) == line
    validate_config(changed(**values | {'without': ()}))


@pytest.mark.parametrize(
    ('epochs', 'steps'),
    [(1.1, 550), (2.2, 1100), (4.4, 2200), (1.0, 500), (1.0001, 501), (0.001, 1), (1e-9, 1)],
)
def test_get_total_steps_takes_epochs_as_they_are_written(epochs, steps):
    """Times 50,000 images in batches of 100; ceil(1.1 * 500) is 551."""
    assert validate_config(changed(epochs=epochs, batch_size=100)).get_total_steps(50_000) == steps
    config = validate_config(changed(batch_size=100, schedule='steps', drop_epochs=(epochs,)))
    assert build_run(config, num_classes=3, examples=50_000).drop_steps == (steps,)


@pytest.mark.parametrize(
    ('variant', 'offsets'), [('paper', 33**2), ('caffenet', 30**2), ('cifar10_80sec', 1), ('cifar10_11pct', 9**2)]
)
def test_validate_config_refuses_more_crops_than_a_network_has_offsets(variant, offsets):
    """224 of 256, 227 of 256, 32 of 32 and 24 of 32 pixels."""
    validate_config(changed(variant=variant, mesh=(1, 1), crops=offsets))
    with pytest.raises(InputError, match=rf'config.crops is {offsets + 1}: .* at {offsets} offsets: use at most that'):
        validate_config(changed(variant=variant, mesh=(1, 1), crops=offsets + 1))


@pytest.mark.parametrize('variant', ['caffe_alexnet', 'caffenet', 'one_weird_trick'])
def test_validate_config_refuses_to_split_towers_that_cannot_live_apart(variant):
    with pytest.raises(InputError, match=rf'config.variant {variant} has no two towers .* use --config.mesh=2,1'):
        validate_config(changed(variant=variant, mesh=(2, 2)))
    validate_config(changed(variant=variant, mesh=(2, 1)))
    validate_config(changed(variant=variant, parallelism='one_weird_trick', mesh=(1, 2)))


@pytest.mark.parametrize('file', ['one_device', 'two_device', 'data_parallel', 'hybrid', 'one_weird_trick'])
@pytest.mark.parametrize('dataset', [None, 'imagenet2012'])
def test_configs_are_valid_and_differ_in_what_devices_share_alone(file, dataset):
    (path,) = PACKAGE.parent.glob(f'configs/{file}.py')
    config = runpy.run_path(str(path))['get_config'](*filter(None, [dataset]))
    validated = validate_config(config)
    mesh = {'one_device': (1, 1), 'data_parallel': (2, 1), 'hybrid': (2, 2)}.get(file, (1, 2))
    mode = {'one_device': 'two_device'}.get(file, file)
    batch = {'one_weird_trick': 128 if dataset else 32}.get(file)
    expected = make_config(dataset, mesh=mesh).to_dict() | {'parallelism': mode, 'rate_batch_size': batch}
    expected['rate_factors'] = ()  # those that are not 1
    assert {key: getattr(validated, key) for key in KEYS} == expected
    assert config.dataset == (dataset or 'demo')


@pytest.mark.parametrize(('mode', 'mesh'), [('data_parallel', (2, 1)), ('hybrid', (2, 2)), ('one_weird_trick', (1, 2))])
def test_validate_config_takes_the_mesh_from_parallelism(mode, mesh):
    assert validate_config(changed(mesh=None, parallelism=mode)).mesh == mesh
    assert validate_config(changed(mesh=(4, 1), parallelism=mode)).mesh == (4, 1)  # what is asked for stays


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        ({'parallelism': 'one_weird_trick'}, 0.01),
        ({'parallelism': 'one_weird_trick', 'batch_size': 1024}, 0.08),
        ({'parallelism': 'one_weird_trick', 'batch_size': 1024, 'rate_batch_size': 256}, 0.04),
        ({'batch_size': 1024}, 0.01),
        ({'batch_size': 64, 'rate_batch_size': 128}, 0.005),
    ],
)
def test_initial_learning_rate_grows_with_the_batch_where_it_shall(values, expected):
    """Linearly (arXiv 1404.5997, section 5: what worked, although the variance says sqrt)."""
    assert validate_config(changed(**values)).initial_learning_rate == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'mesh': (1, 3), 'batch_size': 12}, r'\(1, 3\): its second number must be 1, or even and divide the 4096 hid'),
        ({'mesh': (1, 6), 'batch_size': 12}, r'\(1, 6\): its second number must be 1, or even and divide the 4096 hid'),
        ({'mesh': (4, 2), 'batch_size': 12}, 'batch_size 12 does not divide over the 8 data-parallel devices'),
        (
            {'learning_rate': 1e38, 'batch_size': 1024},
            r'1e\+38 for 128 images is 8e\+38 for 1024: that must be above',
        ),
    ],
)
def test_validate_config_refuses_what_one_weird_trick_cannot_do(values, message):
    with pytest.raises(InputError, match=message):
        validate_config(changed(parallelism='one_weird_trick', **values))


@pytest.mark.parametrize(
    ('recipe', 'batch', 'iterations', 'ramp'),
    [  # max_iter and rampup_interval of NVIDIA/caffe models/bvlc_alexnet/solver.prototxt 2683ab5f, solver_8K 448ad5b8
        (None, 4096, 31_300, 1250),
        ('8k', 8192, 15_600, 600),
    ],
)
def test_config_large_batch_has_the_numbers_of_its_authors_solver_files(recipe, batch, iterations, ramp):
    get_config = runpy.run_path(str(PACKAGE.parent / 'configs/large_batch.py'))['get_config']
    run = build_run(validate_config(get_config(recipe)), num_classes=1000, examples=1_281_167)
    assert (run.config.batch_size, run.config.learning_rate, run.config.trust_coefficient) == (batch, 10.0, 0.001)
    assert run.steps == pytest.approx(iterations, rel=0.003)
    assert run.warmup_steps == pytest.approx(ramp, rel=0.003)
    rates = [float(run.schedule(jnp.int32(round(part * run.steps)), Plateau.start())) for part in (0, 0.5, 1)]
    np.testing.assert_allclose(rates, [10.0, 2.5, 0.0], rtol=1e-3)  # base_lr * (1 - iteration / max_iter) ** 2
    assert validate_config(get_config('cifar10')).dataset == 'cifar10'
    with pytest.raises(InputError, match=r'large_batch.py:2k: there is no such recipe; use one of 4k, 8k, cifar10$'):
        get_config('2k')


def test_configs_ablations_are_valid_runs_each_another_network_or_other_images():
    config_file = runpy.run_path(str(PACKAGE.parent / 'configs/ablations.py'))
    assert config_file['get_config']('birds').to_dict() == make_config('birds', mesh=(1, 1)).to_dict()
    points, variants = list(config_file['sweep']()), set()
    for point in points:
        config = config_file['get_config']()
        config.update(point)
        variants.add(make_variant(validate_config(config)))
    assert points[0] == {'without': (), 'seed': 0}
    assert len(points) == 3 * len(variants) == 3 * (1 + len(ABLATIONS) + 2)  # seeds; the whole one, 8 crops, sigmoid


@pytest.mark.parametrize(
    ('network', 'epochs', 'drops'),
    [  # the heads of CC example-layers/layer-params-80sec.cfg, -18pct.cfg and -conv-local-11pct.cfg
        (None, 10, (8,)),
        ('80sec', 10, (8,)),
        ('18pct', 140, (120, 130)),
        ('19pct', 140, (120, 130)),
        ('18pct_published', 140, (120, 130)),
        ('11pct', 520, (500, 510)),  # 350 and 150, ten, ten
        ('11pct_draft', 470, (450, 460)),  # 300 and 150, ten, ten at 3878e8f
        ('13pct', 520, (500, 510)),
    ],
)
def test_configs_cifar10_has_each_file_s_schedule(network, epochs, drops):
    config_file = runpy.run_path(str(PACKAGE.parent / 'configs/cifar10.py'))
    config = config_file['get_config'](*filter(None, [network]))
    validate_config(config)
    assert (config.variant, config.dataset, config.mesh) == (f'cifar10_{network or "80sec"}', 'cifar10', (1, 1))
    assert (config.epochs, config.drop_epochs, config.schedule, config.drop_factor) == (epochs, drops, 'steps', 0.1)
    update = (config.learning_rate, config.momentum, config.weight_decay, config.batch_size)
    assert update == (0.001, 0.9, 0.004, 128)  # epsW, momW, wc of conv1
    for point in config_file['sweep']():
        config.update(point)
        validate_config(config)


@pytest.mark.parametrize(
    ('network', 'epochs', 'drops'),
    [  # "epoch N: killed" and "epoch N: set epsw to ..." in CHM layers/layer-params-145.cfg, 145-half, 150, 148, 147
        (None, 91, (25, 51, 79)),
        ('half', 96, (20, 48)),
        ('no_exchange', 92, (25, 49, 79)),
        ('no_norm', 97, (22, 44, 86)),
        ('no_overlap', 90, (23, 51, 79)),
    ],
)
def test_configs_released_has_the_times_of_each_log(network, epochs, drops):
    """The first steps at a lower rate are the first of those epochs, which the logs count from 1."""
    config_file = runpy.run_path(str(PACKAGE.parent / 'configs/released.py'))
    config = validate_config(config_file['get_config'](*filter(None, [network])))
    assert (config.variant, config.dataset, config.schedule) == (network or 'released', 'imagenet2012', 'steps')
    run = build_run(config, num_classes=1000, examples=1280)  # ten steps an epoch
    assert run.steps == 10 * epochs
    assert run.drop_steps == tuple(10 * (epoch - 1) for epoch in drops)
    with pytest.raises(InputError, match=r'released.py:145: there is no such network; use one of released, half,'):
        config_file['get_config']('145')


def test_configs_cifar10_refuses_an_unknown_network():
    config_file = runpy.run_path(str(PACKAGE.parent / 'configs/cifar10.py'))
    with pytest.raises(
        InputError, match=r'configs/cifar10.py:17pct: there is no such network; use one of 80sec, 19pct,'
    ):
        config_file['get_config']('17pct')


def test_validate_config_wants_two_hidden_layers_for_one_weird_trick():
    with pytest.raises(InputError, match=r'config.variant cifar10_80sec has no fc6 and fc7 for one weird trick'):
        validate_config(changed(variant='cifar10_80sec', parallelism='one_weird_trick'))


def test_validate_config_gives_a_network_one_name_whichever_way_its_units_are_asked_for():
    tanh = validate_config(changed(activation='tanh', without=('norm',)))
    assert (tanh.activation, tanh.without) == ('', ('norm', 'relu'))
    assert make_variant(tanh) == make_variant(validate_config(changed(without=('relu', 'norm'))))
    assert validate_config(changed(activation='tanh', without=('relu',))).without == ('relu',)
    assert validate_config(changed(activation='relu')) == validate_config(changed())
    assert validate_config(changed(activation='sigmoid')).activation == 'sigmoid'
    with pytest.raises(InputError, match='names relu, for which tanh stands in, and config'):
        validate_config(changed(activation='sigmoid', without=('relu',)))


def test_make_config_for_imagenet_is_the_paper_s_recipe():
    """Section 5 for the update, 3.5 for the size, 4.1 for the lighting."""
    assert make_config('imagenet2012', mesh=(1, 2)).to_dict() == {
        'variant': 'paper',
        'width': 1.0,
        'without': (),
        'activation': '',
        'dataset': 'imagenet2012',
        'data_dir': 'data',
        'lighting': True,
        'crops': None,
        'images_per_crop': None,
        'cache': 'none',
        'mean_at': None,
        'init_from': '',
        'init_step': None,
        'init_mean': 'source',
        'classes': 'new',
        'seed': 0,
        'batch_size': 128,
        'accumulate': 1,
        'epochs': 90.0,
        'steps': None,
        'parallelism': 'two_device',
        'mesh': (1, 2),
        'precision': 'float32',
        'learning_rate': 0.01,
        'rate_batch_size': None,
        'momentum': 0.9,
        'weight_decay': 0.0005,
        'schedule': 'plateau',
        'drop_factor': 0.1,
        'drop_epochs': (24.0, 50.0, 78.0),
        'patience': 5,
        'max_drops': 3,
        'schedule_power': 2.0,
        'trust_coefficient': None,
        'warmup_epochs': 0.0,
        'frozen': (),
        'rate_factors': dict.fromkeys(
            (*(f'conv{i}' for i in range(1, 23)), 'fc6', 'fc7', 'fc8', 'local3', 'local4'), 1.0
        ),
        'evaluate_every': 0,
        'test_training_images': 0,
        'checkpoint_every': 0,
        'keep_checkpoints': 3,
        'keep_every_epochs': 0,
        'log_every': 20,
        'tracking': '',
        'profile': 0,
        'probe_every': 0,
        'deterministic': False,
        'clip_norm': None,
        'on_non_finite': 'stop',
        'max_non_finite': 3,
        'on_failed_save': 'stop',
    }


def test_get_total_steps_prefers_steps_and_counts_parts_of_a_batch_whole():
    imagenet = validate_config(make_config('imagenet2012', mesh=(1, 2)))
    assert imagenet.get_total_steps(1_281_167) == 900_821  # 90 * 1281167 / 128 = 900820.55
    assert build_run(imagenet, num_classes=1000, examples=1_281_167).evaluate_every == 10_010  # 10009.1: an epoch
    assert validate_config(changed(steps=7)).get_total_steps(1_281_167) == 7
    assert validate_config(changed(epochs=0.5, batch_size=8)).get_total_steps(40) == 3  # 2.5
    assert build_run(validate_config(changed(batch_size=8)), num_classes=3, examples=3).checkpoint_every == 1


@pytest.mark.parametrize(('epochs', 'steps'), [(0, []), (1, [5, 10, 15, 20]), (2, [10, 20]), (9, [])])
def test_run_makes_the_checkpoint_of_every_so_many_epochs_permanent(epochs, steps):
    config = validate_config(changed(batch_size=8, keep_every_epochs=epochs))
    run = build_run(config, num_classes=3, examples=33)  # an epoch is 4.1 batches: five steps
    assert [step for step in range(24) if run.is_permanent(step) and step] == steps


def test_get_total_steps_refuses_more_than_an_int32_counts():
    config = validate_config(changed(epochs=2.0**30, batch_size=1))
    assert config.get_total_steps(1) == 2**30
    with pytest.raises(InputError, match=r'^config.epochs 1073741824.0 are 3,221,225,472 updates .*: use fewer$'):
        config.get_total_steps(3)


def test_config_keys_are_all_read_outside_of_the_file_that_defines_them():
    """By a real attribute access `config.KEY` (or CONFIG[...] by IDENTITY), not by its mention in a text."""
    read = set()
    for path in PACKAGE.rglob('*.py'):
        if path.name in ('config.py', 'validation.py'):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and re.fullmatch(r'([\w.]+\.)?_?config', ast.unparse(node.value)):
                read.add(node.attr)
            if isinstance(node, ast.Constant) and path.name == 'build.py':
                read.add(node.value)  # getattr(config, key)
    # These are read by Config, which turns them into a number of steps and a learning rate.
    assert set(make_config(None, mesh=(1, 2))) - read == {'steps', 'epochs', 'learning_rate', 'rate_batch_size'}


def test_fine_tune_config_asks_for_a_dataset():
    config_file = runpy.run_path(str(PACKAGE.parent / 'configs/fine_tune.py'))
    assert validate_config(config_file['get_config']('pets')).init_from == 'imagenet_trunk'
    with pytest.raises(InputError, match=r'^name the dataset .*: configs/fine_tune\.py:NAME$'):
        config_file['get_config']()
