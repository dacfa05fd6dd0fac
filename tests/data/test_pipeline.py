"""Batches are functions of the step, hold every record once an epoch, and hold the right pixels."""

import hashlib
import io
import itertools
import subprocess
import sys

import numpy as np
import psutil
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from scipy import stats
from simplejpeg import decode_jpeg

from alexnet_jax.data import raw
from alexnet_jax.data.augment import sample_augmentation
from alexnet_jax.data.cache import CachedSource
from alexnet_jax.data.decode import decode_record_crop
from alexnet_jax.data.pipeline import EvaluationBatches, TrainingBatches, choose_records, epoch_order
from alexnet_jax.errors import InputError

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


def test_training_batches_depend_on_seed_and_step_only(train, tiny):
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
def test_training_batches_hold_each_record_once_an_epoch(records, batch_size):
    batches = TrainingBatches(Stub(records), batch_size, 0, BASIS)
    epochs = 4
    rows = np.concatenate([batches[step].records for step in range(-(-epochs * records // batch_size))])
    for epoch in range(epochs):
        assert sorted(rows[epoch * records : (epoch + 1) * records]) == list(range(records))


def test_epoch_order_is_another_permutation_each_epoch():
    orders = [epoch_order(1000, seed=seed, epoch=epoch) for seed, epoch in [(0, 0), (0, 1), (0, 2), (1, 0)]]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    for a, b in itertools.combinations([*orders, np.arange(1000)], 2):
        assert (a == b).sum() < 10  # one place agrees on average
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.15


def test_epoch_order_is_uniform_over_positions():
    """Eight records over 4000 epochs; of 64 counts, 49 are free, as each record has one place and each place one."""
    orders = np.stack([epoch_order(8, seed=0, epoch=epoch) for epoch in range(4000)])
    counts = np.stack([np.bincount(orders[:, place], minlength=8) for place in range(8)])
    # A permutation matrix has covariance of the independence model times 8/7.
    statistic, bound = ((counts - 500) ** 2 / 500).sum() * 7 / 8, stats.chi2.ppf(0.999, 49)
    assert statistic < bound, f'chi-square {statistic:.0f}, bound {bound:.0f}'
    first = [tuple(order) for order in orders[:200]]
    assert len(set(first)) > 190  # of 40320


def test_read_from_equals_indexing(train):
    batches = TrainingBatches(train, 8, 0, BASIS)
    for step, batch in zip(range(4, 12), batches.read_from(4), strict=False):
        assert same(batch, batches[step]), step
    assert step == 11


def shares(batch_size, hosts):
    """The global rows split over hosts in order, the first ones taking one more where it does not divide."""
    edges = np.cumsum([0, *(len(part) for part in np.array_split(range(batch_size), hosts))]).tolist()
    return [range(a, b) for a, b in itertools.pairwise(edges)]


def joined(parts):
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])}


SPLITS = [(11, 4, 5), (8, 8, 1)]
MORE_SPLITS = [split for split in itertools.product((8, 16, 11), (1, 2, 4, 8), (1, 5)) if split not in SPLITS]


@pytest.mark.parametrize(
    ('batch_size', 'hosts', 'images_per_crop'),
    [*SPLITS, *(pytest.param(*split, marks=pytest.mark.repeats) for split in MORE_SPLITS)],
)
def test_training_batches_of_hosts_join_to_those_of_one(train, batch_size, hosts, images_per_crop):
    options = {'images_per_crop': images_per_crop, 'lighting_steps': 4}
    whole = TrainingBatches(train, batch_size, 0, BASIS, **options)
    parts = [TrainingBatches(train, batch_size, 0, BASIS, rows=rows, **options) for rows in shares(batch_size, hosts)]
    for step in (0, 3, 4):  # in 40 records, batch 3 of 11 lies in two epochs
        expected, found = vars(whole[step]), joined([part[step] for part in parts])
        assert len(found['images']) == batch_size
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=f'{name} of step {step}')


@pytest.mark.parametrize('threads', [2, *(pytest.param(n, marks=pytest.mark.repeats) for n in (1, 4))])
def test_training_batches_survive_change_of_hosts_and_threads(train, threads):
    """One host to step 2, four of `threads` each to step 4, two to the end: the batches of one host and one thread."""
    one = TrainingBatches(train, 11, 0, BASIS, images_per_crop=3)
    found = []
    for start, stop, hosts in [(0, 2, 1), (2, 4, 4), (4, 6, 2)]:
        readers = [
            TrainingBatches(train, 11, 0, BASIS, images_per_crop=3, rows=rows).read_from(start, threads=threads)
            for rows in shares(11, hosts)
        ]
        found += [joined(parts) for parts in itertools.islice(zip(*readers, strict=True), stop - start)]
    expected = itertools.islice(one.read_from(0, threads=1, read_ahead=1), 6)
    for step, (batch, values) in enumerate(zip(found, expected, strict=True)):
        for name in batch:
            np.testing.assert_array_equal(batch[name], getattr(values, name), err_msg=f'{name} of step {step}')
    for epoch in range(6 * 11 // 40):
        assert sorted(np.concatenate([b['records'] for b in found])[40 * epoch : 40 * epoch + 40]) == list(range(40))


def test_training_batches_allow_no_rows_and_refuse_rows_beyond_the_batch(train):
    assert TrainingBatches(train, 8, 0, BASIS, rows=range(8, 8))[0].images.shape == (0, 224, 224, 3)
    with pytest.raises(ValueError, match=r'range\(6, 9\) are not rows of a batch of 8'):
        TrainingBatches(train, 8, 0, BASIS, rows=range(6, 9))


def test_training_batches_share_crop_and_flip_in_groups(train):
    """Groups of 7 of 40 records: they cross batches of 8, and begin anew with the epoch."""
    batches = TrainingBatches(train, 8, 9, BASIS, images_per_crop=7)
    alone = TrainingBatches(train, 8, 9, BASIS)
    windows = []
    for place in range(60):
        batch, row = batches[place // 8], place % 8
        jpeg, _ = train[int(batch.records[row])]
        windows.append((*window_of(decode_jpeg(jpeg), batch.images[row]), batch.places[row, 2]))
        np.testing.assert_array_equal(batch.lighting[row], alone[place // 8].lighting[row])  # each its own
    groups = [windows[a:b] for a, b in [*((a, min(a + 7, 40)) for a in range(0, 40, 7)), (40, 47), (47, 54), (54, 60)]]
    assert all(len(set(group)) == 1 for group in groups)
    assert len({group[0] for group in groups}) == len(groups)  # 2178 windows, 9 groups


def window_of(image, view):
    """(top, left) of the one 224 x 224 window of `image` that is `view`."""
    corners = sliding_window_view(image[:, :, 0], (224, 224))
    found = [
        (int(top), int(left))
        for top, left in np.argwhere((corners[:, :, :2, :2] == view[:2, :2, 0]).all(axis=(2, 3)))
        if np.array_equal(image[top : top + 224, left : left + 224], view)
    ]
    assert len(found) == 1
    return found[0]


def test_lighting_steps_end_lighting_and_change_nothing_else(train):
    lit, dark = TrainingBatches(train, 8, 0, BASIS), TrainingBatches(train, 8, 0, BASIS, lighting_steps=2)
    for step in range(4):
        assert np.array_equal(dark[step].lighting, lit[step].lighting if step < 2 else np.zeros((8, 3)))
        assert lit[step].lighting.all()
        assert np.array_equal(dark[step].images, lit[step].images)
        assert np.array_equal(dark[step].records, lit[step].records)


def test_training_batches_hold_pixels_labels_and_lighting_of_the_sample(train):
    batch = TrainingBatches(train, 8, 9, BASIS)[6]  # the second epoch: 48 of 40
    assert (batch.images.dtype, batch.labels.dtype, batch.lighting.dtype) == (np.uint8, np.int32, np.float32)
    flips = 0
    for row, record in enumerate(batch.records):
        jpeg, label = train[int(record)]
        augmentation = sample_augmentation(seed=9, epoch=1, record=int(record))
        image = Image.open(io.BytesIO(jpeg))
        image = image.crop((augmentation.left, augmentation.top, augmentation.left + 224, augmentation.top + 224))
        assert batch.places[row].tolist() == [augmentation.top, augmentation.left, augmentation.flip]
        flips += augmentation.flip
        difference = np.asarray(image, np.int16) - batch.images[row]
        assert np.abs(difference).max() <= 3  # two JPEG decoders
        assert np.abs(difference).mean() < 0.1
        assert batch.labels[row] == label
        expected = [sum(BASIS[c, i] * augmentation.normals[i] for i in range(3)) for c in range(3)]
        np.testing.assert_allclose(batch.lighting[row], expected, rtol=1e-5, atol=1e-5)
    assert 0 < flips < 8


def test_decode_record_crop_of_damaged_jpeg_names_the_remedy():
    jpeg, out = Stub(1).jpegs[0], np.empty((256, 256, 3), np.uint8)
    with pytest.raises(InputError, match=r'not a readable JPEG .* prepare it again'):
        decode_record_crop(b'not a jpeg', out)
    with pytest.raises(InputError, match='not a readable JPEG'):
        decode_record_crop(jpeg[: len(jpeg) // 2], out)


@pytest.mark.parametrize('kind', ['JPEGs', 'raw', 'cached'])
def test_read_from_keeps_memory_flat_over_epochs(train, tiny_raw, kind):
    """Of 40 epochs, whose crops would have 241 MB."""
    source = {'JPEGs': train, 'raw': tiny_raw.records('train'), 'cached': CachedSource(train, record_size=256)}[kind]
    batches, resident = TrainingBatches(source, 8, 0, BASIS).read_from(0, threads=2), psutil.Process().memory_info
    before = [resident().rss for _ in itertools.islice(batches, 25)][-1]
    after = [resident().rss for _ in itertools.islice(batches, 200)][-1]
    assert after - before < 50e6


def test_read_from_raises_errors_of_reading_threads():
    source = Stub(4)
    source.jpegs[2] = b''
    with pytest.raises(InputError, match='prepare it again'):
        list(itertools.islice(TrainingBatches(source, 4, 0, BASIS).read_from(0), 1))


@pytest.mark.parametrize(('records', 'batch_size'), [(13, 8), (8, 8), (3, 8), (9, 1)])
def test_evaluation_batches_hold_each_record_once_in_one_shape(records, batch_size):
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


@pytest.mark.parametrize('chosen', [[7, 3, 11, 0, 12], [4]])
def test_evaluation_batches_hold_chosen_records_in_their_order_on_every_host(chosen):
    hosts = [EvaluationBatches(Stub(13), 4, rows=rows, chosen=chosen).read() for rows in (range(3), range(3, 4))]
    batches = list(zip(*hosts, strict=True))
    assert len(batches) == -(-len(chosen) // 4)
    images, labels, valid = (
        np.concatenate([getattr(part, name) for batch in batches for part in batch])
        for name in ('images', 'labels', 'valid')
    )
    assert images[valid].mean(axis=(1, 2, 3)).tolist() == [10 * index for index in chosen]
    assert labels[valid].tolist() == [index % 3 for index in chosen]
    assert valid.tolist() == [True] * len(chosen) + [False] * (4 * len(batches) - len(chosen))


class Labels:
    """Records of nothing but labels, in the order of their classes; notes which are read."""

    def __init__(self, counts):
        self.labels, self.read = [label for label, count in enumerate(counts) for _ in range(count)], set()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.read.add(index)
        return b'', self.labels[index]


@pytest.mark.parametrize(('counts', 'count'), [((500, 300, 150, 47, 3), 100), ((7, 6), 13), ((40, 40), 5), ((1,), 1)])
def test_choose_records_gives_each_class_its_share(counts, count):
    source = Labels(counts)
    chosen = choose_records(source, count)
    assert len(set(chosen)) == count and chosen == sorted(chosen) == choose_records(source, count)
    found = np.bincount([source.labels[index] for index in chosen], minlength=len(counts))
    assert (np.abs(found - count * np.array(counts) / sum(counts)) < 1).all()
    assert len(chosen) in (1, len(source)) or np.diff(chosen).min() < np.diff(chosen).max()  # and not every n-th


def test_choose_records_reads_ten_times_as_many_labels_of_a_large_split():
    source = Labels((3000, 2000))
    chosen = choose_records(source, 20)
    assert len(source.read) == 200 and set(chosen) <= source.read
    share = sum(source.labels[index] for index in chosen) / 20
    assert abs(share - 0.4) < 0.15  # four standard deviations of the share among 200


@pytest.mark.slow
def test_read_from_is_the_same_in_another_process_without_tensorflow(tiny_dir, train, tmp_path):
    (tmp_path / 'tensorflow').mkdir()
    (tmp_path / 'tensorflow' / '__init__.py').write_text('raise SystemExit("TensorFlow was imported")')
    program = f"""
import hashlib, sys, numpy as np
sys.path.insert(0, {str(tmp_path)!r})
from alexnet_jax.data.pipeline import TrainingBatches
from alexnet_jax.data.dataset import open_dataset
records = open_dataset('tiny', data_dir={str(tiny_dir)!r}).records('train')
batches = TrainingBatches(records, 8, 0, np.eye(3, dtype='f4'))
batch = next(batches.read_from(5))
print(hashlib.sha256(batch.images.tobytes() + batch.lighting.tobytes()).hexdigest())
"""
    run = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, '')
    here = TrainingBatches(train, 8, 0, np.eye(3, dtype='f4'))[5]
    expected = hashlib.sha256(here.images.tobytes() + here.lighting.tobytes()).hexdigest()
    assert run.stdout.strip() == expected


@pytest.mark.parametrize('local', [True, False])
def test_batches_of_raw_records_are_those_of_jpegs(train, tmp_path, monkeypatch, local):
    """Three shards that NumPy wrote of what the JPEGs decode to; by threads, of one host and of two."""
    monkeypatch.setattr(raw, 'is_local', lambda path: local)
    pixels, labels = [decode_jpeg(jpeg) for jpeg, _ in train], np.array([label for _, label in train], np.int32)
    shards = [(tmp_path / f'{start}.npy', len(pixels[start : start + 15])) for start in (0, 15, 30)]
    for (path, count), start in zip(shards, (0, 15, 30), strict=True):
        np.save(path, np.stack(pixels[start : start + count]))
    source = raw.RawSource('tiny', 'train', shards=shards, labels=labels, record_size=256)
    rows = [range(5), range(5, 11)]
    parts = [TrainingBatches(source, 11, 0, BASIS, rows=part, images_per_crop=3).read_from(0) for part in rows]
    expected = TrainingBatches(train, 11, 0, BASIS, images_per_crop=3)
    for step, found in zip(range(9), zip(*parts, strict=True), strict=False):
        for name, values in joined(found).items():
            np.testing.assert_array_equal(values, getattr(expected[step], name), err_msg=f'{name} of step {step}')
    for found, jpegs in zip(EvaluationBatches(source, 9).read(), EvaluationBatches(train, 9).read(), strict=True):
        assert same(found, jpegs)
