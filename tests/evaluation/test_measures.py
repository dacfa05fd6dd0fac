"""Measures of probabilities, against loops over images."""

import math

import numpy as np
import pytest

from alexnet_jax.evaluation.evaluator import Predictions
from alexnet_jax.evaluation.measures import (
    average_predictions,
    compute_calibration_error,
    count_confusions,
    measure_calibration,
    measure_classes,
    measure_errors,
)

CLASSES = tuple('abcdefgh')


def predictions(seed=0, images=200):
    random = np.random.default_rng(seed)
    powers = np.exp(random.normal(0, 2, (images, len(CLASSES))))
    labels = np.random.default_rng(99).integers(0, len(CLASSES) - 1, images, dtype=np.int32)  # none of class 'h'
    powers[np.arange(images), labels] *= 4
    return Predictions((powers / powers.sum(axis=1, keepdims=True)).astype(np.float32), labels)


def order(row):
    return sorted(range(len(row)), key=lambda index: -row[index])


def test_measure_errors_equals_a_loop():
    found, given = measure_errors(predictions()), predictions()
    rows = list(zip(given.probabilities.tolist(), given.labels.tolist(), strict=True))
    assert found.examples == 200
    assert found.top1_error == pytest.approx(sum(order(row)[0] != label for row, label in rows) / 200, abs=1e-12)
    assert found.top5_error == pytest.approx(sum(label not in order(row)[:5] for row, label in rows) / 200, abs=1e-12)
    assert found.loss == pytest.approx(sum(-math.log(row[label]) for row, label in rows) / 200, rel=1e-6)
    assert 0 < found.top5_error < found.top1_error < 1


@pytest.mark.parametrize(
    ('row', 'top1', 'top5', 'loss'),
    [  # of label 0, by CHM src/layer_kernels.cu:108-117
        ([0.25] * 4, 3 / 4, 0, math.log(4)),  # one place for four, and five places for four
        ([0.2, 0.3, 0.2, 0.2, 0.1], 1, 0, math.log(5)),
        ([0.1, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1], 1, 1 - 2 / 4, math.log(10)),  # two places for four
        ([0.1, 0.14, 0.15, 0.16, 0.17, 0.1, 0.18], 1, 1, math.log(10)),  # no place for two
        ([0, 1, 0, 0], 1, 0, -math.log(np.finfo(np.float32).tiny)),
        ([math.nan] * 6, 1, 1, math.nan),
        ([0.5, math.nan, 0.2, 0.1, 0.1, 0.1], 1, 0, math.log(2)),
    ],
)
def test_measure_errors_of_ties_nan_and_certainty_of_the_wrong(row, top1, top5, loss):
    found = measure_errors(Predictions(np.array([row], np.float32), np.zeros(1, np.int32)))
    assert (found.top1_error, found.top5_error) == pytest.approx((top1, top5))
    assert found.loss == pytest.approx(loss, nan_ok=True)


def test_measure_calibration_and_classes_share_ties():
    given = Predictions(np.array([[0.5, 0.5], [0.5, 0.5]], np.float32), np.array([0, 1], np.int32))
    assert [row.accuracy for row in measure_calibration(given, bins=2) if row.images] == [0.5]
    assert [row.top1_error for row in measure_classes(given, ('a', 'b'))] == [0.5, 0.5]


def test_measure_classes_and_confusions_equal_a_loop():
    given = predictions()
    called = [order(row)[0] for row in given.probabilities.tolist()]
    matrix = count_confusions(given)
    for true in range(8):
        for taken in range(8):
            pairs = zip(given.labels, called, strict=True)
            assert matrix[true, taken] == sum(pair == (true, taken) for pair in pairs)
    table = measure_classes(given, CLASSES)
    assert [row.name for row in table] == list(CLASSES)
    for row in table[:-1]:
        own = [image for image in range(200) if given.labels[image] == row.index]
        wrong = [called[image] for image in own if called[image] != row.index]
        assert row.images == len(own)
        assert row.top1_error == pytest.approx(len(wrong) / len(own))
        mean = sum(float(given.probabilities[image, row.index]) for image in own) / len(own)
        assert row.mean_probability == pytest.approx(mean, rel=1e-6)
        assert row.called == called.count(row.index)
        assert row.taken_for_images == wrong.count(CLASSES.index(row.taken_for)) == max(map(wrong.count, range(8)))
    last = table[-1]
    assert (last.images, last.top1_error, last.mean_probability, last.taken_for) == (0, None, None, '')
    assert last.called == called.count(7) > 0


def test_measure_calibration_equals_a_loop():
    given = predictions()
    table = measure_calibration(given)
    assert len(table) == 15 and sum(row.images for row in table) == 200
    gap = 0
    sure = [max(map(float, row)) for row in given.probabilities]
    right = [order(row)[0] == label for row, label in zip(given.probabilities, given.labels, strict=True)]
    for number, row in enumerate(table):
        inside = [image for image in range(200) if number / 15 < sure[image] <= (number + 1) / 15]
        assert (row.lower, row.upper, row.images) == (number / 15, (number + 1) / 15, len(inside))
        if inside:
            confidence = sum(sure[image] for image in inside) / len(inside)
            accuracy = sum(right[image] for image in inside) / len(inside)
            assert (row.confidence, row.accuracy) == pytest.approx((confidence, accuracy), rel=1e-6)
            gap += len(inside) / 200 * abs(confidence - accuracy)
        else:
            assert (row.confidence, row.accuracy) == (None, None)
    assert compute_calibration_error(table) == pytest.approx(gap, rel=1e-6)


def test_measure_calibration_counts_an_upper_edge_to_its_bin():
    rows = measure_calibration(Predictions(np.array([[0.5, 0.5], [1, 0]], np.float32), np.zeros(2, np.int32)), bins=2)
    assert [row.images for row in rows] == [1, 1]


def test_average_predictions_is_the_mean_of_its_members():
    members = [predictions(seed) for seed in range(3)]
    found = average_predictions(members)
    for image in range(200):
        for index in range(8):
            mean = sum(float(member.probabilities[image, index]) for member in members) / 3
            assert found.probabilities[image, index] == pytest.approx(mean, rel=1e-6)
    np.testing.assert_array_equal(found.labels, members[0].labels)
    assert measure_errors(found).top1_error < min(measure_errors(member).top1_error for member in members)
    with pytest.raises(ValueError, match='of the same images and classes'):
        average_predictions([members[0], predictions(images=100)])
