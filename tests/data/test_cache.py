"""Records in memory give the batches of records that are decoded each time, and are decoded once."""

import dataclasses
import itertools
import pickle
import types

import numpy as np
import psutil
import pytest
from simplejpeg import decode_jpeg

from alexnet_jax.data import cache
from alexnet_jax.data.cache import CachedSource, check_memory, read_free_memory
from alexnet_jax.data.pipeline import EvaluationBatches, TrainingBatches, read_whole_image
from alexnet_jax.errors import InputError

BASIS = np.eye(3, dtype=np.float32)


class Counting:
    """Records of `source`, which counts how often each is read."""

    photos, preprocessing = False, 'paper'

    def __init__(self, source):
        self.source, self.reads = source, np.zeros(len(source), int)

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        self.reads[index] += 1
        return self.source[index]


def test_cached_source_gives_the_same_batches_and_decodes_once(tiny):
    counting = Counting(tiny.records('train'))
    cached = CachedSource(counting, record_size=256)
    pairs = [(TrainingBatches(source, 8, 3, BASIS)) for source in (counting.source, cached)]
    for step in (0, 1, 2, 3, 4, 7, 11):  # 40 records: three epochs
        for name, expected in vars(pairs[0][step]).items():
            np.testing.assert_array_equal(getattr(pairs[1][step], name), expected, err_msg=f'{name} of {step}')
    assert counting.reads.tolist() == [1] * 40
    for image, (jpeg, label) in zip(range(40), counting.source, strict=True):
        np.testing.assert_array_equal(read_whole_image(cached, image, record_size=256), decode_jpeg(jpeg))
        assert cached[image][1] == label
    assert counting.reads.tolist() == [1] * 40


def test_cached_source_is_the_same_by_any_number_of_threads_and_pickled(tiny):
    source = tiny.records('train')
    again = pickle.loads(pickle.dumps(CachedSource(source, record_size=256)))
    for threads, cached in ((4, CachedSource(source, record_size=256)), (1, again)):
        batches = TrainingBatches(cached, 16, 0, BASIS).read_from(0, threads=threads)
        for step, batch in enumerate(itertools.islice(batches, 6)):
            expected = TrainingBatches(source, 16, 0, BASIS)[step]
            np.testing.assert_array_equal(batch.images, expected.images)
            np.testing.assert_array_equal(batch.labels, expected.labels)


def test_cached_source_names_the_record_that_is_no_jpeg(tiny):
    records = [tiny.records('train')[0], (b'\xff\xd8no JPEG', 1)]
    source = CachedSource(Counting(records), record_size=256)
    assert source[0][1] == records[0][1]
    for _ in range(2):  # and the next time too
        with pytest.raises(InputError, match='record 1 is no image that can be decoded: a record is not a readable'):
            source[1]


def test_dataset_keep_in_memory_shares_what_is_decoded(tiny):
    kept = tiny.keep_in_memory()
    records = kept.records('validation')
    assert kept.records('validation') is records and kept.records('train') is not records
    assert not isinstance(tiny.records('validation'), CachedSource)
    found, expected = (list(EvaluationBatches(r, 6).read()) for r in (records, tiny.records('validation')))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)


def test_dataset_keep_in_memory_keeps_and_counts_what_training_reads(tiny, monkeypatch):
    """Here beside a test split, of which nothing is kept, in as much memory as the two others need."""
    monkeypatch.setattr(cache, 'read_free_memory', lambda: 53 * 256 * 256 * 3)
    dataset = dataclasses.replace(tiny, splits={**tiny.splits, 'test': tiny.splits['validation']})
    kept = dataset.keep_in_memory()
    assert [isinstance(kept.records(split), CachedSource) for split in ('train', 'validation', 'test')] == [1, 1, 0]
    monkeypatch.setattr(cache, 'read_free_memory', lambda: 2 * 53 * 256 * 256 * 3 - 1)
    with pytest.raises(
        InputError, match=r'keep 53 records .* in 0\.0 GB, for each of 2 processes on this machine, and'
    ):
        dataset.keep_in_memory(processes=2)


@pytest.mark.parametrize(
    ('folder', 'own'),
    [
        ('', '0::/\n'),  # version 2: a container
        ('', '0::/../../docker/1f\n'),  # one that sees its name outside
        ('job/step', '0::/job/step/task\n'),  # a batch job, whose limit is above this process's group
        ('memory/job', '9:name=systemd:/\n4:memory:/job\n3:cpuset:/else\n0::/\n'),  # version 1
    ],
)
def test_read_free_memory_keeps_to_the_group_s_limit(monkeypatch, tmp_path, folder, own):
    monkeypatch.setattr(psutil, 'virtual_memory', lambda: types.SimpleNamespace(available=20_000_000_000))
    monkeypatch.setattr(cache, '_OWN_GROUPS', tmp_path / 'own')
    monkeypatch.setattr(cache, '_CGROUPS', tmp_path)
    (tmp_path / 'own').write_text(own)
    limit_file, used_file, prefix = ('memory.max', 'memory.current', '')
    if 'memory:' in own:
        limit_file, used_file, prefix = ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_')
    group = tmp_path / folder
    group.mkdir(parents=True, exist_ok=True)
    (group / 'memory.stat').write_text(f'anon 2000000000\n{prefix}inactive_file 500000000\nactive_file 7\n')
    (group / used_file).write_text('5000000000\n')
    none = 'max' if limit_file == 'memory.max' else '9223372036854771712'
    for limit, free in ((none, 20_000_000_000), ('6000000000', 1_500_000_000), ('40000000000', 20_000_000_000)):
        (group / limit_file).write_text(f'{limit}\n')
        assert read_free_memory() == free


def test_check_memory_refuses_with_the_numbers(monkeypatch, tmp_path):
    monkeypatch.setattr(psutil, 'virtual_memory', lambda: types.SimpleNamespace(available=20_000_000_000))
    monkeypatch.setattr(cache, '_OWN_GROUPS', tmp_path / 'own')
    monkeypatch.setattr(cache, '_CGROUPS', tmp_path)
    assert read_free_memory() == 20_000_000_000  # another system
    check_memory(100_000, record_size=256)
    with pytest.raises(InputError) as refused:
        check_memory(1_331_167, record_size=256)  # ImageNet, training and validation
    assert str(refused.value).startswith(
        'config.cache=memory would keep 1,331,167 records of 256x256 in 261.7 GB, and 20.0 GB of memory are free: '
    )
    check_memory(100_000, record_size=256, processes=1)
    with pytest.raises(InputError, match=r'in 19\.7 GB, for each of 2 processes on this machine, and 20\.0 GB of mem'):
        check_memory(100_000, record_size=256, processes=2)
