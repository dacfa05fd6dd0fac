"""The input pipeline in tf.data: the same crops of the same images, by the means that TensorFlow has for it."""

import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from alexnet_jax.benchmark.photos import PhotoFolder
from alexnet_jax.benchmark.protocol import Setting
from alexnet_jax.benchmark.raw_records import write_raw_shard
from alexnet_jax.benchmark.sampling import Program, make_iterator_program
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.pipeline import READ_AHEAD
from alexnet_jax.data.raw import HEADER

FORMS = {'default': '', 'accurate': 'INTEGER_ACCURATE'}  # dct_method of its decoder; '' is its INTEGER_FAST
CROP, RECORD = 224, 256
SHUFFLED = 1024  # encoded records that the shuffle holds
FEATURES = {'image': tf.io.FixedLenFeature([], tf.string), 'label': tf.io.FixedLenFeature([], tf.int64)}


def make_tf_programs(form: str, setting: Setting) -> tuple[dict[str, Program], dict[str, str]]:
    """Makes '[photo_]pipeline' in `form`, one of FORMS, and in the first 'raw_pipeline'; and {library: version}."""
    path = pathlib.Path(setting.scratch) / f'records_{form}'
    write_records(open_dataset(setting.dataset, data_dir=setting.data_dir).records('train'), path)
    options: dict[str, Any] = {'batch': setting.batch, 'dct_method': FORMS[form], 'threads': os.cpu_count()}
    iterators = {
        'pipeline': iter_record_batches(path, **options),
        'photo_pipeline': iter_photo_batches(PhotoFolder(setting.photos).paths, **options),
    }
    if form == 'default':  # raw records know no forms
        shard = path.with_suffix('.npy')
        labels = write_raw_shard(open_dataset(setting.dataset, data_dir=setting.data_dir).records('train'), shard)
        iterators['raw_pipeline'] = iter_raw_batches(shard, labels, batch=setting.batch, threads=os.cpu_count() or 1)
    programs = {name: make_iterator_program(ahead, skip=2 * READ_AHEAD) for name, ahead in iterators.items()}
    return programs, {'tensorflow': tf.__version__}


def crop_record(jpeg: Any, top: Any, left: Any, *, dct_method: str = '') -> Any:
    """Decodes a record's crop, uint8 (224, 224, 3); what lies outside is not transformed."""
    return tf.io.decode_and_crop_jpeg(jpeg, tf.stack([top, left, CROP, CROP]), channels=3, dct_method=dct_method)


def crop_photo(jpeg: Any, top: Any, left: Any, *, dct_method: str = '') -> Any:
    """Decodes a photograph's central square at 256 x 256, bicubic with antialiasing, and crops it; uint8.

    Only the square is decoded and resized, which gives the same pixels as resizing all of it and cutting then.
    """
    shape = tf.io.extract_jpeg_shape(jpeg)
    side = tf.minimum(shape[0], shape[1])
    window = tf.stack([(shape[0] - side) // 2, (shape[1] - side) // 2, side, side])
    square = tf.io.decode_and_crop_jpeg(jpeg, window, channels=3, dct_method=dct_method)
    square = tf.image.resize(square, (RECORD, RECORD), method='bicubic', antialias=True)
    crop = tf.slice(square, tf.stack([top, left, 0]), (CROP, CROP, 3))
    return tf.saturate_cast(tf.round(crop), tf.uint8)


def write_records(records: Any, path: pathlib.Path) -> None:
    """Writes an iterable of (JPEG bytes, label) as a TFRecord file: tf.data does not read ArrayRecord."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for jpeg, label in records:
            image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[jpeg]))
            number = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
            features = tf.train.Features(feature={'image': image, 'label': number})
            writer.write(tf.train.Example(features=features).SerializeToString())


def iter_record_batches(path: pathlib.Path, *, batch: int, dct_method: str, threads: int) -> Iterator[Any]:
    """Yields batches (uint8 images, int64 labels) of the records in the TFRecord file at `path` without end."""

    def crop(example: Any, *offsets: Any) -> Any:
        parsed = tf.io.parse_single_example(example, FEATURES)
        return crop_record(parsed['image'], *offsets, dct_method=dct_method), parsed['label']

    return _iter_batches(tf.data.TFRecordDataset(str(path)), crop, batch=batch, threads=threads)


def iter_photo_batches(paths: list[pathlib.Path], *, batch: int, dct_method: str, threads: int) -> Iterator[Any]:
    """Yields batches (uint8 images, int64 labels) of the photographs in the files `paths` without end."""

    def crop(path: Any, *offsets: Any) -> Any:
        return crop_photo(tf.io.read_file(path), *offsets, dct_method=dct_method), tf.constant(0, tf.int64)

    return _iter_batches(tf.data.Dataset.from_tensor_slices(list(map(str, paths))), crop, batch=batch, threads=threads)


def iter_raw_batches(path: pathlib.Path, labels: Any, *, batch: int, threads: int) -> Iterator[Any]:
    """Yields batches (uint8 images, int64 labels) of the shard of raw records at `path` without end."""

    def crop(record: Any, label: Any, *offsets: Any) -> Any:
        pixels = tf.reshape(tf.io.decode_raw(record, tf.uint8), (RECORD, RECORD, 3))
        return tf.slice(pixels, tf.stack([*offsets, 0]), (CROP, CROP, 3)), label

    records = tf.data.FixedLengthRecordDataset(str(path), RECORD * RECORD * 3, header_bytes=HEADER)
    numbered = tf.data.Dataset.zip((records, tf.data.Dataset.from_tensor_slices(labels.astype('int64'))))
    return _iter_batches(numbered, lambda pair, *offsets: crop(*pair, *offsets), batch=batch, threads=threads)


def _iter_batches(dataset: Any, crop: Callable[..., Any], *, batch: int, threads: int) -> Iterator[Any]:
    def augment(*element: Any) -> Any:
        offsets = tf.random.uniform([2], 0, RECORD - CROP + 1, tf.int32)
        image, label = crop(element[0] if len(element) == 1 else element, offsets[0], offsets[1])
        return tf.image.random_flip_left_right(image), label

    # As many calls as threads: AUTOTUNE settles on one now and then, which halves the speed for the rest of the run.
    dataset = dataset.repeat().shuffle(SHUFFLED).map(augment, num_parallel_calls=threads, deterministic=False)
    # As many batches ahead as ours. Left to AUTOTUNE it fills gigabytes, and goes on while others have their turn.
    dataset = dataset.batch(batch, drop_remainder=True).prefetch(READ_AHEAD)
    options = tf.data.Options()
    options.deterministic = False
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    return iter(dataset.with_options(options))
