"""The landmarks of a training on ImageNet: each verdict on both sides of its bound, by hand."""

import dataclasses
import math

import pytest

from alexnet_jax.evaluation.landmarks import TrainingHistory, check_landmarks

# 10,009 steps of 128 are an epoch, 20 are 200,182; the rate falls after step 250,000.
GOOD = TrainingHistory(
    variant='released',
    dataset='imagenet2012',
    whole=True,
    classes=1000,
    batch_size=128,
    losses=[(20, 0.01, 6.92), (3980, 0.01, 6.72), (4000, 0.01, 6.69), (250_000, 0.01, 2.9), (250_020, 0.001, 2.7)],
    errors=[(200_000, 0.9), (201_000, 0.55), (249_000, 0.53), (251_000, 0.47)],
    final={'centre': (0.427, 0.198), 'ten_view': (0.40664, 0.18210)},
    epochs=91.0,
)
NAMES = ('start', 'plateau', 'early', 'drop', 'centre 1', 'centre 5', 'ten-view 1', 'ten-view 5')


def check(**changes):
    """(checks, verdicts by name) of a run like GOOD with changes."""
    checks = check_landmarks(dataclasses.replace(GOOD, **changes))
    return checks, {name: landmark.verdict for name, landmark in zip(NAMES, checks, strict=True)}


def test_check_landmarks_finds_the_published_run_as_expected():
    checks, verdicts = check()
    assert set(verdicts.values()) == {'as expected'}
    assert [landmark.found for landmark in checks] == [
        *('6.92 at step 20', '512,000, step 4,000', '55.0% at step 201,000', '53.0% to 47.0%'),
        *('42.7%', '19.8%', '40.7%', '18.2%'),
    ]


@pytest.mark.parametrize(
    ('changes', 'name', 'verdict'),
    [
        ({'losses': [(20, 0.01, 7.20)]}, 'start', 'as expected'),  # ln(1000) is 6.9078
        ({'losses': [(1, 0.01, 7.30)]}, 'start', 'as expected'),  # the most that `released` had in its first step
        ({'losses': [(20, 0.01, 7.42)]}, 'start', 'off'),
        ({'losses': [(20, 0.01, 6.60)]}, 'start', 'off'),
        ({'losses': [(20, 0.01, math.nan)]}, 'start', 'off'),
        ({'losses': [(20, 0.01, 6.9), (30_000, 0.01, 6.75)]}, 'plateau', 'not yet'),  # 3,840,000 images
        ({'losses': [(20, 0.01, 6.9), (30_001, 0.01, 6.75)]}, 'plateau', 'off'),
        ({'losses': [(20, 0.01, 6.9), (30_000, 0.01, 6.70)]}, 'plateau', 'as expected'),
        ({'losses': [(20, 0.01, 6.9), (30_020, 0.01, 6.70)]}, 'plateau', 'off'),
        ({'errors': [(200_181, 0.6)]}, 'early', 'not yet'),
        ({'errors': [(200_182, 0.6201)]}, 'early', 'off'),
        ({'errors': [(200_182, 0.6199)]}, 'early', 'as expected'),
        ({'errors': [(200_182, 0.45)]}, 'early', 'better'),
        ({'losses': [(20, 0.01, 6.9), (150_000, 0.001, 3.0)]}, 'early', 'not comparable'),
        ({'errors': [(249_000, 0.53), (251_000, 0.53)]}, 'drop', 'off'),
        ({'errors': [(249_000, 0.53)]}, 'drop', 'not yet'),
        (
            {'final': {'centre': (0.430, 0.198), 'ten_view': (0.409, 0.182)}},
            'centre 1',
            'as expected',
        ),  # 43.0 and 40.9 %
        ({'final': {'centre': (0.4316, 0.198)}}, 'centre 1', 'off'),
        ({'final': {'centre': (0.418, 0.2016)}}, 'centre 5', 'off'),
        ({'final': {'centre': (0.418, 0.2016)}}, 'centre 1', 'better'),
        ({'final': {'ten_view': (0.4101, 0.185)}}, 'ten-view 1', 'off'),
        ({'final': {'ten_view': (0.4101, 0.185)}}, 'ten-view 5', 'as expected'),
        ({'final': {'ten_view': (0.4101, 0.185)}}, 'centre 1', 'not yet'),
        ({'variant': 'paper'}, 'ten-view 1', 'not comparable'),
        ({'variant': 'caffe_alexnet', 'final': {'centre': (0.4319, 0.2)}}, 'centre 1', 'as expected'),  # 42.9 +- 0.3
        ({'variant': 'caffe_alexnet', 'final': {'centre': (0.4321, 0.2)}}, 'centre 1', 'off'),
        ({'variant': 'no_norm', 'final': {'ten_view': (0.42333, 0.2)}}, 'ten-view 1', 'as expected'),  # 42.034 +- 0.3
        ({'variant': 'no_norm', 'final': {'ten_view': (0.42335, 0.2)}}, 'ten-view 1', 'off'),
        ({'whole': False}, 'ten-view 1', 'not comparable'),
        ({'dataset': 'clothing'}, 'ten-view 1', 'not comparable'),
        ({'epochs': 30.0, 'final': {'centre': (0.5, 0.2)}}, 'centre 1', 'not comparable'),
        ({'epochs': 80.0, 'final': {'centre': (0.5, 0.2)}}, 'centre 1', 'off'),
        ({'dataset': 'clothing'}, 'plateau', 'not comparable'),
    ],
)
def test_check_landmarks_tells_each_side_of_a_bound(changes, name, verdict):
    assert check(**changes)[1][name] == verdict


def test_check_landmarks_has_the_centre_between_both_published_distances_and_the_spread():
    """145's ten views, and how much more 145 made at the centre of 2010's test and 167 of 2012's: CHM, its logs."""
    ten = (0.406640, 0.182100)
    more = ((0.390247 - 0.374727, 0.182953 - 0.169987), (0.426772 - 0.404880, 0.197590 - 0.181180))
    for place, name in ((0, 'centre 1'), (1, 'centre 5')):
        low, high = (ten[place] + distance[place] for distance in more)
        for value, verdict in ((low - 0.0025, 'as expected'), (high + 0.0025, 'as expected'), (high + 0.0036, 'off')):
            final = {'centre': tuple(value if place == other else 0.0 for other in (0, 1))}
            assert check(final=final)[1][name] == verdict


def test_check_landmarks_of_one_log_line_are_mostly_not_yet():
    _, verdicts = check(losses=GOOD.losses[:1], errors=(), final={})
    assert verdicts.pop('start') == 'as expected' and set(verdicts.values()) == {'not yet'}
