"""Measures of probabilities, against loops over images."""

import math

import numpy as np
import pytest

from alexnet_jax.evaluation.measures import by_class, calibration, calibration_error, confusion, ensemble, measure
from alexnet_jax.evaluation.predictions import Predictions
from alexnet_jax.evaluation.references import select_references
from alexnet_jax.model.network import NetworkName

CLASSES = tuple('abcdefgh')


def predictions(seed=0, images=200):
    random = np.random.default_rng(seed)
    powers = np.exp(random.normal(0, 2, (images, len(CLASSES))))
    labels = np.random.default_rng(99).integers(0, len(CLASSES) - 1, images, dtype=np.int32)  # none of class 'h'
    powers[np.arange(images), labels] *= 4
    return Predictions((powers / powers.sum(axis=1, keepdims=True)).astype(np.float32), labels)


def order(row):
    return sorted(range(len(row)), key=lambda index: -row[index])


def test_errors_and_loss_are_those_of_a_loop():
    found, given = measure(predictions()), predictions()
    rows = list(zip(given.probabilities.tolist(), given.labels.tolist(), strict=True))
    assert found.examples == 200
    assert found.top1_error == pytest.approx(sum(order(row)[0] != label for row, label in rows) / 200, abs=1e-12)
    assert found.top5_error == pytest.approx(sum(label not in order(row)[:5] for row, label in rows) / 200, abs=1e-12)
    assert found.loss == pytest.approx(sum(-math.log(row[label]) for row, label in rows) / 200, rel=1e-6)
    assert 0 < found.top5_error < found.top1_error < 1


def test_ties_nan_and_certainty_of_the_wrong():
    rows = np.array([[0.25] * 4, [math.nan] * 4, [0, 1, 0, 0]], np.float32)
    for row, loss in zip(rows, (math.log(4), math.nan, -math.log(np.finfo(np.float32).tiny)), strict=True):
        found = measure(Predictions(row[None], np.zeros(1, np.int32)))
        assert found.top1_error == 1
        assert found.loss == pytest.approx(loss, nan_ok=True)


def test_confusions_and_classes_are_those_of_a_loop():
    given = predictions()
    called = [order(row)[0] for row in given.probabilities.tolist()]
    matrix = confusion(given)
    for true in range(8):
        for taken in range(8):
            pairs = zip(given.labels, called, strict=True)
            assert matrix[true, taken] == sum(pair == (true, taken) for pair in pairs)
    table = by_class(given, CLASSES)
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


def test_calibration_is_that_of_a_loop():
    given = predictions()
    table = calibration(given)
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
    assert calibration_error(table) == pytest.approx(gap, rel=1e-6)


def test_an_upper_edge_belongs_to_its_part():
    rows = calibration(Predictions(np.array([[0.5, 0.5], [1, 0]], np.float32), np.zeros(2, np.int32)), bins=2)
    assert [row.images for row in rows] == [1, 1]


def test_an_ensemble_is_the_mean_of_its_members():
    members = [predictions(seed) for seed in range(3)]
    found = ensemble(iter(members))
    for image in range(200):
        for index in range(8):
            mean = sum(float(member.probabilities[image, index]) for member in members) / 3
            assert found.probabilities[image, index] == pytest.approx(mean, rel=1e-6)
    np.testing.assert_array_equal(found.labels, members[0].labels)
    assert measure(found).top1_error < min(measure(member).top1_error for member in members)
    with pytest.raises(ValueError, match='of the same images and classes'):
        ensemble([members[0], predictions(images=100)])


def test_published_errors_come_with_their_protocol():
    """The rows that the paper's abstract and table 2 are known by, and the reason why they stand alone."""
    rows = {row.run: row for row in select_references('ten_view') if row.dataset == 'ILSVRC-2012'}
    assert (rows['paper, 1 CNN'].top1_error, rows['paper, 1 CNN'].top5_error) == pytest.approx((0.407, 0.182))
    assert {row.protocol for row in select_references('centre')} == {'centre'}
    assert not any(row.run.startswith('paper') and row.dataset == 'ILSVRC-2012' for row in select_references('centre'))
    assert {row.models for row in select_references('ten_view')} == {1}
    assert 'paper, 5 CNNs' in {row.run for row in select_references('ten_view', models=5)}


@pytest.mark.parametrize(
    ('name', 'protocol', 'first', 'besides'),
    [  # runs as CHM layers/, BVLC/caffe and torchvision call them
        (NetworkName('released'), 'ten_view', {'released 145'}, set()),
        (NetworkName('paper'), 'ten_view', set(), set()),
        (NetworkName('half'), 'ten_view', {'released 145-half'}, {'released 145-half'}),
        (NetworkName('no_exchange'), 'ten_view', {'released 150'}, {'released 150'}),
        (NetworkName('no_norm'), 'ten_view', {'released 148'}, {'released 148'}),
        (NetworkName('released', without=('norm',)), 'ten_view', {'released 148'}, {'released 148'}),
        (NetworkName('released', width=0.5, without=('norm',)), 'ten_view', set(), {'released 148'}),
        (NetworkName('no_overlap'), 'ten_view', {'released 147'}, {'released 147'}),
        (NetworkName('released', without=('norm2',)), 'centre', set(), {'released 167'}),
        (NetworkName('caffe_alexnet'), 'centre', {'Caffe bvlc_alexnet'}, set()),
        (NetworkName('caffenet'), 'centre', {'Caffe bvlc_reference_caffenet'}, set()),
        (NetworkName('one_weird_trick'), 'centre', {'torchvision AlexNet'}, set()),
    ],
)
def test_a_network_stands_beside_its_own_published_errors(name, protocol, first, besides):
    """Those of the same network come first; those of networks that lack the same part come beside the usual ones."""
    found = select_references(protocol, networks=[name.build()])
    same = [row.is_of([name.build()]) for row in found]
    assert {row.run for row, own in zip(found, same, strict=True) if own} == first
    assert same == sorted(same, reverse=True)
    assert {row.run for row in found} - {row.run for row in select_references(protocol)} == besides


def test_networks_for_cifar_stand_beside_their_own_kind():
    """26, 19 and 18 % of whole images (CHM example-layers/): beside each of these networks, and beside no other."""
    for without in ((), ('norm',)):
        rows = select_references('centre', networks=[NetworkName('cifar10_18pct', without=without).build()])
        assert {row.run: row.top1_error for row in rows} == pytest.approx(
            {'cuda-convnet 80sec': 0.26, 'cuda-convnet 19pct': 0.19, 'cuda-convnet 18pct': 0.18}
        )
    first = select_references('centre', networks=[NetworkName('cifar10_18pct').build()])[0]
    assert (first.run, first.top5_error) == ('cuda-convnet 18pct', None)
    assert first.unlike('cifar10', 'validation') == ''  # what TFDS and his data call the test images
    assert first.unlike('cifar10', 'train') == 'not comparable: test, not train'
    assert first.unlike('imagenet2012', 'validation') == 'not comparable: CIFAR-10, not imagenet2012'
    assert not select_references('ten_view', networks=[NetworkName('cifar10_11pct').build()])  # he tested nine places
    both = select_references('centre', networks=[NetworkName(name).build() for name in ('cifar10_18pct', 'released')])
    assert {row.dataset for row in both} == {'CIFAR-10', 'ILSVRC-2010', 'ILSVRC-2012'}
    assert 'CIFAR-10' not in {row.dataset for row in select_references('centre')}


def test_another_dataset_or_split_is_said():
    row = next(row for row in select_references('ten_view') if row.run == 'paper, 1 CNN')
    assert row.unlike('imagenet2012', 'validation') == ''
    assert row.unlike('demo', 'validation') == 'not comparable: ILSVRC-2012, not the embedded dataset'
    assert row.unlike('clothing', 'validation') == 'not comparable: ILSVRC-2012, not clothing'
    assert row.unlike('imagenet2012', 'train') == 'not comparable: validation, not train'
