"""Windows of an image land in the batch pixel for pixel, whatever the image was."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from alexnet_jax.data.augment import sample_augmentation
from alexnet_jax.data.decode import decode_record_crop
from alexnet_jax.data.photo import decode_photo_crop, square_image
from alexnet_jax.data.pipeline import EvaluationBatches, TrainingBatches
from alexnet_jax.errors import InputError

WINDOWS = [(0, 0), (32, 32), (0, 32), (5, 17)]


def encoded(size, file_format='JPEG', **options):
    blotches = np.random.default_rng(size).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(blotches).resize(size, Image.Resampling.BICUBIC).save(out, file_format, **options)
    return out.getvalue()


def filled(window, data, side=224, **options):
    out = np.zeros((3, side, side, 3), np.uint8)
    window(data, out[1], **options)
    assert not out[::2].any()  # its neighbours in the batch
    return out[1]


RECORD = encoded((256, 256), quality=95, subsampling=0)


@pytest.mark.parametrize(('top', 'left'), WINDOWS)
def test_decode_record_crop_equals_pillow_crop(top, left):
    image = Image.open(io.BytesIO(RECORD)).crop((left, top, left + 224, top + 224))
    window = filled(decode_record_crop, RECORD, top=top, left=left)
    assert np.abs(np.asarray(image, np.int16) - window).max() <= 1  # the same library in two versions
    whole = simplejpeg.decode_jpeg(RECORD)[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(window, whole)


def test_decode_record_crop_takes_whole_records():
    np.testing.assert_array_equal(filled(decode_record_crop, RECORD, 256), simplejpeg.decode_jpeg(RECORD))


@pytest.mark.parametrize('size', [(256, 264), (128, 128)])
def test_decode_record_crop_refuses_other_sizes(size):
    with pytest.raises(InputError, match=f'256x256 .{size[0]}x{size[1]} pixels.: the dataset is damaged, prepare it'):
        decode_record_crop(encoded(size), np.empty((224, 224, 3), np.uint8))


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])  # decoded by simplejpeg, by Pillow
def test_decode_photo_crop_equals_part_of_square(kind):
    data = encoded((500, 376), kind)
    square = square_image(data)
    for top, left in WINDOWS:
        part = square[top : top + 224, left : left + 224]
        window = filled(decode_photo_crop, data, top=top, left=left)
        np.testing.assert_array_equal(window, part)


@pytest.mark.parametrize('size', [24, 224, 227])
def test_training_batches_crop_any_size(size):
    columns, rows = np.meshgrid(np.arange(256), np.arange(256))
    jpeg = simplejpeg.encode_jpeg(np.stack([columns, rows, 0 * rows], axis=2).astype(np.uint8), 100)
    pixels = simplejpeg.decode_jpeg(jpeg)
    batch = TrainingBatches([(jpeg, 0)] * 32, 32, 3, np.eye(3, dtype=np.float32), crop_size=size)[0]
    places = []
    for image in batch.images:
        left, top = (round(float(x)) for x in image[..., :2].mean(axis=(0, 1)) - (size - 1) / 2)
        np.testing.assert_array_equal(image, pixels[top : top + size, left : left + size])
        places.append((top, left))
    assert len(set(places)) > 24
    assert places == list(map(tuple, batch.places[:, :2].tolist()))
    assert set(batch.places[:, 2].tolist()) == {0, 1}


def test_decode_photo_crop_of_unusable_image_names_the_remedy():
    with pytest.raises(InputError, match=r'cannot be used \(not an image\): repair or remove it, or prepare'):
        decode_photo_crop(b'', np.empty((224, 224, 3), np.uint8))


def test_batches_of_photos_equal_those_of_records():
    """The same draws; the pixels of their squares."""
    photos = [encoded((300 + 50 * i, 400 - 20 * i)) for i in range(5)]
    source = [(data, i) for i, data in enumerate(photos)]
    batch = TrainingBatches(source, 8, 0, np.eye(3, dtype=np.float32), decode_crop=decode_photo_crop)[0]
    for row, record in enumerate(map(int, batch.records)):
        augmentation = sample_augmentation(seed=0, epoch=row // 5, record=record)
        square = square_image(photos[record])
        part = square[augmentation.top : augmentation.top + 224, augmentation.left : augmentation.left + 224]
        np.testing.assert_array_equal(batch.images[row], part)
        assert batch.places[row, 2] == augmentation.flip
        assert batch.labels[row] == record
    test = EvaluationBatches(source, 8, decode_crop=decode_photo_crop)[0]
    for image, data in zip(test.images, photos, strict=False):
        np.testing.assert_array_equal(image, square_image(data))
