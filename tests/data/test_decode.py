"""Windows of an image land in the batch pixel for pixel, mirrored where asked, whatever the image was."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from alexnet_jax import InputError
from alexnet_jax.data.augment import draw
from alexnet_jax.data.decode import decode, record_window
from alexnet_jax.data.photo import photo_window, square_image
from alexnet_jax.data.pipeline import EvaluationBatches, TrainingBatches

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


@pytest.mark.parametrize('mirrored', [False, True])
@pytest.mark.parametrize(('top', 'left'), WINDOWS)
def test_a_record_s_window_is_that_part_of_it(top, left, mirrored):
    image = Image.open(io.BytesIO(RECORD)).crop((left, top, left + 224, top + 224))
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    window = filled(record_window, RECORD, top=top, left=left, mirrored=mirrored)
    assert np.abs(np.asarray(image, np.int16) - window).max() <= 1  # the same library in two versions
    whole = decode(RECORD)[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(window, whole[:, ::-1] if mirrored else whole)


def test_a_whole_record_may_be_mirrored_too():
    np.testing.assert_array_equal(filled(record_window, RECORD, 256, mirrored=True), decode(RECORD)[:, ::-1])


@pytest.mark.parametrize('size', [(256, 264), (128, 128)])
def test_a_record_of_another_size_is_refused(size):
    with pytest.raises(InputError, match=f'256x256 .{size[0]}x{size[1]} pixels.: the dataset is damaged, prepare it'):
        record_window(encoded(size), np.empty((224, 224, 3), np.uint8))


@pytest.mark.parametrize('mirrored', [False, True])
@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])  # decoded by simplejpeg, by Pillow
def test_a_photograph_s_window_is_that_part_of_its_square(kind, mirrored):
    data = encoded((500, 376), kind)
    square = square_image(data).astype(np.int16)
    for top, left in WINDOWS:
        part = square[top : top + 224, left : left + 224]
        window = filled(photo_window, data, top=top, left=left, mirrored=mirrored)
        assert np.abs(window - (part[:, ::-1] if mirrored else part)).max() <= 1, (top, left)


@pytest.mark.parametrize('size', [24, 224, 227])
def test_crops_of_any_size_are_cut_and_mirrored(size):
    """A row of 227 pixels is no whole number of the words that mirroring otherwise takes."""
    columns, rows = np.meshgrid(np.arange(256), np.arange(256))
    jpeg = simplejpeg.encode_jpeg(np.stack([columns, rows, 0 * rows], axis=2).astype(np.uint8), 100)
    pixels = simplejpeg.decode_jpeg(jpeg)
    batch = TrainingBatches([(jpeg, 0)] * 32, 32, 3, np.eye(3, dtype=np.float32), crop_size=size)[0]
    places = []
    for image in batch.images:
        flip = image[0, 0, 0] > image[0, -1, 0]
        upright = image[:, ::-1] if flip else image
        left, top = (round(float(x)) for x in upright[..., :2].mean(axis=(0, 1)) - (size - 1) / 2)
        np.testing.assert_array_equal(upright, pixels[top : top + size, left : left + size])
        places.append((top, left, flip))
    assert len(set(places)) > 24
    assert {flip for _, _, flip in places} == {True, False}


def test_a_photograph_that_cannot_be_used_says_what_to_do():
    with pytest.raises(InputError, match=r'cannot be used \(not an image\): repair or remove it, or prepare'):
        photo_window(b'', np.empty((224, 224, 3), np.uint8))


def test_photographs_of_any_size_are_batches_like_records():
    """The same draws; the pixels of their squares, to within the two roundings."""
    photos = [encoded((300 + 50 * i, 400 - 20 * i)) for i in range(5)]
    source = [(data, i) for i, data in enumerate(photos)]
    batch = TrainingBatches(source, 8, 0, np.eye(3, dtype=np.float32), window=photo_window)[0]
    for row, record in enumerate(map(int, batch.records)):
        chance = draw(seed=0, epoch=row // 5, record=record)
        square = square_image(photos[record]).astype(np.int16)
        part = square[chance.top : chance.top + 224, chance.left : chance.left + 224]
        assert np.abs(batch.images[row] - (part[:, ::-1] if chance.flip else part)).max() <= 1
        assert batch.labels[row] == record
    test = EvaluationBatches(source, 8, window=photo_window)[0]
    for image, data in zip(test.images, photos, strict=False):
        np.testing.assert_array_equal(image, square_image(data))
