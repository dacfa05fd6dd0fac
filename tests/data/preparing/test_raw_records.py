"""Datasets of raw records: against simplejpeg, Pillow and plain `numpy.load`; interrupted, on a full disk, damaged."""

import dataclasses
import json
import os
import re
import shutil

import grain  # noqa: F401  its flags, defined inside flagsaver, would be deleted at flagsaver's end
import numpy as np
import pytest
import simplejpeg
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from alexnet_jax.commands import prepare as command
from alexnet_jax.data.dataset import open_dataset, verify_dataset
from alexnet_jax.data.dataset_manifest import write_dataset_manifest
from alexnet_jax.data.decode import decode_record_crop
from alexnet_jax.data.pipeline import EvaluationBatches, TrainingBatches
from alexnet_jax.data.preparing import estimate, shards, sources, writer
from alexnet_jax.data.preparing import folder as folder_source
from alexnet_jax.data.preparing import workers as conversion
from alexnet_jax.data.preparing.contact_sheet import write_contact_sheet
from alexnet_jax.data.preparing.rewriting import make_rewriting_spec
from alexnet_jax.data.preparing.sources import SourceArgs
from alexnet_jax.errors import InputError

SIDE, COUNTS = 32, {'train': 5, 'validation': 1}  # of each of two classes


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Blotches of the records' size, as PNG."""
    root = tmp_path_factory.mktemp('images')
    for split, count in COUNTS.items():
        for label, name in enumerate(('cat', 'dog')):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                blotches = np.random.default_rng([label, i, count]).integers(0, 256, (8, 8, 3), np.uint8)
                image = Image.fromarray(blotches).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                image.save(root / split / name / f'{i}.png')
    return root


@pytest.fixture(scope='module')
def data_dir(images, tmp_path_factory):
    """`pets` of JPEG records, `pets_raw` rewritten from it, `straight` of raw records made of the images."""
    path, patch = tmp_path_factory.mktemp('data'), pytest.MonkeyPatch()
    patch.setattr(conversion, 'CHUNK', 1)
    patch.setattr(shards, 'SHARD', 4)
    patch.setattr(writer, 'count_cores', lambda: 1)
    flags.FLAGS.mark_as_parsed()
    for options in (
        {'images': str(images), 'name': 'pets', 'size': SIDE},
        {'from': 'pets', 'encoding': 'raw'},
        {'images': str(images), 'name': 'straight', 'size': SIDE, 'encoding': 'raw'},
    ):
        with flagsaver.flagsaver(data_dir=str(path), **options):
            command.main(['prepare'])
    patch.undo()
    return path


@pytest.fixture
def damageable(data_dir, tmp_path):
    shutil.copytree(data_dir / 'pets_raw', tmp_path / 'pets_raw')
    return tmp_path


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(conversion, 'CHUNK', 1)
    monkeypatch.setattr(shards, 'SHARD', 2)
    monkeypatch.setattr(writer, 'SHARD', 2)


def make_spec(images, name='pets'):
    return folder_source.make_folder_spec(images, name=name, record_size=SIDE, quality=None)


def load(directory, split):
    """What somebody with NumPy alone reads: pixels and labels."""
    paths = sorted(path for path in directory.glob(f'{split}-*.npy'))
    return np.concatenate([np.load(path, mmap_mode='r') for path in paths]), np.load(directory / f'{split}_labels.npy')


def test_rewritten_records_are_what_simplejpeg_decodes(data_dir):
    source, rewritten = (open_dataset(name, data_dir=data_dir) for name in ('pets', 'pets_raw'))
    assert rewritten.encoding == 'raw'
    assert (source.classes, source.record_size) == (rewritten.classes, rewritten.record_size)
    for split, count in (('train', 10), ('validation', 2)):
        stored = [source.records(split)[i] for i in range(count)]
        expected = np.stack([simplejpeg.decode_jpeg(jpeg, 'RGB') for jpeg, _ in stored])
        pixels, labels = load(rewritten.directory, split)
        assert np.array_equal(pixels, expected)
        assert (labels.tolist(), labels.dtype) == ([label for _, label in stored], np.int32)
        records, out = rewritten.records(split), np.empty((24, 24, 3), np.uint8)
        assert (len(records), rewritten.examples(split)) == (count, count)
        for index, (whole, label) in enumerate(stored):
            records.read_crop(index, out, top=5, left=8)
            assert np.array_equal(out, simplejpeg.decode_jpeg(whole, 'RGB')[5:29, 8:32])
            assert records.labels[index] == label
    assert len(list(rewritten.directory.glob('train-*-of-00003.npy'))) == 3
    statistics = [(dataset.directory / 'statistics.npz').read_bytes() for dataset in (source, rewritten)]
    assert statistics[0] == statistics[1]
    manifest = json.loads((rewritten.directory / 'manifest.json').read_text())
    assert (manifest['format_version'], manifest['raw']['rewritten_from']) == (3, source.fingerprint)
    assert rewritten.fingerprint != source.fingerprint


def test_rewritten_records_give_the_same_batches_and_contact_sheet(data_dir, tmp_path):
    found = []
    for name in ('pets', 'pets_raw'):
        dataset = dataclasses.replace(open_dataset(name, data_dir=data_dir), name='pets')
        records, form = dataset.records('train'), {'decode_crop': decode_record_crop, 'record_size': SIDE}
        training = TrainingBatches(records, 4, 0, np.eye(3, dtype=np.float32), crop_size=24, **form)
        batches = [training[step] for step in range(6)]
        batches += EvaluationBatches(dataset.records('validation'), 3, **form).read()
        write_contact_sheet(dataset, tmp_path / 'sheet.png', images=2)
        arrays = [array.tobytes() for batch in batches for array in vars(batch).values()]
        found.append([*arrays, (tmp_path / 'sheet.png').read_bytes()])
    assert len(found[0]) == 6 * 5 + 3 + 1
    assert found[0] == found[1]


def test_raw_records_of_images_have_their_pixels(data_dir, images):
    dataset = open_dataset('straight', data_dir=data_dir)
    pixels, labels = load(dataset.directory, 'train')
    expected = {
        np.asarray(Image.open(path)).tobytes(): label
        for label, name in enumerate(('cat', 'dog'))
        for path in (images / 'train' / name).iterdir()
    }
    assert {image.tobytes(): label for image, label in zip(pixels, labels.tolist(), strict=True)} == expected
    np.testing.assert_allclose(dataset.mean_image, pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(dataset.rgb_covariance, np.cov(pixels.reshape(-1, 3).T, bias=True), rtol=1e-9)
    assert 'rewritten_from' not in json.loads((dataset.directory / 'manifest.json').read_text())['raw']
    order = [
        open_dataset(name, data_dir=data_dir).records('train').labels.tolist() for name in ('pets_raw', 'straight')
    ]
    assert order[0] == order[1]


@pytest.mark.slow
def test_rewriting_with_two_processes_writes_the_same_bytes(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, 'CHUNK', 1)
    monkeypatch.setattr(shards, 'SHARD', 4)
    spec = make_rewriting_spec(open_dataset('pets', data_dir=data_dir), name='pets_raw')
    done = writer.prepare(spec, data_dir=tmp_path, workers=2)
    assert done.fingerprint == open_dataset('pets_raw', data_dir=data_dir).fingerprint


@pytest.mark.parametrize('rewritten', [False, True])
def test_raw_preparation_interrupted_goes_on_to_the_same_bytes(images, data_dir, tmp_path, small_shards, rewritten):
    def interrupt(split, done, total):
        if done == 7:
            raise KeyboardInterrupt

    pets = open_dataset('pets', data_dir=data_dir)
    spec = make_rewriting_spec(pets, name='pets') if rewritten else make_spec(images)
    with pytest.raises(KeyboardInterrupt):
        writer.prepare(spec, data_dir=tmp_path / 'a', workers=1, progress=interrupt)
    seen = []
    went_on = writer.prepare(spec, data_dir=tmp_path / 'a', workers=1, progress=lambda *state: seen.append(state))
    assert seen[0] == ('train', 6, 10)
    assert went_on.fingerprint == writer.prepare(spec, data_dir=tmp_path / 'b', workers=1).fingerprint
    assert os.listdir(tmp_path / 'a') == ['pets']


@pytest.mark.parametrize(
    ('file', 'kept'),
    [
        ('shards/train-00002.unfinished', 4),
        ('.sums-6.npz.PID.half', 4),
        ('.journal.json.PID.half', 2),
        ('data/classes.txt', 12),
        ('data/train_labels.npy', 12),
        ('data/statistics.npz', 12),
        ('data/manifest.json', 12),
    ],
)
def test_raw_preparation_on_full_disk_is_one_line_and_goes_on(images, tmp_path, small_shards, file, kept):
    """The disk is full for one file: the kernel's own device stands in its place."""
    link = tmp_path / 'data' / '.pets.partial' / file.replace('PID', str(os.getpid()))

    def fill(split, done, total):
        if done == 4:
            link.parent.mkdir(exist_ok=True)
            link.symlink_to('/dev/full')

    with pytest.raises(InputError, match='is full; the same command goes on when there is space'):
        writer.prepare(make_spec(images), data_dir=tmp_path / 'data', workers=1, progress=fill)
    link.unlink(missing_ok=True)
    seen = []
    writer.prepare(make_spec(images), data_dir=tmp_path / 'data', workers=1, progress=lambda *state: seen.append(state))
    assert seen[:1] == ([('train', kept, 10)] if kept < 12 else [])
    verify_dataset('pets', data_dir=tmp_path / 'data')


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


def grow(path):
    path.write_bytes(path.read_bytes() + b'\0')


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ('file', 'damage', 'message'),
    [
        (
            'train-00001-of-00003.npy',
            cut,
            r'train-00001-of-00003\.npy is missing or not of its 12416 bytes; prepare it',
        ),
        ('train-00001-of-00003.npy', grow, r'train-00001-of-00003\.npy is missing or not of its 12416 bytes'),
        ('train-00001-of-00003.npy', os.remove, r'train-00001-of-00003\.npy is missing'),
        ('train_labels.npy', flip, r'train_labels\.npy has changed since it was written'),
        ('classes.txt', flip, r'classes\.txt has changed since it was written'),
    ],
)
def test_open_dataset_names_damaged_file_of_raw_records(damageable, file, damage, message):
    damage(damageable / 'pets_raw' / '2.0.0' / file)
    with pytest.raises(InputError, match=message):
        open_dataset('pets_raw', data_dir=damageable)


def test_verify_dataset_names_raw_shard_with_a_flipped_bit(damageable):
    verify_dataset('pets_raw', data_dir=damageable)
    flip(damageable / 'pets_raw' / '2.0.0' / 'train-00001-of-00003.npy')
    open_dataset('pets_raw', data_dir=damageable)  # reads the sizes only
    with pytest.raises(InputError, match=r'is damaged: train-00001-of-00003\.npy; prepare it again'):
        verify_dataset('pets_raw', data_dir=damageable)


def test_raw_record_cut_under_a_run_is_one_line_with_the_command(damageable):
    records = open_dataset('pets_raw', data_dir=damageable).records('train')
    cut(damageable / 'pets_raw' / '2.0.0' / 'train-00002-of-00003.npy')
    with pytest.raises(
        InputError,
        match=r'record 9: .* (ends within it|has become shorter); .*`alexnet prepare --verify=pets_raw --data_dir',
    ):
        records[9]


@pytest.mark.parametrize(
    ('forge', 'message'),
    [
        (
            lambda raw: raw['splits'].update(train=[4, 4, 3]),
            'manifest is not of raw records of 32x32; prepare it again',
        ),
        (lambda raw: raw['splits'].update(train=[8, 2]), 'manifest is not of raw records'),
        (lambda raw: raw['splits'].update(train=7), 'manifest is not of raw records'),
        (lambda raw: raw.update(rewritten_from=['a']), 'manifest is not of raw records'),
        (lambda raw: raw['splits'].update(test=[]), 'manifest is not of raw records'),
        (lambda raw: raw['splits'].pop('validation'), 'has no validation split; prepare it again'),
        (lambda raw: raw.clear(), 'manifest is not of raw records'),
    ],
)
def test_open_dataset_refuses_manifest_of_other_raw_records(damageable, forge, message):
    path = damageable / 'pets_raw' / '2.0.0' / 'manifest.json'
    manifest = json.loads(path.read_text())
    forge(manifest['raw'])
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=message):
        open_dataset('pets_raw', data_dir=damageable)


def test_records_refuses_forged_label_outside_the_classes(damageable):
    directory = damageable / 'pets_raw' / '2.0.0'
    counts = json.loads((directory / 'manifest.json').read_text())['raw']
    np.save(directory / 'train_labels.npy', np.full(10, 2, np.int32))
    (directory / 'manifest.json').unlink()
    write_dataset_manifest(directory, raw=counts)
    with pytest.raises(InputError, match=r'train_labels\.npy: label 2 is outside the 2 classes'):
        open_dataset('pets_raw', data_dir=damageable).records('train')


def test_rewriting_refuses_damaged_source(data_dir, tmp_path):
    shutil.copytree(data_dir / 'pets', tmp_path / 'pets')
    shard = next((tmp_path / 'pets').rglob('pets-train.array_record-00001*'))
    content = bytearray(shard.read_bytes())
    content[content.index(b'JFIF') + 300] ^= 1  # within the first JPEG of the shard
    shard.write_bytes(content)
    spec = make_rewriting_spec(open_dataset('pets', data_dir=tmp_path), name='pets_raw')
    with pytest.raises(InputError, match=r'dataset pets, split train, record 4 cannot be read: .*--verify=pets '):
        writer.prepare(spec, data_dir=tmp_path, workers=1)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'from_dataset': 'pets'}, '--from=pets rewrites JPEG records as raw ones: add --encoding=raw'),
        ({'from_dataset': 'pets', 'dataset': 'demo', 'encoding': 'raw'}, 'or --from=NAME'),
        ({'from_dataset': 'pets', 'encoding': 'raw', 'size': 256}, '--size=256: the records of pets have size 32, and'),
        (
            {'from_dataset': 'pets', 'encoding': 'raw', 'preprocessing': 'caffe'},
            '--preprocessing=caffe: the records of pets have preprocessing paper',
        ),
        ({'from_dataset': 'pets', 'encoding': 'raw', 'name': 'pets'}, '--name=pets is the dataset that is read'),
        ({'from_dataset': 'pets', 'encoding': 'raw', 'quality': 90}, '--quality is of JPEG records'),
        ({'from_dataset': 'pets', 'encoding': 'raw', 'validation_share': 0.1}, 'leave --validation_share out'),
        ({'from_dataset': 'pets', 'encoding': 'raw', 'validation_only': True}, 'leave --validation_only out'),
        ({'from_dataset': 'pets', 'encoding': 'raw', 'manual_dir': 'DIR'}, 'leave --manual_dir out'),
        ({'from_dataset': 'pets_raw', 'encoding': 'raw'}, 'pets_raw has raw records already'),
        ({'from_dataset': 'birds', 'encoding': 'raw'}, "no dataset 'birds'"),
        ({'dataset': 'demo', 'encoding': 'raw'}, '--from=demo --encoding=raw'),
        ({'dataset': 'mnist', 'encoding': 'raw', 'keep_originals': True}, '--keep_originals writes no records'),
    ],
)
def test_make_spec_refuses_what_raw_records_cannot_be(data_dir, options, message):
    with pytest.raises(InputError, match=message):
        sources.make_spec(SourceArgs(**options), data_dir=data_dir)


def test_open_dataset_says_how_raw_records_are_made(data_dir):
    command = f'`alexnet prepare --from=birds --encoding=raw --data_dir={data_dir}`'
    with pytest.raises(InputError, match=f"no dataset 'birds_raw' in .*; make it with {re.escape(command)}, or"):
        open_dataset('birds_raw', data_dir=data_dir)


def test_make_spec_takes_size_that_the_rewritten_records_have(data_dir):
    args = SourceArgs(from_dataset='pets', encoding='raw', size=SIDE, preprocessing='paper', name='others')
    spec = sources.make_spec(args, data_dir=data_dir)
    assert (spec.name, spec.record_size, spec.version) == ('others', SIDE, '2.0.0')


def test_check_of_raw_records_knows_their_size_and_the_disk(data_dir, monkeypatch):
    args = SourceArgs(from_dataset='pets', encoding='raw')
    found = estimate.estimate_preparation(sources.make_spec(args, data_dir=data_dir), data_dir=data_dir)
    assert found.needed == 12 * SIDE * SIDE * 3 + estimate.STATISTICS_BYTES
    assert found.bytes_per_second == pytest.approx(found.images_per_second * SIDE * SIDE * 3)
    speed = re.search(r'if the disk writes ([\d,]+) MB/s', found.format_text())
    assert speed is None or float(speed[1].replace(',', '')) == pytest.approx(found.bytes_per_second / 1e6, abs=0.5)
    monkeypatch.setattr(estimate, 'count_cores', lambda: 10**6)
    found = estimate.estimate_preparation(sources.make_spec(args, data_dir=data_dir), data_dir=data_dir)
    assert 'if the disk writes 480 MB/s' in found.format_text()  # one process writes, whatever the cores


def test_raw_and_jpeg_records_of_one_folder_have_other_recipes(images):
    jpeg = folder_source.make_folder_spec(images, name='pets', record_size=SIDE)
    assert jpeg.recipe != make_spec(images).recipe
