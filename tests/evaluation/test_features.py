"""Features of single stages against the plain network, on meshes; the files they are written to."""

import json

import jax
import numpy as np
import oracle
import pyarrow.parquet as pq
import pytest
from random_networks import CLASSES, network_of
from simplejpeg import decode_jpeg

from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.feature_files import About, check_output, write_features
from alexnet_jax.evaluation.features import find_stage, format_stages, iter_features
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.sharding.mesh import make_mesh


@pytest.fixture(scope='module')
def network():
    return network_of()


@pytest.fixture(scope='module')
def expected(network, tiny):
    """By the plain network's functions: some stages of all 13 validation images' centre crops."""
    images = np.stack([decode_jpeg(jpeg)[16:240, 16:240] for jpeg, _ in tiny.records('validation')]).astype(np.float32)
    p = network.params

    @jax.jit
    def plain(x):
        conv1 = oracle.FIRST['released'](oracle.conv(x, p['conv1'], stride=4, pad=((0, 3), (0, 3))))
        x = conv2 = oracle.SECOND['released'](oracle.conv(conv1, p['conv2'], pad=((2, 2), (2, 2)), groups=2))
        for name, groups in (('conv3', 1), ('conv4', 2), ('conv5', 2)):
            x = oracle.relu(oracle.conv(x, p[name], pad=((1, 1), (1, 1)), groups=groups))
        fc6 = oracle.relu(oracle.pool(x).reshape(len(x), -1) @ p['fc6']['kernel'] + p['fc6']['bias']) * 0.5
        fc7 = oracle.relu(fc6 @ p['fc7']['kernel'] + p['fc7']['bias']) * 0.5
        return {'conv2': conv2, 'conv5/relu': x, 'fc7': fc7, 'fc8': fc7 @ p['fc8']['kernel'] + p['fc8']['bias']}

    return plain(images - network.mean_image)


@pytest.mark.parametrize(
    ('shape', 'layer'),
    [((1, 1), 'conv5/relu'), ((1, 2), 'conv2'), ((2, 2), 'fc7'), ((1, 2), 'fc8')],
)
def test_features_equal_the_plain_network_s(network, tiny, expected, shape, layer):
    """Towers put together in their order, units halved, 13 images in batches of 4."""
    records, told = tiny.records('validation'), []
    stage = find_stage(network.variant, layer)
    found = list(iter_features(network, make_mesh(*shape), records, stage=stage, batch_size=4, progress=told.append))
    rows = np.concatenate([rows for rows, _ in found])
    scale = np.abs(expected[layer]).max()
    assert scale > 0.1
    np.testing.assert_allclose(rows / scale, expected[layer] / scale, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in found]), [label for _, label in records])
    assert told == [4, 8, 12, 13]


def test_a_layer_is_its_last_stage():
    assert find_stage(VARIANTS['released'], 'conv1') == 'conv1/relu'
    assert find_stage(VARIANTS['paper'], 'conv1') == 'conv1/pool'
    assert find_stage(VARIANTS['paper'], 'conv1/norm') == 'conv1/norm'
    assert find_stage(VARIANTS['one_weird_trick'], 'fc7') == 'fc7/relu'
    for layer in ('pool5', 'conv', 'fc7/', ''):
        with pytest.raises(InputError, match='--layer=help lists them'):
            find_stage(VARIANTS['paper'], layer)


def test_the_list_has_all_of_them(network):
    lines = format_stages(network).splitlines()
    assert len(lines) == 23
    assert lines[2].split() == ['conv1/pool', '27x27x6', '4,374']
    assert lines[-2].split() == ['fc7/dropout', '256', '256', '=', 'fc7']


BATCHES = [(np.arange(12, dtype=np.float32).reshape(2, 2, 1, 3), np.array([2, 0], np.int32))]
BATCHES += [(np.full((1, 2, 1, 3), 7, np.float32), np.array([1], np.int32))]
ROWS = np.concatenate([rows for rows, _ in BATCHES])


def about(**changes):
    known = {'layer': 'conv5/pool', 'network': 'runs/x, step 3', 'images': 'tiny, validation', 'classes': CLASSES}
    return About(**{**known, 'names': None, 'labels': None, **changes})


@pytest.mark.parametrize('files', [False, True])
def test_npz(tmp_path, files):
    given = about(names=('a.jpg', 'b.jpg', 'ä.jpg'), labels=np.array([-1, 2, 0], np.int32)) if files else about()
    write_features(tmp_path / 'f.npz', BATCHES, given, shape=(2, 1, 3))
    with np.load(tmp_path / 'f.npz', allow_pickle=False) as file:
        np.testing.assert_array_equal(file['features'], ROWS)
        assert file['labels'].tolist() == ([-1, 2, 0] if files else [2, 0, 1])
        assert (file['files'] if files else file['records']).tolist() == (list(given.names) if files else [0, 1, 2])
        assert [str(file[key]) for key in ('layer', 'network', 'images')] == [given.layer, given.network, given.images]
        assert file['classes'].tolist() == list(CLASSES)
    assert [path.name for path in tmp_path.iterdir()] == ['f.npz']


@pytest.mark.parametrize('files', [False, True])
def test_parquet(tmp_path, files):
    given = about(names=('a.jpg', 'b.jpg', 'ä.jpg'), labels=np.array([-1, 2, 0], np.int32)) if files else about()
    write_features(tmp_path / 'f.parquet', BATCHES, given, shape=(2, 1, 3))
    table = pq.read_table(tmp_path / 'f.parquet')
    columns = table.to_pydict()
    np.testing.assert_array_equal(np.array(columns['features']).reshape(3, 2, 1, 3), ROWS)
    if files:
        assert columns['file'] == list(given.names)
        assert (columns['label'], columns['class']) == ([None, 2, 0], [None, 'red', 'blue'])
    else:
        assert columns['record'] == [0, 1, 2]
        assert (columns['label'], columns['class']) == ([2, 0, 1], ['red', 'blue', 'green'])
    facts = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert {key: facts[key] for key in ('layer', 'network', 'images')} == {
        key: getattr(given, key) for key in ('layer', 'network', 'images')
    }
    assert (json.loads(facts['shape']), json.loads(facts['classes'])) == ([2, 1, 3], list(CLASSES))


def test_a_file_that_cannot_be_is_refused_before_the_work(tmp_path):
    with pytest.raises(InputError, match=r'must end in \.npz or \.parquet'):
        check_output(tmp_path / 'f.csv')
    with pytest.raises(InputError, match='there is no folder'):
        check_output(tmp_path / 'nowhere' / 'f.npz')


def test_what_stops_half_way_leaves_no_file(tmp_path):
    def broken():
        yield BATCHES[0]
        raise InputError('a record is damaged')

    for name in ('f.npz', 'f.parquet'):
        with pytest.raises(InputError, match='a record is damaged'):
            write_features(tmp_path / name, broken(), about(), shape=(2, 1, 3))
    assert list(tmp_path.iterdir()) == []
