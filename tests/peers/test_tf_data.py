"""The tf.data peer does the same work: the same pixels of a given crop, to within the decoders' roundings."""

import io

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.decode import decode_record_crop
from alexnet_jax.data.photo import decode_photo_crop

tf = pytest.importorskip('tensorflow')
from alexnet_jax.benchmark.peers import tf_data  # noqa: E402 - it imports TensorFlow

WINDOWS = [(0, 0), (32, 32), (5, 17)]


def encoded(size, **options):
    blotches = np.random.default_rng(0).integers(0, 256, (size[1] // 6, size[0] // 6, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(blotches).resize(size, Image.Resampling.BICUBIC).save(out, 'JPEG', quality=95, **options)
    return out.getvalue()


def ours(window, data, top, left):
    out = np.empty((224, 224, 3), np.uint8)
    window(data, out, top=top, left=left)
    return out


@pytest.mark.parametrize(('top', 'left'), WINDOWS)
def test_crop_record_gives_our_pixels(top, left):
    jpeg = encoded((256, 256), subsampling=0)
    for form, largest, mean in (('', 16, 3), ('INTEGER_ACCURATE', 1, 0.1)):  # its default is a coarser transform
        theirs = tf_data.crop_record(jpeg, top, left, dct_method=form).numpy().astype(np.int16)
        difference = np.abs(theirs - ours(decode_record_crop, jpeg, top, left))
        assert difference.max() <= largest, form
        assert difference.mean() <= mean, form


@pytest.mark.parametrize('size', [(500, 376), (376, 500)])
@pytest.mark.parametrize(('top', 'left'), WINDOWS)
def test_crop_photo_gives_our_pixels(size, top, left):
    jpeg = encoded(size, subsampling=0)
    theirs = tf_data.crop_photo(jpeg, top, left, dct_method='INTEGER_ACCURATE').numpy().astype(np.int16)
    difference = np.abs(theirs - ours(decode_photo_crop, jpeg, top, left))
    assert difference.mean() < 0.5
    assert np.quantile(difference, 0.999) <= 3  # the square's border apart: there the one sees beyond it


def test_iter_record_batches_yields_crops_with_their_labels(tmp_path):
    greys = [40, 80, 120, 160]
    records = []
    for label, grey in enumerate(greys):
        out = io.BytesIO()
        Image.new('RGB', (256, 256), (grey,) * 3).save(out, 'JPEG')
        records.append((out.getvalue(), label))
    tf_data.write_records(records, tmp_path / 'records')
    batches = tf_data.iter_record_batches(tmp_path / 'records', batch=8, dct_method='', threads=1)
    images, labels = next(batches)
    assert images.shape == (8, 224, 224, 3)
    assert images.dtype == tf.uint8
    assert [greys[label] for label in labels.numpy()] == images.numpy()[:, 100, 100, 0].tolist()


def test_iter_photo_batches_yields_uint8_crops(tmp_path):
    paths = [tmp_path / f'{i}.jpg' for i in range(2)]
    for path in paths:
        path.write_bytes(encoded((300, 400)))
    images, _ = next(tf_data.iter_photo_batches(paths, batch=4, dct_method='INTEGER_FAST', threads=1))
    assert images.shape == (4, 224, 224, 3)
    assert images.dtype == tf.uint8
