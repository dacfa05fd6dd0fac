"""The sheet holds the pictures that it promises, pixel by pixel, made here by Pillow and from the formula."""

import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from simplejpeg import decode_jpeg

from alexnet_jax.data.augment import sample_augmentation
from alexnet_jax.data.dataset import DataSource
from alexnet_jax.data.pipeline import epoch_order
from alexnet_jax.data.preparing.contact_sheet import write_contact_sheet
from alexnet_jax.errors import InputError

UNDECODED = {'image': tfds.decode.SkipDecoding()}
SEED = 3


@pytest.fixture(scope='module')
def sheet(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp('sheet') / 'sheet.png'
    write_contact_sheet(tiny, path, seed=SEED, images=3)
    return path


@pytest.fixture(scope='module')
def rows(tiny):
    """(decoded record, its draws of the first four epochs) of the first three images of training."""
    records, order = tiny.records('train'), epoch_order(40, seed=SEED, epoch=0)
    return [
        (decode_jpeg(records[r][0]), [sample_augmentation(seed=SEED, epoch=epoch, record=r) for epoch in range(4)])
        for r in map(int, order[:3])
    ]


def window(image, augmentation):
    picture = Image.fromarray(image).crop(
        (augmentation.left, augmentation.top, augmentation.left + 224, augmentation.top + 224)
    )
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if augmentation.flip else picture


def shrunk(picture):
    """Three quarters of the size."""
    return np.asarray(picture.resize((picture.width * 3 // 4, picture.height * 3 // 4), Image.Resampling.BOX))


def places(sheet, tile):
    """[(top, left)] where `tile` is in the sheet, found by its first row of pixels."""
    pixels = np.asarray(Image.open(sheet))
    wanted, found = tile[0].tobytes(), []
    for top in range(len(pixels) - len(tile) + 1):
        start = pixels[top].tobytes().find(wanted)
        if start >= 0:
            assert start % 3 == 0
            found.append((top, start // 3))
    return [(y, x) for y, x in found if np.array_equal(pixels[y : y + len(tile), x : x + tile.shape[1]], tile)]


def test_contact_sheet_has_crops_and_mean_image_in_rows_and_columns(sheet, rows, tiny):
    ((top, left),) = places(sheet, shrunk(Image.fromarray(np.rint(tiny.mean_image).astype(np.uint8))))
    assert top < 200
    at = np.array([[places(sheet, shrunk(window(image, c)))[0] for c in draws] for image, draws in rows])
    assert {draw.flip for _, draws in rows for draw in draws} == {False, True}
    assert (at[:, :, 0] == at[:, :1, 0]).all()  # a row a record
    assert (at[:, :, 1] == at[:1, :, 1]).all()  # a column an epoch
    assert (np.diff(at[:, 0, 0]) > 192).all() and (np.diff(at[0, :, 1]) > 168).all()
    assert at[0, 0, 1] > left + 192  # beside the record


def test_contact_sheet_lighting_is_released_at_1_and_8_times_its_strength(sheet, rows, tiny):
    """Alike in all pixels: 0.1 * sum of sigma_i * n_i * p_i, the p_i in NumPy's order and signs."""
    variances, axes = np.linalg.eigh(np.cov(np.concatenate([tiny_pixels(tiny)]).T, bias=True))
    columns = []
    for image, draws in rows:
        for epoch, times in [(0, 1), (0, 8), (1, 8)]:
            colour = sum(0.1 * np.sqrt(variances[i]) * draws[epoch].normals[i] * axes[:, i] for i in range(3))
            lit = np.asarray(window(image, draws[epoch])) + times * colour
            tile = shrunk(Image.fromarray(np.rint(lit).clip(0, 255).astype(np.uint8)))
            columns.append(places(sheet, tile)[0][1])
    assert len(set(columns)) == 3
    assert columns == columns[:3] * 3


def tiny_pixels(tiny):
    return np.stack([decode_jpeg(jpeg) for jpeg, _ in tiny.records('train')]).reshape(-1, 3).astype(float)


def test_contact_sheet_frames_the_crops(sheet, rows, tiny):
    """Left of the crops, the record: its pixels, but for frames of the crops' colours at the crops' edges."""
    pixels = np.asarray(Image.open(sheet)).astype(int)
    image, draws = rows[0]
    top, _ = places(sheet, shrunk(window(image, draws[0])))[0]
    record_left = places(sheet, shrunk(Image.fromarray(np.rint(tiny.mean_image).astype(np.uint8))))[0][1]
    found = pixels[top : top + 192, record_left : record_left + 192]
    drawn = (found != shrunk(Image.fromarray(image))).any(axis=2)
    framed = np.zeros((192, 192), bool)
    for c in draws:
        a, b = round(c.top * 0.75), round(c.left * 0.75)
        y, x = round((c.top + 223) * 0.75), round((c.left + 223) * 0.75)
        for edge in (np.s_[a : a + 2, b : x + 1], np.s_[y - 1 : y + 1, b : x + 1]):
            framed[edge] = True
        for edge in (np.s_[a : y + 1, b : b + 2], np.s_[a : y + 1, x - 1 : x + 1]):
            framed[edge] = True
    assert np.array_equal(drawn, framed)


def test_contact_sheet_depends_on_its_arguments_only(sheet, tiny, tmp_path):
    write_contact_sheet(tiny, tmp_path / 'again.png', seed=SEED, images=3)
    write_contact_sheet(tiny, tmp_path / 'other.png', seed=SEED + 1, images=3)
    assert (tmp_path / 'again.png').read_bytes() == sheet.read_bytes()
    assert (tmp_path / 'other.png').read_bytes() != sheet.read_bytes()


def test_contact_sheet_has_a_row_an_image_and_refuses_bad_path(tiny, sheet, tmp_path):
    there = tfds.builder_from_directory(tiny.directory).as_data_source('train', decoders=UNDECODED)
    first = DataSource('tiny', 'train', data_source=there, class_count=3, excluded=range(2, len(there)))
    small = types.SimpleNamespace(**vars(tiny) | {'records': lambda split: first, 'record_size': 256})
    write_contact_sheet(small, tmp_path / 'two.png', images=8)
    write_contact_sheet(small, tmp_path / 'one.png', images=1)
    three, two, one = (Image.open(path).height for path in (sheet, tmp_path / 'two.png', tmp_path / 'one.png'))
    assert three - two == two - one > 192
    with pytest.raises(InputError, match=r'cannot write .*/none/a\.png: No such file or directory'):
        write_contact_sheet(tiny, tmp_path / 'none' / 'a.png', images=1)
