"""Both protocols against a slow computation: image by image, view by view, the plain network, NumPy's averages."""

import dataclasses
import functools
import io
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from PIL import Image
from simplejpeg import decode_jpeg

from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.preparing import folder
from alexnet_jax.data.preparing.writer import prepare
from alexnet_jax.evaluation import evaluator as evaluation
from alexnet_jax.evaluation.evaluator import Evaluator, Result
from alexnet_jax.model.alexnet import init_parameters
from alexnet_jax.model.spec import Conv, Dense, Relu
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.sharding.mesh import make_mesh, parameter_specs, shardings
from alexnet_jax.training.step import Batch, make_gradients

pytestmark = pytest.mark.usefixtures('optimised')

WIDTH, CLASSES = 0.0625, 3
MEAN = np.random.default_rng(1).uniform(90, 130, (224, 224, 3))
CORNERS = [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]


@pytest.fixture(scope='module')
def validation(tiny):
    return tiny.records('validation')


def parameters(variant, classes=CLASSES):
    """Float64, and strong enough that images differ in what they are taken for."""
    params = init_parameters(VARIANTS[variant].scaled(WIDTH), jax.random.key(0), num_classes=classes)
    params = jax.tree.map(lambda p: np.asarray(p, np.float64) * 2, params)
    params['fc8']['kernel'] = np.random.default_rng(2).normal(0, 0.1, params['fc8']['kernel'].shape)
    params['fc8']['bias'] = -params['fc8']['kernel'].sum(axis=0) / 2
    return params


def placed(params, mean, mesh):
    """Both where training has them."""
    tree = {'params': params, 'mean': mean}
    tree = jax.device_put(tree, shardings(mesh, parameter_specs(mesh, tree)))
    return tree['params'], tree['mean']


@pytest.fixture(scope='module', params=[pytest.param('paper', marks=pytest.mark.repeats), 'released'])
def slow(request, validation):
    """(variant, params, {protocol: (loss, top-1 error, probabilities)}) by the plain network."""
    params = parameters(request.param)
    images = np.stack([decode_jpeg(jpeg) for jpeg, _ in validation])
    labels = np.array([label for _, label in validation])
    pil = np.stack([np.asarray(Image.open(io.BytesIO(jpeg)), np.int16) for jpeg, _ in validation])
    assert np.abs(images - pil).max() <= 3  # the decoder is another library's; it is one for both sides here
    with jax.enable_x64(True):
        network = jax.jit(lambda x: oracle.network(request.param, params, x, None))
        views = []
        for top, left in CORNERS:
            for mirrored in (False, True):
                x = images[:, top : top + 224, left : left + 224].astype(np.float64)
                logits = np.asarray(network((x[:, :, ::-1] if mirrored else x) - MEAN))
                powers = np.exp(logits - logits.max(axis=1, keepdims=True))
                views.append(powers / powers.sum(axis=1, keepdims=True))
    expected = {}
    for protocol, probabilities in {'centre': views[8], 'ten_view': sum(views) / 10}.items():
        loss = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
        expected[protocol] = (loss, (probabilities.argmax(axis=1) != labels).mean(), probabilities)
    assert all(0 < error < 1 for _, error, _ in expected.values())
    assert abs(expected['centre'][0] - expected['ten_view'][0]) > 1e-3  # the test would see one taken for the other
    return request.param, params, expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ('shape', 'trick'),
    [
        ((2, 2), False),
        ((1, 4), True),
        pytest.param((1, 1), False, marks=pytest.mark.repeats),
        pytest.param((1, 2), False, marks=pytest.mark.repeats),
    ],
)
def test_evaluator_equals_the_plain_network_on_every_mesh(slow, validation, shape, trick):
    """13 images in batches of 4: the last one is filled up."""
    name, params, expected = slow
    mesh, told = make_mesh(*shape, one_weird_trick=trick), []
    with jax.enable_x64(True):
        evaluate = Evaluator(VARIANTS[name].scaled(WIDTH), mesh, validation, num_classes=CLASSES, batch_size=4)
        for protocol, (loss, error, probabilities) in expected.items():
            result = evaluate(*placed(params, MEAN, mesh), protocol=protocol)
            assert result.examples == 13
            assert result.loss == pytest.approx(loss, rel=1e-10)
            assert result.top1_error == pytest.approx(error, abs=1e-12)
            assert result.top5_error == 0  # of three classes
            found = evaluate.predict(*placed(params, MEAN, mesh), protocol=protocol, progress=told.append)
            np.testing.assert_allclose(found.probabilities, probabilities, rtol=1e-10)
            np.testing.assert_array_equal(found.labels, [label for _, label in validation])
            assert (found.probabilities.dtype, found.labels.dtype) == (np.float64, np.int32)
        part = [1, 4, 5, 8, 12]
        result = evaluate.with_records(validation, chosen=part)(*placed(params, MEAN, mesh), protocol='centre')
    assert told == [4, 8, 12, 13] * 2
    probabilities, labels = expected['centre'][2][part], np.array([label for _, label in validation])[part]
    assert result.examples == 5
    assert result.loss == pytest.approx(-np.log(probabilities[np.arange(5), labels]).mean(), rel=1e-10)
    assert result.top1_error == pytest.approx((probabilities.argmax(axis=1) != labels).mean(), abs=1e-12)


def small_variant(crop, record):
    """One convolution as large as the crop, fc7 and fc8: three products of matrices."""
    convolution = Conv('conv1', 5, crop, 'image', ((0, 0), (0, 0)), (Relu(),), init_std=1.0, init_bias=0.0)
    return dataclasses.replace(
        VARIANTS['paper'],
        convs=(convolution,),
        dense=(Dense('fc7', 6, init_std=1.0, init_bias=0.0), Dense('fc8', 0, init_std=1.0, init_bias=0.0)),
        dropout_rate=0.0,
        input_size=crop,
        record_size=record,
        towers=1,
    )


@pytest.fixture(scope='module')
def constant(validation):
    """A test of a network that answers the same to every image: softmax of `bias` over ten classes."""
    variant, mesh = small_variant(224, 256), make_mesh(1, 1)
    evaluate = Evaluator(variant, mesh, validation, num_classes=10, batch_size=8)

    def test(bias, protocol='centre', params_are_placed_before=lambda: None):
        params = init_parameters(variant, jax.random.key(0), num_classes=10)
        params['fc8'] = {'kernel': np.zeros((6, 10), np.float32), 'bias': np.asarray(bias, np.float32)}
        arguments = placed(params, MEAN.astype(np.float32), mesh)
        params_are_placed_before()
        return evaluate(*arguments, protocol=protocol)

    test.evaluate, test.records = evaluate, validation
    return test


@pytest.mark.parametrize('protocol', [pytest.param('centre', marks=pytest.mark.repeats), 'ten_view'])
def test_evaluator_sends_each_record_once_for_all_its_views(constant, monkeypatch, protocol):
    """Whole, and only by `jax.device_put`: the test refuses what would go unasked. 13 records in batches of 8."""
    sent, device_put = [], jax.device_put

    def counted(tree, *arguments, **options):
        sent.extend(leaf for leaf in jax.tree.leaves(tree) if np.ndim(leaf) > 2)
        return device_put(tree, *arguments, **options)

    monkeypatch.setattr(jax, 'device_put', counted)
    constant([0] * 10, protocol=protocol, params_are_placed_before=sent.clear)
    assert [(images.shape, images.dtype) for images in sent] == [((8, 256, 256, 3), np.uint8)] * 2
    whole = np.stack([decode_jpeg(jpeg) for jpeg, _ in constant.records])
    np.testing.assert_array_equal(np.concatenate(sent)[:13], whole)


FIVE = [(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)]


@pytest.mark.parametrize(
    ('crop', 'places', 'mean_at'), [(24, FIVE, 'centre'), (24, FIVE, 'crop'), (32, [(0, 0)], 'centre')]
)
def test_evaluator_predicts_records_of_32(tmp_path, crop, places, mean_at):
    """12 records in batches of 8. Each view has the same mean, or its own part of it, mirrored with it."""
    random = np.random.default_rng(crop)
    for split, name in itertools.product(('train', 'validation'), ('cat', 'dog')):
        (tmp_path / split / name).mkdir(parents=True)
        for i in range(6):
            noise = random.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(noise).resize((32, 32)).save(tmp_path / split / name / f'{i}.png')
    prepare(folder.make_folder_spec(tmp_path, name='small', record_size=32), data_dir=tmp_path, workers=1)
    records = open_dataset('small', data_dir=tmp_path).records('validation')
    images = np.stack([np.asarray(Image.open(io.BytesIO(jpeg)), np.float64) for jpeg, _ in records])
    kernel, mean = random.normal(0, 1e-3, (crop, crop, 3, 5)), random.uniform(60, 160, (32, 32, 3))
    edge = (32 - crop) // 2
    centre = mean[edge : edge + crop, edge : edge + crop]
    fc7, fc8 = random.normal(0, 1, (5, 6)), random.normal(0, 1, (6, 2))
    params = {'conv1': kernel, 'fc7': fc7, 'fc8': fc8}
    params = {name: {'kernel': weights, 'bias': np.zeros(weights.shape[-1])} for name, weights in params.items()}
    views, relu = [], functools.partial(np.maximum, 0)
    for flip, (top, left) in itertools.product((1, -1), places):
        x = images[:, top : top + crop, left : left + crop][:, :, ::flip].copy()
        x -= centre if mean_at == 'centre' else mean[top : top + crop, left : left + crop][:, ::flip]
        powers = np.exp(relu(relu(np.einsum('nhwc,hwcf->nf', x, kernel)) @ fc7) @ fc8)
        views.append(powers / powers.sum(axis=1, keepdims=True))
    mesh = make_mesh(1, 1)
    with jax.enable_x64(True):
        evaluate = Evaluator(small_variant(crop, 32), mesh, records, num_classes=2, batch_size=8)
        arrays = placed(params, centre if mean_at == 'centre' else mean, mesh)
        ten, one = (evaluate.predict(*arrays, protocol=protocol).probabilities for protocol in ('ten_view', 'centre'))
    np.testing.assert_allclose(ten, np.mean(views, axis=0), rtol=1e-9)
    np.testing.assert_allclose(one, views[len(places) - 1], rtol=1e-9)
    assert np.abs(ten - one).max() > 0.01


@pytest.mark.parametrize(
    ('bias', 'top1', 'top5'),
    [  # by CHM src/layer_kernels.cu:108-117
        ([0] * 10, 9 / 10, 5 / 10),  # a dead network is right as often as guessing is, where argmax would find 5 of 13
        ([9, 9, 9, 8, 0, 0, 0, 0, 0, 0], 2 / 3, 0),
        ([1, 1, 1, 9, 8, 7, 1, 0, 0, 0], 1, 1 - 2 / 4),  # two places for four
    ],
)
def test_evaluator_shares_ties(constant, bias, top1, top5):
    """Labels are 0, 1 and 2, whose scores are the same."""
    loss = math.log(sum(math.exp(b - bias[0]) for b in bias))
    expected = (pytest.approx(value, abs=1e-6) for value in (loss, top1, top5))
    assert constant(bias) == Result(13, *expected)


@pytest.mark.parametrize(('shape', 'trick'), [((1, 1), False), ((1, 2), True)])
def test_evaluator_and_training_metric_tell_1000_classes_apart_in_bfloat16(validation, shape, trick):
    """Logits of 8 + rank / 256, each exactly 1 * (8 + whole sixteenths) + 1/256 * (0 to 15), which bfloat16 all has.

    Rounded to bfloat16 as sums, 16 classes would share the best. One weird trick has a summand on either device.
    """
    rank = np.random.default_rng(3).permutation(1000)
    for label, wanted in enumerate((999, 998, 994)):  # the first, the second, the sixth
        rank[rank == wanted], rank[label] = rank[label], wanted
    dense = (Dense('fc6', 2, 0.0, 0.0), Dense('fc7', 2, 0.0, 0.0), Dense('fc8', 0, 0.0, 0.0))
    variant = dataclasses.replace(small_variant(224, 256), dense=dense)
    params = init_parameters(variant, jax.random.key(0), num_classes=1000)
    params['fc7']['bias'] = np.array([1, 2**-8], np.float32)
    params['fc8']['kernel'] = np.stack([8 + rank // 16 / 16, rank % 16]).astype(np.float32)
    mesh = make_mesh(*shape, one_weird_trick=trick)
    options = {'num_classes': 1000, 'dtype': jnp.bfloat16}
    evaluate = Evaluator(variant, mesh, validation, batch_size=8, **options)
    arrays = placed(params, MEAN.astype(np.float32), mesh)
    result = evaluate(*arrays, protocol='centre')
    assert (result.top1_error, result.top5_error) == pytest.approx((8 / 13, 4 / 13))  # 5, 4 and 4 of the labels
    probabilities = evaluate.predict(*arrays, protocol='centre').probabilities
    np.testing.assert_array_equal(probabilities.argsort(axis=1), np.broadcast_to(rank.argsort(), (13, 1000)))
    labels = np.array([0, 0, 1, 2, 0, 1, 2, 0], np.int32)
    batch = Batch(np.zeros((8, 224, 224, 3), np.uint8), labels, np.zeros((8, 3), np.float32))
    gradients = jax.jit(make_gradients(variant, mesh, **options))
    (loss, error), _ = gradients(arrays[0], batch, arrays[1], jax.random.key(0))
    powers = np.exp(np.arange(1000) / 256)
    assert float(error) == 4 / 8
    assert float(loss) == pytest.approx(np.log(powers.sum() / powers[rank[labels]]).mean(), rel=1e-6)


def test_evaluator_counts_nan_as_an_error_and_not_a_small_loss(constant):
    result = constant([math.nan] * 10)
    assert (result.examples, result.top1_error, result.top5_error) == (13, 1.0, 1.0)
    assert math.isnan(result.loss)


def test_evaluator_takes_the_fifth_among_the_five_and_not_the_sixth(constant):
    """Of the labels, 0 comes fifth, 1 sixth, 2 seventh; the validation split has 5, 4 and 4 of them."""
    bias = [5, 4, 3, 9, 8, 7, 6, 0, 0, 0]
    result = constant(bias)
    total = math.log(sum(math.exp(b) for b in bias))
    loss = sum(count * (total - b) for count, b in zip([5, 4, 4], bias, strict=False)) / 13
    assert result == Result(13, pytest.approx(loss, rel=1e-5), 1.0, pytest.approx(8 / 13))


def test_evaluator_takes_the_first_as_right(constant):
    assert constant([9, 4, 3, 0, 0, 0, 0, 0, 0, 0]).top1_error == pytest.approx(8 / 13)


def test_evaluator_refuses_a_count_that_is_not_the_split_s(constant):
    evaluate = constant.evaluate
    evaluate.examples = 14
    try:
        with pytest.raises(AssertionError, match=r'evaluated 13\.0 images of 14'):
            constant([0] * 10)
    finally:
        evaluate.examples = 13


def test_evaluator_moves_nothing_unasked(constant, monkeypatch):
    """A batch that is left on the host would be sent by the call itself, which then waits for it: refused."""
    monkeypatch.setattr(evaluation, 'place_batch', lambda mesh, batch, batch_size: batch)
    with pytest.raises(jax.errors.JaxRuntimeError, match='Disallowed host-to-device transfer'):
        constant([0] * 10)
