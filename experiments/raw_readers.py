"""Containers of uncompressed records, each written once and read by index: for `experiments.raw_containers`."""

from __future__ import annotations

import importlib
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorstore
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

SIDE, CROP, SHARD, IMAGENET = 256, 224, 1024, 1_281_167
SIZE = SIDE * SIDE * 3
Read = Callable[[np.ndarray, np.ndarray, np.ndarray], None]  # records (b,), places (b, 2), images (b, 224, 224, 3)
_scratch = threading.local()


def read_views(view: Callable[[int], np.ndarray]) -> Read:
    """Copies the crops out of arrays (256, 256, 3), which may be a file's pages."""

    def read(records: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
        for row, record, (top, left) in zip(out, records.tolist(), places.tolist(), strict=True):
            row[...] = view(record)[top : top + CROP, left : left + CROP]

    return read


def write_npy(folder: pathlib.Path, blocks: list[np.ndarray]) -> list[pathlib.Path]:
    """Writes .npy shards once, of each reader its own: none finds another's pages in the processor's caches."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f'{i:05d}.npy' for i in range(len(blocks))]
    for path, block in zip(paths, blocks, strict=True):
        if not path.exists():
            np.save(path, block)
    return paths


def npy_mapped(folder: pathlib.Path, blocks: list[np.ndarray]) -> Read:
    """The crop copied from the pages."""
    shards = [np.asarray(np.load(path, mmap_mode='r')) for path in write_npy(folder, blocks)]
    return read_views(lambda i: shards[i // SHARD][i % SHARD])


def npy_asked(folder: pathlib.Path, blocks: list[np.ndarray]) -> Read:
    """The same, where the system is asked for all records of a batch first: as `RawSource` on this machine's disk."""
    read_mapped, files = npy_mapped(folder, blocks), [path.open('rb') for path in write_npy(folder, blocks)]

    def read(records: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
        for record in records.tolist():
            file, offset = files[record // SHARD].fileno(), 128 + record % SHARD * SIZE
            os.posix_fadvise(file, offset, SIZE, os.POSIX_FADV_WILLNEED)
        read_mapped(records, places, out)

    return read


def npy_pread(folder: pathlib.Path, blocks: list[np.ndarray]) -> Read:
    """The crop's rows read into a buffer of the thread's, and the crop copied from there: as `RawSource` elsewhere."""
    files = [path.open('rb') for path in write_npy(folder, blocks)]

    def read(records: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
        if not hasattr(_scratch, 'pixels'):
            _scratch.pixels = np.empty((SIDE, SIDE, 3), np.uint8)
        rows = _scratch.pixels[:CROP]
        for row, record, (top, left) in zip(out, records.tolist(), places.tolist(), strict=True):
            shard, index = divmod(record, SHARD)
            if os.preadv(files[shard].fileno(), [rows], 128 + index * SIZE + top * SIDE * 3) != rows.nbytes:
                raise EOFError
            row[...] = rows[:, left : left + CROP]

    return read


def lmdb_buffers(folder: pathlib.Path, blocks: list[np.ndarray]) -> Read:
    """LMDB, a record a key of four bytes, copied from the pages; a transaction a batch."""
    lmdb: Any = importlib.import_module('lmdb')
    write_lmdb(lmdb, folder, (image for block in blocks for image in block))
    env = lmdb.open(os.fspath(folder), readonly=True, lock=False, readahead=False)

    def read(records: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
        with env.begin(buffers=True) as txn:
            for row, record, (top, left) in zip(out, records.tolist(), places.tolist(), strict=True):
                image = np.frombuffer(txn.get(record.to_bytes(4)), np.uint8).reshape(SIDE, SIDE, 3)
                row[...] = image[top : top + CROP, left : left + CROP]

    return read


def write_lmdb(lmdb: Any, folder: pathlib.Path, records: Iterator[Any]) -> None:
    """Writes records in order, once."""
    if folder.exists():
        return
    env = lmdb.open(os.fspath(folder), map_size=2**40, sync=False)
    txn = env.begin(write=True)
    for i, record in enumerate(records):
        txn.put(i.to_bytes(4), bytes(record), append=True)
        if i % 512 == 511:
            txn.commit()
            txn = env.begin(write=True)
    txn.commit()
    env.close()


def arrow_mapped(folder: pathlib.Path, blocks: list[np.ndarray]) -> Read:
    """Arrow's IPC file, mapped: a column of fixed size, whose buffer NumPy sees."""
    arrow: Any = importlib.import_module('pyarrow')
    if not folder.exists():
        schema = arrow.schema([('image', arrow.binary(SIZE))])
        with arrow.OSFile(os.fspath(folder), 'wb') as file, arrow.ipc.new_file(file, schema) as writer:
            for block in blocks:
                array = arrow.FixedSizeBinaryArray.from_buffers(
                    arrow.binary(SIZE), len(block), [None, arrow.py_buffer(block)]
                )
                writer.write_batch(arrow.record_batch([array], schema=schema))
    reader = arrow.ipc.open_file(arrow.memory_map(os.fspath(folder)))
    batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]

    def view(i: int) -> np.ndarray:
        scalar = batches[i // SHARD].column(0)[i % SHARD]
        return np.frombuffer(scalar.as_buffer(), np.uint8).reshape(SIDE, SIDE, 3)

    return read_views(view)


def array_record(folder: pathlib.Path, blocks: list[np.ndarray]) -> Read:
    """ArrayRecord in groups of one, uncompressed: bytes of the whole record."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f'{i:05d}' for i in range(len(blocks))]
    for path, block in zip(paths, blocks, strict=True):
        if not path.exists():
            write_array_record(path, block)
    source = ArrayRecordDataSource([os.fspath(path) for path in paths])
    return read_views(lambda i: np.frombuffer(source[i], np.uint8).reshape(SIDE, SIDE, 3))


def write_array_record(path: pathlib.Path, records: Any) -> None:
    """Writes a shard."""
    writer = ArrayRecordWriter(os.fspath(path), 'group_size:1,uncompressed')
    for record in records:
        writer.write(bytes(record))
    writer.close()


def tensor_store(folder: pathlib.Path, blocks: list[np.ndarray]) -> Read:
    """TensorStore's zarr 3 in shards, a record a chunk, the crops of a batch asked for at once."""
    shape, new = (sum(map(len, blocks)), SIDE, SIDE, 3), not folder.exists()
    images = open_zarr(folder, shape=shape, shard=SHARD)
    if new:
        for i, block in enumerate(blocks):
            images[i * SHARD : i * SHARD + len(block)].write(block).result()

    def read(records: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
        futures = [
            images[record, top : top + CROP, left : left + CROP].read()
            for record, (top, left) in zip(records.tolist(), places.tolist(), strict=True)
        ]
        for row, future in zip(out, futures, strict=True):
            row[...] = future.result()

    return read


def open_zarr(folder: pathlib.Path, *, shape: tuple[int, ...], shard: int) -> Any:
    """Opens or makes an array of such records."""
    inner = {'chunk_shape': [1, *shape[1:]], 'codecs': [{'name': 'bytes'}]}
    metadata = {
        'shape': shape,
        'data_type': 'uint8',
        'chunk_grid': {'name': 'regular', 'configuration': {'chunk_shape': [shard, *shape[1:]]}},
        'codecs': [{'name': 'sharding_indexed', 'configuration': inner}],
    }
    store = {'driver': 'file', 'path': os.fspath(folder)}
    context = {'data_copy_concurrency': {'limit': 1}, 'file_io_concurrency': {'limit': 1}}
    spec = {'driver': 'zarr3', 'kvstore': store, 'metadata': metadata, 'context': context}
    return tensorstore.open(spec, open=True, create=True).result()


CONTAINERS = {
    '.npy, mapped': npy_mapped,
    '.npy, mapped, asked for': npy_asked,
    '.npy, preadv': npy_pread,
    'LMDB': lmdb_buffers,
    'Arrow IPC, mapped': arrow_mapped,
    'ArrayRecord, groups of 1': array_record,
    'TensorStore, zarr 3': tensor_store,
}


def timed(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def holes(folder: pathlib.Path, *, records: int = IMAGENET, shard: int = 8192) -> list[pathlib.Path]:
    """Makes .npy shards of holes."""
    folder = folder.with_name('opening_npy')
    folder.mkdir(exist_ok=True)
    paths = [folder / f'{i:05d}.npy' for i in range(-(-records // shard))]
    for i, path in enumerate(paths):
        if not path.exists():
            with path.open('wb') as file:
                shape = (min(shard, records - i * shard), SIDE, SIDE, 3)
                header = {'descr': '|u1', 'fortran_order': False, 'shape': shape}
                np.lib.format.write_array_header_1_0(file, header)
                file.truncate(file.tell() + np.prod(shape).item())
    return paths


def open_mapped(folder: pathlib.Path) -> float:
    """157 shards."""
    paths = holes(folder)
    return timed(lambda: max(np.load(path, mmap_mode='r')[0, 0, 0, 0] for path in paths))


def open_pread(folder: pathlib.Path) -> float:
    """157 shards, each header read."""
    paths = holes(folder)

    def call() -> None:
        files = [path.open('rb', buffering=0) for path in paths]
        assert all(os.pread(file.fileno(), 128, 0).startswith(b'\x93NUMPY') for file in files)
        os.preadv(files[0].fileno(), [bytearray(SIZE)], 128)

    return timed(call)


def open_lmdb(folder: pathlib.Path) -> float:
    """One file."""
    lmdb: Any = importlib.import_module('lmdb')
    folder = folder.with_name('opening_lmdb')
    write_lmdb(lmdb, folder, (bytes(16) for _ in range(IMAGENET)))
    env: Any = None

    def call() -> None:
        nonlocal env
        env = lmdb.open(os.fspath(folder), readonly=True, lock=False)
        with env.begin(buffers=True) as txn:
            txn.get((7).to_bytes(4))

    seconds = timed(call)
    env.close()
    return seconds


def open_array_record(folder: pathlib.Path) -> float:
    """157 shards."""
    folder = folder.with_name('opening_array_record')
    folder.mkdir(exist_ok=True)
    paths = [folder / f'{i:05d}' for i in range(-(-IMAGENET // 8192))]
    for i, path in enumerate(paths):
        if not path.exists():
            write_array_record(path, [bytes(16)] * min(8192, IMAGENET - 8192 * i))
    return timed(lambda: ArrayRecordDataSource([os.fspath(path) for path in paths])[7])


def open_arrow(folder: pathlib.Path) -> float:
    """One file of 157 batches."""
    arrow: Any = importlib.import_module('pyarrow')
    path = folder.with_name('opening_arrow')
    if not path.exists():
        schema = arrow.schema([('image', arrow.binary(16))])
        with arrow.OSFile(os.fspath(path), 'wb') as file, arrow.ipc.new_file(file, schema) as writer:
            for i in range(0, IMAGENET, 8192):
                values = arrow.array([bytes(16)] * min(8192, IMAGENET - i), arrow.binary(16))
                writer.write_batch(arrow.record_batch([values], schema=schema))

    def call() -> None:
        reader = arrow.ipc.open_file(arrow.memory_map(os.fspath(path)))
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        batches[0].column(0)[7].as_buffer()

    return timed(call)


def open_tensor_store(folder: pathlib.Path) -> float:
    """Shards of which one was written."""
    folder = folder.with_name('opening_zarr')
    shape = (IMAGENET, 16)
    if not folder.exists():
        open_zarr(folder, shape=shape, shard=8192)[:8192].write(np.ones((8192, 16), np.uint8)).result()
    return timed(lambda: open_zarr(folder, shape=shape, shard=8192)[7].read().result())


OPENING = {
    '.npy, mapped': open_mapped,
    '.npy, mapped, asked for': open_mapped,
    '.npy, preadv': open_pread,
    'LMDB': open_lmdb,
    'Arrow IPC, mapped': open_arrow,
    'ArrayRecord, groups of 1': open_array_record,
    'TensorStore, zarr 3': open_tensor_store,
}
