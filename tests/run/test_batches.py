"""Batches on their way to the devices: processes that need the same rows must have made the same."""

import dataclasses
import json

import numpy as np
import pytest
from builders import run_with

from alexnet_jax.errors import InputError
from alexnet_jax.run import batches


@pytest.fixture
def run():
    return run_with()


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


def test_check_same_rows_tells_one_pixel_and_one_label_apart(tiny, run, monkeypatch):
    said = []
    monkeypatch.setattr(batches, 'allgather_str', lambda topic, word: said.append(word) or [word])
    batch = batches.make_batches(run, tiny)[0]
    images, labels = batch.images.copy(), batch.labels.copy()
    images[3, 100, 100, 1] ^= 1
    labels[7] ^= 1
    for one in (batch, dataclasses.replace(batch, images=images), dataclasses.replace(batch, labels=labels), batch):
        batches._check_same_rows(one, range(8))
    assert said[0] == said[3]
    assert len(set(said)) == 3


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
