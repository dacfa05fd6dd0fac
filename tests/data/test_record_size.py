"""Records of another size than 256: CIFAR-10's 32, against Pillow, NumPy and slices by hand."""

import dataclasses
import io

import grain  # noqa: F401  its flags, defined inside flagsaver, would be deleted at flagsaver's end
import numpy as np
import pytest
import simplejpeg
import tensorflow_datasets as tfds
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from alexnet_jax import InputError, prepare
from alexnet_jax.data import folder_source, photo
from alexnet_jax.data.augment import draw, fixed_places, offsets_of
from alexnet_jax.data.contact_sheet import write_contact_sheet
from alexnet_jax.data.decode import record_window
from alexnet_jax.data.manifest import write_manifest
from alexnet_jax.data.pipeline import EvaluationBatches, TrainingBatches, epoch_order
from alexnet_jax.data.source import open_dataset
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.data.writer import prepare as write
from alexnet_jax.model.catalogue import PAPER

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


def test_records_and_statistics_have_the_size_that_was_asked_for(small, whole, folder):
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
def test_a_photograph_of_the_record_s_size_keeps_every_pixel(size):
    image = scene(1, (size, size))
    for data, exact in ((encoded(image), np.asarray(image)), (encoded(image, 'JPEG'), pixels(encoded(image, 'JPEG')))):
        assert np.array_equal(photo.square_image(data, record_size=size), exact)
        window = photo.square_image(data, top=3, left=5, side=size - 8, record_size=size)
        assert np.array_equal(window, exact[3 : size - 5, 5 : size - 3])
        record = photo.photo_to_jpeg(data, record_size=size)
        assert record == simplejpeg.encode_jpeg(np.ascontiguousarray(exact), 95, 'RGB', '444', fastdct=False)


@pytest.mark.parametrize('size', [(500, 375), (80, 60), (20, 24), (2000, 1500)])
def test_photographs_of_other_sizes_are_resized_as_pillow_does(size):
    image = scene(2, size)
    square = min(size)
    left, top = (image.width - square) / 2, (image.height - square) / 2
    box = (left, top, left + square, top + square)
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC, box=box), np.int16)
    difference = np.abs(photo.square_image(encoded(image), record_size=32) - expected)
    assert difference.max() <= 8  # both round to 8 bits between the two directions, in another order
    assert difference.mean() < 0.5


def test_a_record_of_another_size_is_refused_and_sizes_may_alternate_in_one_thread():
    records = {size: photo.photo_to_jpeg(encoded(scene(3, (size, size))), record_size=size) for size in (32, 48, 256)}
    with pytest.raises(InputError, match=r'a record is not a readable JPEG of 32x32 \(256x256 pixels\)'):
        record_window(records[256], np.empty((32, 32, 3), np.uint8), record_size=32)
    for size in (32, 256, 48, 32):
        out = np.empty((24, 24, 3), np.uint8)
        record_window(records[size], out, top=1, left=7, mirrored=True, record_size=size)
        assert np.array_equal(out, pixels(records[size])[1:25, 7:31][:, ::-1])


def test_crops_of_24_are_drawn_over_all_9_by_9_places(small, whole):
    assert (offsets_of(24, record=32), offsets_of(32, record=32), offsets_of(224)) == (9, 1, 33)
    batches = TrainingBatches(small.records('train'), 14, 0, BASIS, crop_size=24, record_size=32)
    windows = {
        (whole[record, top : top + 24, left : left + 24][:, :: -1 if flip else 1].tobytes()): (top, left, flip)
        for record in range(14)
        for top in range(9)
        for left in range(9)
        for flip in (False, True)
    }
    assert len(windows) == 14 * 81 * 2
    found = np.array([windows[image.tobytes()] for step in range(120) for image in batches[step].images])
    counts = np.bincount(found[:, 0] * 9 + found[:, 1], minlength=81)
    expected = 14 * 120 / 81
    assert ((counts - expected) ** 2 / expected).sum() < 124.8  # chi-square of 80 degrees, once in a thousand seeds
    assert abs(found[:, 2].mean() - 0.5) < 0.041  # 3.3 standard deviations
    assert sorted(fixed_places(100, seed=0, offsets=9)) == [(top, left) for top in range(9) for left in range(9)]


def test_crops_of_the_whole_record_are_it_or_its_mirror_image(small, whole):
    batch = TrainingBatches(small.records('train'), 14, 0, BASIS, crop_size=32, record_size=32)[0]
    mirrored = [np.array_equal(i, whole[r][:, ::-1]) for i, r in zip(batch.images, batch.records, strict=True)]
    straight = [np.array_equal(i, whole[r]) for i, r in zip(batch.images, batch.records, strict=True)]
    assert np.logical_xor(mirrored, straight).all()
    assert any(mirrored) and any(straight)


def test_testing_reads_whole_records(small):
    records = small.records('validation')
    (batch,) = EvaluationBatches(records, 8, record_size=32).read()
    assert batch.images.shape == (8, 32, 32, 3)
    assert batch.valid.tolist() == [True] * 6 + [False] * 2
    assert np.array_equal(batch.images[:6], np.stack([pixels(jpeg) for jpeg, _ in records]))


def test_a_network_of_other_records_is_refused_with_the_way_out(small, tiny):
    reader = dataclasses.replace(PAPER, name='small_one', record_size=32)
    assert small.read_by(reader) is small
    assert tiny.read_by(PAPER) is tiny
    with pytest.raises(InputError, match=r'small has records of 32x32, and paper reads 256x256: .* with --size=256'):
        small.read_by(PAPER)
    with pytest.raises(InputError, match=r'tiny has records of 256x256, and small_one reads 32x32: .* with --size=32'):
        tiny.read_by(reader)


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        ((48, 48, 3), r'holds \(32, 32, 3\) jpeg, not 48x48 JPEG like its mean image'),
        ((32, 31, 3), 'does not hold a mean image'),
        ((0, 0, 3), 'does not hold a mean image'),
        ((), 'does not hold a mean image'),
    ],
)
def test_a_mean_image_of_another_shape_is_refused(folder, tmp_path, shape, message):
    made = write(folder_source.plan(folder, name='small', record_size=32), data_dir=tmp_path, workers=1)
    np.savez(made.directory / 'statistics.npz', mean_image=np.zeros(shape), rgb_covariance=np.eye(3))
    (made.directory / 'manifest.json').unlink()
    write_manifest(made.directory)
    with pytest.raises(InputError, match=message):
        open_dataset('small', data_dir=tmp_path)


def test_what_a_killed_preparation_of_another_size_has_left_is_not_used(folder):
    recipes = {folder_source.plan(folder, name='small', record_size=size).recipe for size in (32, 33, 256)}
    assert len(recipes) == 3
    assert folder_source.plan(folder, name='small').recipe in recipes


def test_sums_of_large_records_do_not_overflow():
    statistics = Statistics(1, record_size=1024)
    statistics.add(np.full((1024, 1024, 3), 255, np.uint8), 0)
    assert statistics.product_sum.tolist() == [[1024 * 1024 * 255**2] * 3] * 3
    assert statistics.rgb_covariance().tolist() == [[0.0] * 3] * 3


def test_the_contact_sheet_shows_crops_of_24_enlarged(small, whole, tmp_path):
    write_contact_sheet(small, tmp_path / 'sheet.png', images=2)
    sheet = np.asarray(Image.open(tmp_path / 'sheet.png'))
    rows = [row.tobytes() for row in sheet]
    for record in epoch_order(14, seed=0, epoch=0)[:2]:
        for epoch in range(4):
            chance = draw(seed=0, epoch=epoch, record=int(record), offsets=9)
            crop = whole[record, chance.top : chance.top + 24, chance.left : chance.left + 24]
            enlarged = (crop[:, ::-1] if chance.flip else crop).repeat(6, axis=1)
            for line in enlarged:
                assert sum(line.tobytes() in row for row in rows) >= 6


def test_the_contact_sheet_of_a_size_that_no_network_crops_is_refused(folder, tmp_path):
    write(folder_source.plan(folder, name='other', record_size=40), data_dir=tmp_path, workers=1)
    with pytest.raises(InputError, match='other has records of 40x40: crops can be shown of 256x256 and 32x32 only'):
        write_contact_sheet(open_dataset('other', data_dir=tmp_path), tmp_path / 'sheet.png')
