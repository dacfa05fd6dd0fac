"""Features in files: .npz and .parquet, of records and of photographs."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from random_networks import CLASSES

from alexnet_jax.data.photo_files import PhotoFiles
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.extract_features import extract_features, write_features, write_strongest
from alexnet_jax.evaluation.open_networks import NetworkArgs
from alexnet_jax.evaluation.strongest import Strongest

BATCHES = [(np.arange(12, dtype=np.float32).reshape(2, 2, 1, 3), np.array([2, 0], np.int32))]
BATCHES += [(np.full((1, 2, 1, 3), 7, np.float32), np.array([1], np.int32))]
ROWS = np.concatenate([rows for rows, _ in BATCHES])
ABOUT = {'layer': 'conv5/pool', 'network': 'runs/x, step 3', 'images': 'tiny, validation'}
NAMES = ('a.jpg', 'b.jpg', 'ä.jpg')
PHOTOS = PhotoFiles(names=NAMES, labels=(None, 2, 0), records=None, unusable=())


def write(path, *, files, batches=BATCHES):
    write_features(path, batches, shape=(2, 1, 3), classes=CLASSES, about=ABOUT, photos=PHOTOS if files else None)


@pytest.mark.parametrize('files', [False, True])
def test_write_features_npz(tmp_path, files):
    write(tmp_path / 'f.npz', files=files)
    with np.load(tmp_path / 'f.npz', allow_pickle=False) as file:
        np.testing.assert_array_equal(file['features'], ROWS)
        assert file['features'].dtype == np.float32 and file['labels'].dtype == np.int32
        assert file['labels'].tolist() == ([-1, 2, 0] if files else [2, 0, 1])
        assert (file['files'] if files else file['records']).tolist() == (list(NAMES) if files else [0, 1, 2])
        assert {key: str(file[key]) for key in ABOUT} == ABOUT
        assert file['classes'].tolist() == list(CLASSES)
    assert [path.name for path in tmp_path.iterdir()] == ['f.npz']


@pytest.mark.parametrize('files', [False, True])
def test_write_features_parquet(tmp_path, files):
    write(tmp_path / 'f.parquet', files=files)
    table = pq.read_table(tmp_path / 'f.parquet')
    columns = table.to_pydict()
    np.testing.assert_array_equal(np.array(columns['features']).reshape(3, 2, 1, 3), ROWS)
    if files:
        assert columns['file'] == list(NAMES)
        assert (columns['label'], columns['class']) == ([None, 2, 0], [None, 'red', 'blue'])
    else:
        assert columns['record'] == [0, 1, 2]
        assert (columns['label'], columns['class']) == ([2, 0, 1], ['red', 'blue', 'green'])
    facts = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert {key: facts[key] for key in ABOUT} == ABOUT
    assert (json.loads(facts['shape']), json.loads(facts['classes'])) == ([2, 1, 3], list(CLASSES))


@pytest.mark.parametrize(
    ('names', 'options', 'words'),
    [
        ([], {'output': 'f.npz'}, 'features of what'),
        (['a.jpg'], {'output': 'f.npz', 'dataset': 'tiny'}, 'features of what'),
        (['a.jpg'], {}, 'no file is named'),
        (['a.jpg'], {'output': 'f.csv'}, r'must end in \.npz or \.parquet'),
        (['a.jpg'], {'output': 'nowhere/f.npz'}, 'there is no folder'),
        (['a.jpg'], {'output': 'f.parquet', 'top': 9}, r'must end in \.npz$'),
        (['a.jpg'], {'output': 'f.npz', 'figure': 'f.png'}, 'give --top=9 too'),
        (['a.jpg'], {'output': 'f.npz', 'figure': 'nowhere/f.png', 'top': 9}, '--figure.*there is no folder'),
    ],
)
def test_extract_features_refuses_before_the_work(names, options, words):
    with pytest.raises(InputError, match=words):
        extract_features(names, NetworkArgs(), layer='fc7', **options)


@pytest.mark.parametrize('files', [False, True])
def test_write_strongest_names_the_images(tmp_path, files):
    records = np.array([[2, 0], [1, 2], [0, 1]])
    found = Strongest(np.ones((3, 2), np.float32), records, np.arange(24, dtype=np.int32).reshape(3, 2, 4))
    write_strongest(tmp_path / 's.npz', found, classes=CLASSES, about=ABOUT, photos=PHOTOS if files else None)
    with np.load(tmp_path / 's.npz', allow_pickle=False) as file:
        images = [['ä.jpg', 'a.jpg'], ['b.jpg', 'ä.jpg'], ['a.jpg', 'b.jpg']] if files else records.tolist()
        assert file['files' if files else 'records'].tolist() == images
        assert file['values'].tolist() == [[1, 1]] * 3 and file['boxes'][2, 1].tolist() == [20, 21, 22, 23]
        assert {key: str(file[key]) for key in ABOUT} == ABOUT


def test_write_features_leaves_no_half_of_a_file(tmp_path):
    def broken():
        yield BATCHES[0]
        raise InputError('a record is damaged')

    for name in ('f.npz', 'f.parquet'):
        with pytest.raises(InputError, match='a record is damaged'):
            write(tmp_path / name, files=False, batches=broken())
    assert list(tmp_path.iterdir()) == []
