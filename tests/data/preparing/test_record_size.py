"""Records of another size than 256: CIFAR-10's 32, against Pillow, NumPy and slices by hand."""

import dataclasses
import io
import shutil

import grain  # noqa: F401  its flags, defined inside flagsaver, would be deleted at flagsaver's end
import numpy as np
import pytest
import simplejpeg
import tensorflow_datasets as tfds
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from alexnet_jax.commands import prepare
from alexnet_jax.data import photo
from alexnet_jax.data.augment import choose_offsets, count_offsets, sample_augmentation
from alexnet_jax.data.dataset import open_dataset
from alexnet_jax.data.dataset_manifest import write_dataset_manifest
from alexnet_jax.data.decode import decode_record_crop
from alexnet_jax.data.pipeline import EvaluationBatches, TrainingBatches, epoch_order
from alexnet_jax.data.preparing import folder as folder_source
from alexnet_jax.data.preparing.contact_sheet import write_contact_sheet
from alexnet_jax.data.preparing.writer import prepare as write
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import InputError
from alexnet_jax.model.zoo import PAPER

BASIS = np.zeros((3, 3), np.float32)


def scene(seed, size=(32, 32)):
    """Blotches of a few pixels: no two places of it are alike."""
    blotches = np.random.default_rng(seed).integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
    return Image.fromarray(blotches).resize(size, Image.Resampling.BICUBIC)


def encoded(image, file_format='PNG', **options):
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def pixels(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """6 + 6 training and 2 + 2 validation images of 32x32, and in each class one that is larger."""
    root = tmp_path_factory.mktemp('images')
    for split, count in (('train', 6), ('validation', 2)):
        for label, name in enumerate(('cat', 'dog')):
            (root / split / name).mkdir(parents=True)
            for i in range(count + 1):
                image = scene([i, label, count], (32, 32) if i < count else (80, 60))
                image.save(root / split / name / f'{i}.png')
    return root


@pytest.fixture(scope='module')
def data_dir(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp('data')
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(images=str(folder), name='small', size=32, data_dir=str(path)):
        prepare.main(['prepare'])
    return path


@pytest.fixture(scope='module')
def small(data_dir):
    return open_dataset('small', data_dir=data_dir)


@pytest.fixture(scope='module')
def whole(small):
    """Each training record as Pillow decodes it: uint8 (14, 32, 32, 3)."""
    return np.stack([pixels(jpeg) for jpeg, _ in small.records('train')])


def test_prepare_size_sets_size_of_records_and_statistics(small, whole, folder):
    images = [path.read_bytes() for path in folder.glob('train/*/*.png')]
    assert {jpeg for jpeg, _ in small.records('train')} == {photo.photo_to_jpeg(i, record_size=32) for i in images}
    assert whole.shape == (14, 32, 32, 3)
    assert small.record_size == 32
    with np.load(small.directory / 'statistics.npz') as stored:
        assert np.array_equal(stored['mean_image'], whole.astype(np.int64).sum(axis=0) / 14)
        assert stored['pixel_count'] == 14 * 32 * 32
    np.testing.assert_allclose(small.rgb_covariance, np.cov(whole.reshape(-1, 3).T, bias=True), rtol=1e-9)
    assert tfds.builder_from_directory(small.directory).info.features['image'].shape == (32, 32, 3)


@pytest.mark.parametrize('size', [16, 32, 100, 256])
def test_square_image_keeps_pixels_of_photo_of_record_size(size):
    image = scene(1, (size, size))
    for data, exact in ((encoded(image), np.asarray(image)), (encoded(image, 'JPEG'), pixels(encoded(image, 'JPEG')))):
        assert np.array_equal(photo.square_image(data, record_size=size), exact)
        window = photo.square_image(data, top=3, left=5, side=size - 8, record_size=size)
        assert np.array_equal(window, exact[3 : size - 5, 5 : size - 3])
        record = photo.photo_to_jpeg(data, record_size=size)
        assert record == simplejpeg.encode_jpeg(np.ascontiguousarray(exact), 95, 'RGB', '444', fastdct=False)


MORE_SIZES = [pytest.param(size, marks=pytest.mark.repeats) for size in [(80, 60), (2000, 1500)]]


@pytest.mark.parametrize('size', [(500, 375), (20, 24), *MORE_SIZES])
def test_square_image_of_32_equals_pillow_bicubic(size):
    image = scene(2, size)
    square = min(size)
    left, top = (image.width - square) / 2, (image.height - square) / 2
    box = (left, top, left + square, top + square)
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC, box=box), np.int16)
    difference = np.abs(photo.square_image(encoded(image), record_size=32) - expected)
    assert difference.max() <= 8  # both round to 8 bits between the two directions, in another order
    assert difference.mean() < 0.5


def test_decode_record_crop_alternates_sizes_in_one_thread():
    records = {size: photo.photo_to_jpeg(encoded(scene(3, (size, size))), record_size=size) for size in (32, 48, 256)}
    with pytest.raises(InputError, match=r'a record is not a readable JPEG of 32x32 \(256x256 pixels\)'):
        decode_record_crop(records[256], np.empty((32, 32, 3), np.uint8), record_size=32)
    for size in (32, 256, 48, 32):
        out = np.empty((24, 24, 3), np.uint8)
        decode_record_crop(records[size], out, top=1, left=7, record_size=size)
        assert np.array_equal(out, pixels(records[size])[1:25, 7:31])


def test_training_batches_crop_24_at_all_9_by_9_offsets(small, whole):
    assert (count_offsets(24, record=32), count_offsets(32, record=32), count_offsets(224)) == (9, 1, 33)
    batches = TrainingBatches(small.records('train'), 14, 0, BASIS, crop_size=24, record_size=32)
    windows = {
        whole[record, top : top + 24, left : left + 24].tobytes(): (top, left)
        for record in range(14)
        for top in range(9)
        for left in range(9)
    }
    assert len(windows) == 14 * 81
    made = [batches[step] for step in range(120)]
    found = np.concatenate([batch.places for batch in made])
    assert np.array_equal(found[:, :2], [windows[image.tobytes()] for batch in made for image in batch.images])
    counts = np.bincount(found[:, 0] * 9 + found[:, 1], minlength=81)
    expected = 14 * 120 / 81
    assert ((counts - expected) ** 2 / expected).sum() < 124.8  # chi-square of 80 degrees, once in a thousand seeds
    assert abs(found[:, 2].mean() - 0.5) < 0.041  # 3.3 standard deviations
    assert sorted(choose_offsets(100, seed=0, offset_count=9)) == [(top, left) for top in range(9) for left in range(9)]


def test_training_batches_crop_whole_records(small, whole):
    batch = TrainingBatches(small.records('train'), 14, 0, BASIS, crop_size=32, record_size=32)[0]
    np.testing.assert_array_equal(batch.images, whole[batch.records])
    assert not batch.places[:, :2].any() and 0 < batch.places[:, 2].sum() < 14


def test_evaluation_batches_read_whole_records_of_32(small):
    records = small.records('validation')
    (batch,) = EvaluationBatches(records, 8, record_size=32).read()
    assert batch.images.shape == (8, 32, 32, 3)
    assert batch.valid.tolist() == [True] * 6 + [False] * 2
    assert np.array_equal(batch.images[:6], np.stack([pixels(jpeg) for jpeg, _ in records]))


def test_check_variant_refuses_network_of_other_record_size(small, tiny):
    reader = dataclasses.replace(PAPER, name='small_one', record_size=32)
    assert small.check_variant(reader) is small
    assert tiny.check_variant(PAPER) is tiny
    with pytest.raises(InputError, match=r'small has records of 32x32, and paper reads 256x256: .* with --size=256'):
        small.check_variant(PAPER)
    with pytest.raises(InputError, match=r'tiny has records of 256x256, and small_one reads 32x32: .* with --size=32'):
        tiny.check_variant(reader)


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        ((48, 48, 3), r'holds \(32, 32, 3\) jpeg, not 48x48 JPEG like its mean image'),
        ((32, 31, 3), 'does not hold a mean image'),
        ((0, 0, 3), 'does not hold a mean image'),
        ((), 'does not hold a mean image'),
    ],
)
def test_open_dataset_refuses_mean_image_of_another_shape(small, tmp_path, shape, message):
    directory = shutil.copytree(small.directory, tmp_path / 'small' / '2.0.0')
    np.savez(directory / 'statistics.npz', mean_image=np.zeros(shape), rgb_covariance=np.eye(3))
    (directory / 'manifest.json').unlink()
    write_dataset_manifest(directory)
    with pytest.raises(InputError, match=message):
        open_dataset('small', data_dir=tmp_path)


def test_folder_spec_recipe_depends_on_record_size(folder):
    recipes = {folder_source.make_folder_spec(folder, name='small', record_size=size).recipe for size in (32, 33, 256)}
    assert len(recipes) == 3
    assert folder_source.make_folder_spec(folder, name='small').recipe in recipes


def test_statistics_of_large_records_do_not_overflow():
    statistics = Statistics(1, record_size=1024)
    statistics.add(np.full((1024, 1024, 3), 255, np.uint8), 0)
    assert statistics.product_sum.tolist() == [[1024 * 1024 * 255**2] * 3] * 3
    assert statistics.rgb_covariance().tolist() == [[0.0] * 3] * 3


def test_contact_sheet_enlarges_crops_of_24(small, whole, tmp_path):
    write_contact_sheet(small, tmp_path / 'sheet.png', images=2)
    sheet = np.asarray(Image.open(tmp_path / 'sheet.png'))
    rows = [row.tobytes() for row in sheet]
    for record in epoch_order(14, seed=0, epoch=0)[:2]:
        for epoch in range(4):
            augmentation = sample_augmentation(seed=0, epoch=epoch, record=int(record), offset_count=9)
            crop = whole[record, augmentation.top : augmentation.top + 24, augmentation.left : augmentation.left + 24]
            enlarged = (crop[:, ::-1] if augmentation.flip else crop).repeat(6, axis=1)
            for line in enlarged:
                assert sum(line.tobytes() in row for row in rows) >= 6


def test_contact_sheet_refuses_size_that_no_network_crops(folder, tmp_path):
    write(folder_source.make_folder_spec(folder, name='other', record_size=40), data_dir=tmp_path, workers=1)
    with pytest.raises(InputError, match='other has records of 40x40: crops can be shown of 256x256 and 32x32 only'):
        write_contact_sheet(open_dataset('other', data_dir=tmp_path), tmp_path / 'sheet.png')
