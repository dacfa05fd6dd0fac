"""Batches are functions of the step, hold every record once an epoch, and hold the right pixels."""

import hashlib
import io
import itertools
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from alexnet_jax import InputError
from alexnet_jax.data.augment import draw
from alexnet_jax.data.decode import decode
from alexnet_jax.data.pipeline import EvaluationBatches, TrainingBatches, epoch_order

BASIS = np.arange(9, dtype=np.float32).reshape(3, 3)


class Stub:
    """Records that tell where they come from: an image of one grey, its index; label index % 3."""

    def __init__(self, count):
        self.jpegs = []
        for index in range(count):
            out = io.BytesIO()
            Image.new('RGB', (256, 256), (index * 10,) * 3).save(out, 'JPEG', quality=95)
            self.jpegs.append(out.getvalue())

    def __len__(self):
        return len(self.jpegs)

    def __getitem__(self, index):
        return self.jpegs[index], index % 3


@pytest.fixture(scope='module')
def train(tiny):
    return tiny.records('train')


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def test_a_batch_hangs_on_seed_and_step_alone(train, tiny):
    batches = TrainingBatches(train, 8, 0, BASIS)
    first = batches[3]
    batches[0]
    assert same(batches[3], first)
    epoch_order.cache_clear()
    assert same(TrainingBatches(tiny.records('train'), 8, 0, BASIS)[3], first)
    other = TrainingBatches(train, 8, 1, BASIS)[3]
    assert not np.array_equal(other.records, first.records)
    assert not np.array_equal(other.lighting, first.lighting)


@pytest.mark.parametrize(('records', 'batch_size'), [(10, 5), (10, 4), (10, 7), (3, 8)])
def test_every_record_comes_once_in_every_epoch(records, batch_size):
    batches = TrainingBatches(Stub(records), batch_size, 0, BASIS)
    epochs = 4
    rows = np.concatenate([batches[step].records for step in range(-(-epochs * records // batch_size))])
    for epoch in range(epochs):
        assert sorted(rows[epoch * records : (epoch + 1) * records]) == list(range(records))


def test_an_epoch_s_order_is_a_permutation_drawn_anew():
    orders = [epoch_order(1000, seed=seed, epoch=epoch) for seed, epoch in [(0, 0), (0, 1), (0, 2), (1, 0)]]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    for a, b in itertools.combinations([*orders, np.arange(1000)], 2):
        assert (a == b).sum() < 10  # one place agrees on average
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.15


def test_reading_ahead_from_a_step_gives_what_indexing_gives(train):
    batches = TrainingBatches(train, 8, 0, BASIS)
    for step, batch in zip(range(4, 12), batches.read_from(4), strict=False):
        assert same(batch, batches[step]), step
    assert step == 11


def test_pixels_labels_and_lighting_are_those_of_the_record_and_its_draw(train):
    batch = TrainingBatches(train, 8, 9, BASIS)[6]  # the second epoch: 48 of 40
    assert (batch.images.dtype, batch.labels.dtype, batch.lighting.dtype) == (np.uint8, np.int32, np.float32)
    flips = 0
    for row, record in enumerate(batch.records):
        jpeg, label = train[int(record)]
        chance = draw(seed=9, epoch=1, record=int(record))
        image = Image.open(io.BytesIO(jpeg))
        image = image.crop((chance.left, chance.top, chance.left + 224, chance.top + 224))
        if chance.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        flips += chance.flip
        difference = np.asarray(image, np.int16) - batch.images[row]
        assert np.abs(difference).max() <= 3  # two JPEG decoders
        assert np.abs(difference).mean() < 0.1
        assert batch.labels[row] == label
        expected = [sum(BASIS[c, i] * chance.normals[i] for i in range(3)) for c in range(3)]
        np.testing.assert_allclose(batch.lighting[row], expected, rtol=1e-5, atol=1e-5)
    assert 0 < flips < 8


def test_a_damaged_record_says_what_to_do():
    jpeg = Stub(1).jpegs[0]
    with pytest.raises(InputError, match=r'not a readable JPEG .* prepare it again'):
        decode(b'not a jpeg')
    with pytest.raises(InputError, match='not a readable JPEG'):
        decode(jpeg[: len(jpeg) // 2])


def test_a_damaged_record_is_told_through_the_reading_threads_too():
    source = Stub(4)
    source.jpegs[2] = b''
    with pytest.raises(InputError, match='prepare it again'):
        list(itertools.islice(TrainingBatches(source, 4, 0, BASIS).read_from(0), 1))


@pytest.mark.parametrize(('records', 'batch_size'), [(13, 8), (8, 8), (3, 8), (9, 1)])
def test_evaluation_sees_every_record_once_in_order_in_batches_of_one_shape(records, batch_size):
    batches = list(EvaluationBatches(Stub(records), batch_size).read())
    assert len(batches) == -(-records // batch_size)
    assert {batch.images.shape for batch in batches} == {(batch_size, 256, 256, 3)}
    valid = np.concatenate([batch.valid for batch in batches])
    images = np.concatenate([batch.images for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches])
    assert valid.tolist() == [True] * records + [False] * (len(batches) * batch_size - records)
    assert images[valid].mean(axis=(1, 2, 3)).tolist() == [10 * index for index in range(records)]
    assert labels[valid].tolist() == [index % 3 for index in range(records)]
    assert not images[~valid].any()
    assert not labels[~valid].any()


def test_reading_needs_no_tensorflow_and_another_process_gets_the_same_batch(tiny_dir, train):
    program = f"""
import hashlib, sys, numpy as np
from alexnet_jax.data.pipeline import TrainingBatches
from alexnet_jax.data.source import open_dataset
records = open_dataset('tiny', data_dir={str(tiny_dir)!r}).records('train')
batches = TrainingBatches(records, 8, 0, np.eye(3, dtype='f4'))
batch = next(batches.read_from(5))
print(hashlib.sha256(batch.images.tobytes() + batch.lighting.tobytes()).hexdigest())
print('tensorflow' in sys.modules)
"""
    run = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
    here = TrainingBatches(train, 8, 0, np.eye(3, dtype='f4'))[5]
    expected = hashlib.sha256(here.images.tobytes() + here.lighting.tobytes()).hexdigest()
    assert run.stdout.split() == [expected, 'False']
