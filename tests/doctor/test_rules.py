"""Every rule on both sides of its threshold, on measurements written by hand; and which findings are reported."""

import dataclasses
import math

import numpy as np
import pytest

from alexnet_jax.doctor.data_stats import DataStats, Probe, describe_images
from alexnet_jax.doctor.measurements import Measurements
from alexnet_jax.doctor.network_stats import DropoutStats, InputStats, NetworkStats, UpdateStats
from alexnet_jax.doctor.recorder import LayerStats
from alexnet_jax.doctor.rules import find_causes, list_notes
from alexnet_jax.doctor.snapshot import Snapshot
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.training.build import Run
from alexnet_jax.training.config import make_config
from alexnet_jax.training.validation import validate_config

LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8')
CHANCE = 2.302585  # ln(10)


def make_layer(*, variation=0.5, dead=0, saturated=None):
    """Makes statistics of 100 units, `dead` of which gave at most 0."""
    highest = np.array([0.0] * dead + [1.0] * (100 - dead), np.float32)
    return LayerStats(0.0, 1.0, variation, highest, saturated)


def make_stats(**layers):
    return {name: layers.get(name, make_layer()) for name in LAYERS}


def make_updates(ratio, **layers):
    return {name: UpdateStats(1.0, 1.0, layers.get(name, ratio)) for name in LAYERS}


def make_measurements(*, variant='released', start=0, history=(), losses=(2.3, 2.2), rate=0.01, config=(), **changed):
    """Makes healthy ones, of ten classes, but for what is changed: a field of DataStats, InputStats or NetworkStats."""
    settings = make_config('photos')
    settings.update({'variant': variant, 'learning_rate': 0.01} | dict(config))
    data = {
        'images': 2000,
        'probe_images': 2000,
        'classes_seen': 10,
        'classes_possible': 10,
        'entropy': CHANCE,
        'largest': 0.1,
        'order': 1.0,
        'pixel_range': (0, 255),
        'channel_means': np.full(3, 120.0),
        'pixel_mean': 120.0,
        'pixel_spread': 60.0,
        'probe': Probe(0.5, 0.1, 30.0),
    }
    inputs = {'mean': np.zeros(3), 'subtracted': np.full(3, 120.0), 'spread': 55.0, 'lowest': -120.0, 'highest': 130.0}
    network = {
        'images': changed.pop('test_images', 128),
        'before': make_stats(),
        'after': make_stats(),
        'updates': make_updates(1e-3),
        'frozen_layers': (),
        'dropout': DropoutStats(0.5, {'towers': 0.0, 'images': 0.0, 'layers': 0.0, 'steps': 0.0}),
    }
    for fields in (data, inputs, network):
        fields |= {name: changed.pop(name) for name in [*changed] if name in fields}
    assert not changed
    run = dict.fromkeys(field.name for field in dataclasses.fields(Run))
    run |= {'config': validate_config(settings), 'num_classes': 10, 'examples': 3000, 'variant': VARIANTS[variant]}
    snapshot = Snapshot('x', Run(**run), state=None, batches=None, history=history)
    losses, rates = list(losses), [rate] * len(losses)
    network |= {'start': start, 'losses': losses, 'errors': [0.9] * len(losses), 'rates': rates}
    return Measurements(snapshot, DataStats(**data), NetworkStats(inputs=InputStats(**inputs), **network))


def list_causes(**changed):
    return [finding.cause for finding in find_causes(make_measurements(**changed))]


VALIDATED = ({'split': 'validation', 'step': 400, 'top1_error': 0.3},)
FLAT = tuple({'split': 'train', 'step': step, 'loss': 2.27, 'top1_error': 0.9} for step in range(20, 401, 20))
SLOW = {'updates': make_updates(1e-5), 'rate': 0.0009, 'config': {'learning_rate': 0.0009}}
# {cause: [(healthy, broken), ...]}
THRESHOLDS = {
    'empty images': [
        ({'pixel_spread': 10.0}, {'pixel_spread': 0.99}),
        ({}, {'pixel_spread': 0.0, 'pixel_range': (0, 0)}),
    ],
    'input range': [
        ({'spread': 10.0}, {'spread': 9.9}),
        ({'pixel_spread': 10.0}, {'pixel_spread': 9.9}),
        ({}, {'pixel_spread': 0.5, 'pixel_range': (0, 1)}),
    ],
    'mean not subtracted': [
        ({'subtracted': np.array([120.0, 120, 100])}, {'subtracted': np.array([120.0, 120, 99.9])}),
        ({'subtracted': np.array([140.0, 120, 120])}, {'subtracted': np.array([140.1, 120, 120])}),
    ],
    'one class': [({'largest': 0.89}, {'largest': 0.9})],
    'labels shuffled': [
        ({'probe': Probe(0.1, 0.1, 3.0)}, {'probe': Probe(0.1, 0.1, 2.9)}),
        ({'probe': Probe(0.1, 0.1, 0.0), 'probe_images': 199}, {'probe': Probe(0.1, 0.1, 0.0), 'probe_images': 200}),
        ({'probe': Probe(0.1, 0.1, 0.0), 'history': VALIDATED}, {'probe': Probe(0.1, 0.1, 0.0)}),
        ({'probe': None}, {'probe': Probe(0.1, 0.1, -5.0)}),
    ],
    'order of the images': [({'order': 0.7}, {'order': 0.69}), ({'order': math.nan}, {'order': 0.0})],
    'same dropout in both towers': [
        ({'dropout': DropoutStats(0.5, {'towers': 0.099})}, {'dropout': DropoutStats(0.5, {'towers': 0.1})}),
        ({'dropout': DropoutStats(0.5, {'towers': None})}, {'dropout': DropoutStats(0.5, {'towers': -1.0})}),
    ],
    'same dropout in all steps': [({'dropout': None}, {'dropout': DropoutStats(0.5, {'towers': 0.0, 'steps': 1.0})})],
    'dropout rate': [
        ({'dropout': DropoutStats(0.549, {})}, {'dropout': DropoutStats(0.551, {})}),
        ({'dropout': DropoutStats(None, {})}, {'dropout': DropoutStats(0.1, {})}),
    ],
    'bad numbers': [({}, {'losses': (math.nan,)})],
    'start too confident': [
        ({'losses': (CHANCE + 1.49, 2.3)}, {'losses': (CHANCE + 1.51, 2.3)}),
        ({'losses': (9.0, 2.3), 'start': 1}, {'losses': (9.0, 2.3)}),
    ],
    'learning rate too large': [
        ({'losses': (2.3, 69.0)}, {'losses': (2.3, 69.2)}),  # 30 * 2.302585 = 69.08
        ({}, {'losses': (2.3, math.inf)}),
        ({'updates': make_updates(0.0299)}, {'updates': make_updates(0.0301)}),
        ({'after': make_stats(conv5=make_layer(dead=49))}, {'after': make_stats(conv5=make_layer(dead=50))}),
        (
            {'after': make_stats(conv5=make_layer(dead=90)), 'before': make_stats(conv5=make_layer(dead=30))},
            {'after': make_stats(fc7=make_layer(dead=90))},
        ),
    ],
    'weight decay too large': [
        ({'config': {'weight_decay': 0.0499}}, {'config': {'weight_decay': 0.0501}}),  # 0.01 * 0.05 / 0.1 = 0.005
        ({'rate': 0.001, 'config': {'weight_decay': 0.1}}, {'config': {'weight_decay': 0.1}}),
        ({'rate': 2.0}, {'rate': 2.0, 'config': {'weight_decay': 0.00501}}),
    ],
    'dead ReLUs': [
        ({'before': make_stats(fc6=make_layer(dead=79))}, {'before': make_stats(fc6=make_layer(dead=80))}),
        (
            {'before': make_stats(fc6=make_layer(dead=90)), 'test_images': 63},
            {'before': make_stats(fc6=make_layer(dead=90)), 'test_images': 64},
        ),
        (
            {'before': make_stats(fc6=make_layer(dead=90)), 'history': VALIDATED},
            {'before': make_stats(conv1=make_layer(dead=90))},
        ),
        (
            {'before': make_stats(fc8=make_layer(dead=90))},
            {'before': make_stats(fc7=make_layer(dead=90))},
        ),  # logits are no ReLUs
    ],
    'saturated units': [
        ({'before': make_stats(fc6=make_layer(saturated=0.89))}, {'before': make_stats(fc6=make_layer(saturated=0.9))}),
        (
            {'before': make_stats(conv2=make_layer(saturated=1.0)), 'history': VALIDATED},
            {'before': make_stats(conv2=make_layer(saturated=1.0))},
        ),
    ],
    'slow start': [
        (
            {'before': make_stats(fc7=make_layer(variation=0.03))},
            {'before': make_stats(fc7=make_layer(variation=0.029))},
        ),
        (
            {'before': make_stats(fc7=make_layer(variation=0.0)), 'history': VALIDATED},
            {'before': make_stats(fc7=make_layer(variation=0.0))},
        ),
    ],
    'learning rate too small': [  # a rate under 0.001; 0.9 ln(10) = 2.07
        (SLOW | {'updates': make_updates(5e-5)}, SLOW | {'updates': make_updates(4.9e-5)}),
        ({'updates': make_updates(1e-5), 'rate': 0.0011, 'config': {'learning_rate': 0.0011}}, SLOW),
        (SLOW | {'rate': 0.00009}, SLOW),  # after a drop it may
        (SLOW | {'losses': (2.1, 2.0)}, SLOW | {'losses': (2.1, 2.1)}),
    ],
    'stuck': [
        ({'start': 199, 'history': FLAT}, {'start': 400, 'history': FLAT}),
        ({'start': 400, 'history': tuple(line | {'loss': 2.25} for line in FLAT)}, {'start': 200, 'history': FLAT}),
        ({'start': 400}, {'start': 400, 'history': FLAT[-1:]}),
    ],
}
PAIRS = [(cause, *pair) for cause, pairs in THRESHOLDS.items() for pair in pairs]


@pytest.mark.parametrize(('cause', 'healthy', 'broken'), PAIRS, ids=[cause for cause, *_ in PAIRS])
def test_find_causes_on_both_sides_of_threshold(cause, healthy, broken):
    assert list_causes(**healthy) == []
    assert list_causes(**broken) == [cause]


def test_find_causes_of_healthy_run_is_empty():
    assert list_causes() == []
    assert list_notes(make_measurements()) == []


def test_find_causes_with_wrong_pixels_skips_training():
    wrong = {'updates': make_updates(0.5), 'before': make_stats(fc7=make_layer(variation=0)), 'losses': (2.3, math.nan)}
    assert list_causes(spread=0.3, largest=1.0, **wrong) == ['input range', 'one class']
    assert list_causes(largest=1.0, **wrong) == ['one class', 'learning rate too large']


def test_update_ratio_ignores_frozen_layers():
    frozen = {'conv1': 0.0, 'conv2': 0.0, 'conv3': 0.0, 'conv4': 0.0, 'conv5': 0.0}
    assert list_causes(**SLOW | {'updates': make_updates(1e-3, **frozen), 'frozen_layers': tuple(frozen)}) == []
    assert list_causes(**SLOW | {'updates': make_updates(1e-3, **frozen)}) == ['learning rate too small']
    assert make_measurements(updates=make_updates(1e-3, **frozen), frozen_layers=tuple(frozen)).update_ratio == 1e-3


def test_find_causes_ignores_units_of_tanh():
    tanh = dataclasses.replace(VARIANTS['released'], activation=None)
    found = make_measurements(before=make_stats(fc6=make_layer(dead=90)))
    run = dataclasses.replace(found.snapshot.run, variant=tanh)
    found = dataclasses.replace(found, snapshot=dataclasses.replace(found.snapshot, run=run))
    assert find_causes(found) == []


def test_compare_learning_rate_in_remedies():
    assert (
        ': this is 100 times the 0.01 of the recipe'
        in find_causes(make_measurements(losses=(2.3, math.nan), rate=1.0, config={'learning_rate': 1.0}))[0].remedy
    )
    remedy = find_causes(make_measurements(updates=make_updates(1e-5), rate=1e-4, config={'learning_rate': 1e-4}))[
        0
    ].remedy
    assert remedy == 'use a larger --config.learning_rate: this is 1/100 of the 0.01 of the recipe'


@pytest.mark.parametrize(
    ('changed', 'text'),
    [
        (
            {'probe_images': 150, 'probe': Probe(0.2, 0.1, 2.0)},
            'cannot tell whether labels belong to their images: 150 of 2,000 images are of classes of 10 or more',
        ),
        ({'probe_images': 0, 'probe': None}, 'cannot tell whether labels belong to their images: 0 of 2,000'),
        ({'classes_seen': 4}, 'only 4 of 10 classes were seen in 2,000 images'),
        ({'config': {'batch_size': 4}}, 'batches of 4'),
        (
            {'history': ({'split': 'train', 'step': 400, 'loss': 0.1, 'top1_error': 0.04}, *VALIDATED)},
            'top-1 error 4% in training, 30% in validation, a gap of 26 points',
        ),
        (
            {
                'history': (
                    {'split': 'training_images', 'step': 400, 'loss': 0.1, 'top1_error': 0.02},
                    {'split': 'train', 'step': 400, 'loss': 0.1, 'top1_error': 0.2},
                    *VALIDATED,
                )
            },
            'top-1 error 2% on training images, 30% in validation, a gap of 28 points',
        ),
    ],
)
def test_list_notes(changed, text):
    assert list_causes(**changed) == []
    (note,) = list_notes(make_measurements(**changed))
    assert text in note


@pytest.mark.parametrize('size', [24, 32, 224])
def test_describe_images_of_any_size(size):
    """A thumbnail of 14x14 means, of small crops too; here of a ramp from left to right, whose middle is 100."""
    ramp = np.linspace(0, 200, size).round().astype(np.uint8)
    images = np.broadcast_to(ramp[None, None, :, None], (2, size, size, 3))
    thumbnail = describe_images(images)[0, : 14 * 14 * 3].reshape(14, 14, 3)
    expected = np.linspace(0, 200, 14 * 2 + 1)[1::2]
    np.testing.assert_allclose(thumbnail, np.broadcast_to(expected[:, None], (14, 14, 3)), atol=5)
    assert describe_images(images).shape == describe_images(np.zeros((2, 224, 224, 3), np.uint8)).shape


def test_find_causes_compares_nothing_of_lars_with_the_recipe_of_another_rule():
    """Its rate is hundreds of times the recipe's, and its steps are as long as the trust coefficient says."""
    decayed = {'rate': 10.0, 'config': {'learning_rate': 10.0, 'weight_decay': 0.01}}
    long = {'rate': 10.0, 'config': {'learning_rate': 10.0}, 'updates': make_updates(0.04)}
    for case, cause in ((decayed, 'weight decay too large'), (long, 'learning rate too large')):
        assert list_causes(**case) == [cause]
        assert list_causes(**case | {'config': case['config'] | {'trust_coefficient': 0.001}}) == []
    assert list_causes(**SLOW | {'config': SLOW['config'] | {'trust_coefficient': 0.001}}) == []
