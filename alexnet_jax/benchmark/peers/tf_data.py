"""The input pipeline in tf.data: the same crops of the same images, by the means that TensorFlow has for it."""

import pathlib
import tempfile

import tensorflow as tf

from alexnet_jax.data.pipeline import READ_AHEAD

FORMS = {'default': '', 'accurate': 'INTEGER_ACCURATE'}  # dct_method of its decoder; '' is its INTEGER_FAST
CROP, RECORD = 224, 256
SHUFFLED = 1024  # encoded records that the shuffle holds
FEATURES = {'image': tf.io.FixedLenFeature([], tf.string), 'label': tf.io.FixedLenFeature([], tf.int64)}


def record_crop(jpeg, top, left, *, dct_method=''):
    """A record's crop, uint8 (224, 224, 3); what lies outside is not transformed."""
    return tf.io.decode_and_crop_jpeg(jpeg, tf.stack([top, left, CROP, CROP]), channels=3, dct_method=dct_method)


def photo_crop(jpeg, top, left, *, dct_method=''):
    """A photograph's central square at 256 x 256, bicubic with antialiasing, of which a crop; uint8.

    Only the square is decoded and resized, which gives the same pixels as resizing all of it and cutting then.
    """
    shape = tf.io.extract_jpeg_shape(jpeg)
    side = tf.minimum(shape[0], shape[1])
    window = tf.stack([(shape[0] - side) // 2, (shape[1] - side) // 2, side, side])
    square = tf.io.decode_and_crop_jpeg(jpeg, window, channels=3, dct_method=dct_method)
    square = tf.image.resize(square, (RECORD, RECORD), method='bicubic', antialias=True)
    crop = tf.slice(square, tf.stack([top, left, 0]), (CROP, CROP, 3))
    return tf.saturate_cast(tf.round(crop), tf.uint8)


def write_records(records, path):
    """The same JPEG bytes and labels as a TFRecord file: tf.data does not read ArrayRecord."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for jpeg, label in records:
            image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[jpeg]))
            label = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
            features = tf.train.Features(feature={'image': image, 'label': label})
            writer.write(tf.train.Example(features=features).SerializeToString())


def record_batches(path, *, batch, dct_method, threads):
    """Endless batches (uint8 images, int64 labels) of the records in the TFRecord file at `path`."""

    def crop(example):
        parsed = tf.io.parse_single_example(example, FEATURES)
        top, left = _offsets()
        image = record_crop(parsed['image'], top, left, dct_method=dct_method)
        return tf.image.random_flip_left_right(image), parsed['label']

    return _batches(tf.data.TFRecordDataset(str(path)).repeat().shuffle(SHUFFLED), crop, batch=batch, threads=threads)


def photo_batches(paths, *, batch, dct_method, threads):
    """Endless batches (uint8 images, int64 labels) of the photographs in the files `paths`."""

    def crop(path):
        top, left = _offsets()
        image = photo_crop(tf.io.read_file(path), top, left, dct_method=dct_method)
        return tf.image.random_flip_left_right(image), tf.constant(0, tf.int64)

    names = tf.data.Dataset.from_tensor_slices([str(path) for path in paths])
    return _batches(names.repeat().shuffle(SHUFFLED), crop, batch=batch, threads=threads)


def _offsets():
    offsets = tf.random.uniform([2], 0, RECORD - CROP + 1, tf.int32)
    return offsets[0], offsets[1]


def _batches(dataset, crop, *, batch, threads):
    # As many calls as threads: AUTOTUNE settles on one now and then, which halves the speed for the rest of the run.
    dataset = dataset.map(crop, num_parallel_calls=threads, deterministic=False)
    # As many batches ahead as ours. Left to AUTOTUNE it fills gigabytes, and goes on while others have their turn.
    dataset = dataset.batch(batch, drop_remainder=True).prefetch(READ_AHEAD)
    options = tf.data.Options()
    options.deterministic = False
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    return iter(dataset.with_options(options))


def temporary_records(records):
    """(a folder to be kept as long as it is read, the TFRecord file in it)."""
    folder = tempfile.TemporaryDirectory()
    path = pathlib.Path(folder.name) / 'records'
    write_records(records, path)
    return folder, path
