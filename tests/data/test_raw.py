"""Raw records against arrays that `numpy.save` wrote, read by index, by threads, and out of damaged files."""

import concurrent.futures
import errno
import io
import mmap
import os
import pathlib
import pickle
import types

import numpy as np
import psutil
import pytest

from alexnet_jax.data import raw
from alexnet_jax.data.raw import HEADER, RawSource, make_header, read_labels
from alexnet_jax.errors import InputError

SIDE, COUNTS = 16, (5, 5, 2)
PIXELS = np.random.default_rng(0).integers(0, 256, (sum(COUNTS), SIDE, SIDE, 3), np.uint8)
LABELS = np.arange(len(PIXELS), dtype=np.int32) % 3


@pytest.fixture
def shards(tmp_path):
    """Three files by `numpy.save`, each with the number of its records."""
    paths = [tmp_path / f'{i}.npy' for i in range(len(COUNTS))]
    for path, pixels in zip(paths, np.split(PIXELS, np.cumsum(COUNTS)[:-1]), strict=True):
        np.save(path, pixels)
    return list(zip(paths, COUNTS, strict=True))


def open_source(shards, *, labels=LABELS):
    return RawSource('pets', 'train', shards=shards, labels=labels, record_size=SIDE, remedy='verify it')


def crops_of(source):
    """What four crops of every record differ in from NumPy's slices: nothing."""
    for index, whole in enumerate(PIXELS):
        for top, left, side in ((0, 0, SIDE), (3, 1, 12), (0, 4, 12), (4, 0, 12)):
            out = np.zeros((2, side, side, 3), np.uint8)
            source.read_crop(index, out[1], top=top, left=left)
            assert np.array_equal(out[1], whole[top : top + side, left : left + side])
            assert not out[0].any()


@pytest.mark.parametrize('shape', [(0, 32), (8192, 256), (123_456_789, 1024)])
def test_make_header_is_that_of_numpy(shape):
    records, side = shape
    fields = {'descr': '|u1', 'fortran_order': False, 'shape': (records, side, side, 3)}
    np.lib.format.write_array_header_1_0(expected := io.BytesIO(), fields)
    assert make_header(records, record_size=side) == expected.getvalue()
    assert len(expected.getvalue()) == HEADER


@pytest.fixture
def remote(monkeypatch):
    """As if the shards were on a network's disk, of which nothing is mapped."""
    monkeypatch.setattr(raw, 'is_local', lambda path: False)


@pytest.mark.parametrize('local', [True, False])
def test_raw_source_reads_crops_labels_and_whole_records(shards, local, monkeypatch):
    monkeypatch.setattr(raw, 'is_local', lambda path: local)
    source = open_source(shards)
    crops_of(source)
    assert (len(source), source.labels.tolist(), source.record_size) == (12, LABELS.tolist(), SIDE)
    assert [label for _, label in source] == LABELS.tolist()  # and iteration ends
    assert np.array_equal(np.stack([pixels for pixels, _ in source]), PIXELS)


def test_raw_source_reads_by_threads_and_in_pickled_copies(shards):
    before = psutil.Process().num_fds()
    source = open_source(shards)
    data = pickle.dumps(source)
    assert psutil.Process().num_fds() >= before + len(COUNTS)
    del source
    assert psutil.Process().num_fds() == before  # it closed its files
    copy = pickle.loads(data)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(crops_of, [copy] * 8))


@pytest.mark.parametrize('index', [-1, 12])
def test_raw_source_raises_index_error_beyond_the_split(shards, index):
    with pytest.raises(IndexError, match='pets train has 12 records'):
        open_source(shards).read_crop(index, np.empty((SIDE, SIDE, 3), np.uint8))
    with pytest.raises(IndexError, match='pets train has 12 records'):
        open_source(shards)[index]


@pytest.mark.parametrize('place', [(5, 0), (0, 5), (-1, 0)])
def test_raw_source_refuses_crop_beyond_the_record(shards, place):
    with pytest.raises(ValueError, match='have no crop of 12'):
        open_source(shards).read_crop(0, np.empty((12, 12, 3), np.uint8), top=place[0], left=place[1])


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


def grow(path):
    path.write_bytes(path.read_bytes() + b'\0')


def transpose(path):
    np.save(path, np.asfortranarray(np.load(path)))


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (cut, r'1\.npy has 3,967 bytes, not 3,968: 5 records of 16x16; verify it'),
        (grow, r'1\.npy has 3,969 bytes, not 3,968'),
        (transpose, r'1\.npy does not begin as it should: 5 records of 16x16; verify it'),
        (os.remove, r'1\.npy cannot be opened: No such file or directory; verify it'),
    ],
)
def test_raw_source_refuses_damaged_shard_at_opening(shards, damage, message):
    damage(shards[1][0])
    before = psutil.Process().num_fds()
    with pytest.raises(InputError, match=message):
        open_source(shards)
    assert psutil.Process().num_fds() == before


@pytest.mark.parametrize(('module', 'call', 'done'), [(os, 'open', 'opened'), (mmap, 'mmap', 'mapped')])
def test_raw_source_does_not_blame_shard_for_the_limit_of_open_files(shards, monkeypatch, module, call, done):
    def fail(*_, **__):
        raise OSError(errno.EMFILE, 'Too many open files')

    before = psutil.Process().num_fds()
    monkeypatch.setattr(raw, 'is_local', lambda path: True)
    told = pytest.raises(InputError, match=rf'/0\.npy cannot be {done}: Too many open files; .*ulimit -n 4096$')
    with told, monkeypatch.context() as patch:
        patch.setattr(module, call, fail)
        open_source(shards)
    del told  # whose traceback holds the source
    assert psutil.Process().num_fds() == before


def test_raw_source_names_shard_that_was_cut_before_it_is_mapped(shards):
    source = open_source(shards)
    cut(shards[1][0])
    with pytest.raises(InputError, match=r'split train, record 9: .*/1\.npy has become shorter; verify it'):
        source.prefetch([0, 9, 11])
    source.prefetch([0, 11])


def test_is_local_knows_this_machine_s_disks(monkeypatch, tmp_path):
    mounts = [('/', 'ext4'), (str(tmp_path), 'nfs4'), (str(tmp_path / 'fast'), 'xfs'), (str(tmp_path / 'new'), 'quux')]
    found = [types.SimpleNamespace(mountpoint=place, fstype=name) for place, name in mounts]
    monkeypatch.setattr(psutil, 'disk_partitions', lambda all: found)
    (tmp_path / 'link').symlink_to(tmp_path / 'fast')
    local = {'fast/data', 'link/data'}
    for name in (*local, 'data', 'new/data', 'fastdata'):
        assert raw.is_local(tmp_path / name) == (name in local)
    assert raw.is_local(pathlib.Path('/data'))


def test_raw_source_names_shard_that_is_cut_while_it_is_read(shards, remote, monkeypatch):
    source = open_source(shards)
    monkeypatch.setattr(source, 'prefetch', lambda records: None)  # cut after it
    cut(shards[1][0])
    with pytest.raises(InputError, match=r'dataset pets, split train, record 9: .*/1\.npy ends within it; verify it'):
        source[9]
    source[8]


def test_raw_source_names_what_the_system_says(shards, remote, monkeypatch):
    source = open_source(shards)
    for call, error in (('preadv', (5, 'Input/output error')), ('fstat', (116, 'Stale file handle'))):
        told = pytest.raises(InputError, match=rf'record 11: .*/2\.npy cannot be read: {error[1]}; verify it')
        with told, monkeypatch.context() as patch:
            patch.setattr(os, call, lambda *_, error=error: (_ for _ in ()).throw(OSError(*error)))
            source[11]


def test_raw_source_goes_on_after_short_reads(shards, remote, monkeypatch):
    real = os.preadv
    monkeypatch.setattr(os, 'preadv', lambda file, buffers, offset: real(file, [buffers[0][:100]], offset))
    crops_of(open_source(shards))


def test_raw_source_refuses_other_number_of_labels(shards):
    with pytest.raises(InputError, match='pets has 12 records and 11 labels in train'):
        open_source(shards, labels=LABELS[1:])


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        (np.array([0, 3, 2], np.int32), r'labels\.npy: label 3 is outside the 3 classes'),
        (np.array([0, -1, 2], np.int32), 'label -1 is outside'),
        (np.array([0, 1], np.int32), 'does not hold 3 labels'),
        (np.array([0, 1, 2]), 'does not hold 3 labels'),
        (np.array([None] * 3), 'does not hold 3 labels'),
    ],
)
def test_read_labels_refuses_what_are_no_labels(tmp_path, labels, message):
    np.save(tmp_path / 'labels.npy', labels)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / 'labels.npy', records=3, class_count=3, remedy='')
