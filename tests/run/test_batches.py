"""Batches on their way to the devices: processes that need the same rows must have made the same."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from builders import run_with
from simplejpeg import decode_jpeg

from alexnet_jax.errors import InputError
from alexnet_jax.model.alexnet import init_parameters
from alexnet_jax.model.spec import Conv, Dense
from alexnet_jax.run import batches
from alexnet_jax.training.step import make_gradients


@pytest.fixture
def run():
    return run_with()


PARTS = ('images', 'labels', 'places')  # of a batch, what is compared


@pytest.mark.parametrize(
    ('other', 'refused'),
    [({}, False), ({'digest': 'another'}, True), ({'rows': [8, 16], 'digest': 'another'}, False)],
)
def test_iter_batches_refuses_another_batch_of_the_same_rows_and_names_its_process(
    tiny, run, monkeypatch, other, refused
):
    monkeypatch.setattr(batches, 'allgather_str', lambda topic, word: [word, json.dumps(json.loads(word) | other)])
    placed = batches.iter_batches(run, tiny, start=3)
    if refused:
        with pytest.raises(InputError, match='process 1 made another batch of the same rows'):
            next(placed)
    else:
        assert next(placed).images.shape == (8, 224, 224, 3)


def test_check_same_rows_tells_any_part_of_one_image_apart(tiny, run, monkeypatch):
    said = []
    monkeypatch.setattr(batches, 'allgather_str', lambda topic, word: said.append(word) or [word])
    batch = batches.make_batches(run, tiny)[0]
    images, labels, places = (getattr(batch, name).copy() for name in PARTS)
    images[3, 100, 100, 1] ^= 1
    labels[7] ^= 1
    places[2, 2] ^= 1  # mirrored, or not
    changed = dict(zip(PARTS, (images, labels, places), strict=True))
    others = [dataclasses.replace(batch, **{name: value}) for name, value in changed.items()]
    for one in (batch, *others, batch):
        batches._check_same_rows(one, range(8))
    assert said[0] == said[-1]
    assert len(set(said)) == 4


def test_make_batches_gives_the_same_images_in_another_order_after_a_roll_back(tiny):
    whole = run_with(batch_size=40)
    first, second = (batches.make_batches(whole, tiny, data_order=order).records(0).tolist() for order in (0, 1))
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second


def test_iter_batches_places_no_lighting_that_is_not_finite(tiny, run, monkeypatch):
    monkeypatch.setattr(batches, 'lighting_basis', lambda *_, **__: np.full((3, 3), np.nan, np.float32))
    monkeypatch.setattr(batches, 'place_batch', None)
    with pytest.raises(InputError, match='the lighting is nan at step 1'):
        next(batches.iter_batches(run, tiny, start=0))


def test_iter_batches_of_caffe_subtract_the_mean_behind_each_crop(tiny):
    """The loss of a step of one convolution, by NumPy from whole records: cut, subtracted, mirrored."""
    run = run_with(variant='caffenet', mesh=(1, 1))
    convolution = Conv('conv1', 2, 227, 'image', ((0, 0), (0, 0)), (), init_std=1e-3, init_bias=0.0)
    small = {'convs': (convolution,), 'dense': (Dense('fc8', 0, init_std=1.0, init_bias=0.0),), 'towers': 1}
    run = dataclasses.replace(run, variant=dataclasses.replace(run.variant, **small))
    host, placed = batches.make_batches(run, tiny)[0], next(batches.iter_batches(run, tiny, start=0))
    params = init_parameters(run.variant, jax.random.key(0), num_classes=3)
    gradients = jax.jit(make_gradients(run.variant, run.mesh, num_classes=3))
    (loss, _), _ = gradients(params, placed, tiny.mean_image, jax.random.key(0))
    records, losses = tiny.records('train'), []
    for record, label, (top, left, mirrored) in zip(host.records.tolist(), host.labels, host.places, strict=True):
        x = decode_jpeg(records[record][0]).astype(np.float64) - tiny.mean_image
        x = x[top : top + 227, left : left + 227][:, :: -1 if mirrored else 1]
        logits = np.einsum('hwc,hwco->o', x, params['conv1']['kernel'], dtype=np.float64) @ params['fc8']['kernel']
        losses.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label])
    assert len(set(map(tuple, host.places.tolist()))) > 4 and 0 < host.places[:, 2].sum() < 8
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-3)
