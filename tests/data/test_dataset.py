import concurrent.futures
import io
import json
import pickle
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from alexnet_jax.data.dataset import DataSource, list_datasets, open_dataset, verify_dataset
from alexnet_jax.data.dataset_manifest import write_dataset_manifest
from alexnet_jax.data.preparing import demo
from alexnet_jax.data.preparing.demo import CLASSES
from alexnet_jax.data.preparing.writer import prepare
from alexnet_jax.errors import InputError


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp('data')
    prepare(demo.make_demo_spec(train=20, validation=10), data_dir=data_dir, workers=1)
    return data_dir


@pytest.fixture
def damageable(prepared, tmp_path):
    shutil.copytree(prepared / 'demo', tmp_path / 'demo')
    return tmp_path


def pixels(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def test_open_dataset_gives_names_counts_and_statistics(prepared):
    dataset = open_dataset('demo', data_dir=prepared)

    assert dataset.classes == CLASSES
    assert dataset.directory == prepared / 'demo' / '1.0.0'
    assert (dataset.examples('train'), dataset.examples('validation')) == (20, 10)
    train = np.stack([pixels(jpeg) for jpeg, _ in dataset.records('train')])
    assert dataset.mean_image.dtype == np.float32
    np.testing.assert_allclose(dataset.mean_image, train.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(dataset.rgb_covariance, np.cov(train.reshape(-1, 3).T, bias=True), rtol=1e-9)


def test_data_source_reads_the_same_by_index_thread_and_pickled_copy(prepared):
    records = open_dataset('demo', data_dir=prepared).records('train')
    expected = [records[i] for i in range(len(records))]

    copy = pickle.loads(pickle.dumps(records))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(copy.__getitem__, list(range(20)) * 20))
    assert threaded == expected * 20
    assert list(records) == expected  # and iteration ends
    assert np.bincount([label for _, label in expected]).tolist() == [2] * 10


@pytest.mark.parametrize('index', [-1, 20])
def test_data_source_raises_index_error_beyond_the_split(prepared, index):
    with pytest.raises(IndexError, match='20 records'):
        open_dataset('demo', data_dir=prepared).records('train')[index]


def test_data_source_refuses_label_outside_the_classes():
    records = DataSource('birds', 'train', data_source=[{'image': b'', 'label': 10}], class_count=10)

    with pytest.raises(InputError, match='birds, split train, record 0: label 10 is outside the 10 classes'):
        records[0]


def test_open_dataset_of_unknown_name_lists_datasets_and_the_command(prepared):
    with pytest.raises(InputError) as error:
        open_dataset('birds', data_dir=prepared)

    message = str(error.value)
    assert 'prepared there: demo' in message
    assert f'alexnet prepare --dataset=birds --data_dir={prepared}' in message
    assert '\n' not in message


def test_open_dataset_of_impossible_name_is_one_line(prepared):
    with pytest.raises(InputError, match=r"^cannot look for dataset 'xx+' in .*: File name too long$"):
        open_dataset('x' * 300, data_dir=prepared)


def test_records_of_unknown_split_list_the_splits(prepared):
    with pytest.raises(InputError, match="no split 'test'; it has train, validation"):
        open_dataset('demo', data_dir=prepared).records('test')


def test_open_dataset_of_tfds_dataset_names_the_command(damageable):
    (damageable / 'demo' / '1.0.0' / 'manifest.json').unlink()

    with pytest.raises(InputError, match=r'no mean image .* `alexnet prepare --dataset=demo'):
        open_dataset('demo', data_dir=damageable)
    assert list_datasets(damageable) == []


def truncate_a_shard(directory):
    shard = next(directory.glob('*-train.array_record*'))
    shard.write_bytes(shard.read_bytes()[:-100])


def remove_the_statistics(directory):
    (directory / 'statistics.npz').unlink()


def raise_the_format(directory):
    manifest = json.loads((directory / 'manifest.json').read_text())
    (directory / 'manifest.json').write_text(json.dumps(manifest | {'format_version': 99}))


def cut_the_manifest(directory):
    path = directory / 'manifest.json'
    path.write_text(path.read_text()[:-20])


def list_the_manifest(directory):
    (directory / 'manifest.json').write_text('[]')


def lose_a_size(directory):
    change(directory, 'manifest.json', lambda text: text.replace('"bytes"', '"bites"', 1))


def name_a_file_elsewhere(directory):
    change(directory, 'manifest.json', lambda text: text.replace('"statistics.npz"', '"../1.0.0/statistics.npz"'))


def change_the_labels(directory):
    change(directory, 'label.labels.txt', lambda text: text.replace('striped_disc', 'spotted_disk'))


def shrink_the_images(directory):
    change(directory, 'features.json', lambda text: text.replace('256', '224'))
    (directory / 'manifest.json').unlink()
    write_dataset_manifest(directory)


def drop_validation(directory):
    change(directory, 'dataset_info.json', lambda text: text.replace('"validation"', '"holdout"'))


def change(directory, file, edit):
    before = (directory / file).read_text()
    after = edit(before)
    assert after != before
    (directory / file).write_text(after)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (truncate_a_shard, 'is missing or not of its'),
        (remove_the_statistics, r'statistics\.npz is missing'),
        (raise_the_format, 'has format 99, not 1 to 3'),
        (cut_the_manifest, 'manifest.json is damaged; '),
        (list_the_manifest, 'manifest.json is damaged; '),
        (lose_a_size, 'manifest.json is damaged; '),
        (name_a_file_elsewhere, 'manifest.json is damaged; '),
        (change_the_labels, 'label.labels.txt has changed since it was written'),
        (shrink_the_images, r'holds \(224, 224, 3\) jpeg, not 256x256 JPEG like its mean'),
        (drop_validation, 'has no validation split'),
    ],
)
def test_open_dataset_finds_damage(damageable, damage, message):
    damage(damageable / 'demo' / '1.0.0')

    with pytest.raises(InputError, match=message) as error:
        open_dataset('demo', data_dir=damageable)
    assert '--overwrite' in str(error.value)


def test_verify_dataset_finds_a_flipped_bit(damageable):
    shard = next((damageable / 'demo' / '1.0.0').glob('*-train.array_record*'))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)

    open_dataset('demo', data_dir=damageable)  # reads the sizes only
    with pytest.raises(InputError, match=f'is damaged: {shard.name}; prepare it again'):
        verify_dataset('demo', data_dir=damageable)


def test_verify_dataset_reads_every_file(damageable):
    seen = []
    verify_dataset('demo', data_dir=damageable, progress=lambda *state: seen.append(state))

    files = len(list((damageable / 'demo' / '1.0.0').iterdir())) - 2  # not the manifest, not TFDS's dataset_info.json
    assert seen == [('verified', done, files) for done in range(1, files + 1)]


def test_fingerprint_depends_on_content_not_folder(prepared, damageable, tmp_path):
    prepare(demo.make_demo_spec(train=10, validation=10), data_dir=tmp_path / 'other', workers=1)

    fingerprint = open_dataset('demo', data_dir=prepared).fingerprint
    assert open_dataset('demo', data_dir=damageable).fingerprint == fingerprint
    assert open_dataset('demo', data_dir=tmp_path / 'other').fingerprint != fingerprint
    assert len(fingerprint) == 64


def test_prepared_dataset_opens_in_tfds(prepared):
    builder = tfds.builder_from_directory(prepared / 'demo' / '1.0.0')
    record = builder.as_data_source('validation')[0]

    assert record['image'].shape == (256, 256, 3)
    assert builder.info.supervised_keys == ('image', 'label')
