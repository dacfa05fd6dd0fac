"""This project's own weight files: everything comes back bit for bit, and the library of the format reads the same."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy
from weights.networks import assert_same, network

from alexnet_jax.errors import InputError
from alexnet_jax.model.spec import Sigmoid
from alexnet_jax.model.zoo import NETWORKS
from alexnet_jax.weights import safetensors_file
from alexnet_jax.weights.open_weights import open_weights
from alexnet_jax.weights.safetensors_file import SAVE_ARRAYS

CASES = [*((variant, ()) for variant in NETWORKS), ('released', ('norm2', 'overlap')), ('caffenet', ('exchange',))]


@pytest.mark.parametrize(('variant', 'without'), CASES)
def test_save_safetensors_comes_back_bit_for_bit(tmp_path, variant, without):
    saved = network(variant, without=without)
    safetensors_file.save_safetensors(saved, tmp_path / 'w.safetensors')
    assert_same(open_weights(tmp_path / 'w.safetensors'), saved)


def test_save_safetensors_keeps_the_units(tmp_path):
    saved, path = network('released', activation='sigmoid'), tmp_path / 'w.safetensors'
    safetensors_file.save_safetensors(saved, path)
    assert_same(open_weights(path), saved)
    assert open_weights(path).variant.activation == Sigmoid()
    path.write_bytes(path.read_bytes().replace(b'"activation":"sigmoid"', b'"activation":"swishes"'))
    with pytest.raises(InputError, match=r'holds a network that this version does not know: released \(\) swishes'):
        open_weights(path)


def test_save_safetensors_is_read_by_the_library(tmp_path):
    saved = network('released')
    safetensors_file.save_safetensors(saved, tmp_path / 'w.safetensors')
    with safetensors.safe_open(tmp_path / 'w.safetensors', framework='numpy') as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
        metadata = file.metadata()
    expected = {f'{layer}/{part}': x for layer, parts in saved.params.items() for part, x in parts.items()}
    expected['mean_image'] = saved.mean_image
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes(), name
    assert (metadata['variant'], metadata['width'], metadata['channel_order']) == ('released', '0.0625', 'RGB')
    assert json.loads(metadata['classes']) == ['blue', 'green', 'red']
    assert (metadata['input_size'], metadata['record_size']) == ('224', '256')
    np.testing.assert_allclose(json.loads(metadata['mean_rgb']), [120, 110, 100], atol=2)
    assert json.loads(metadata['pixel_std']) == [1, 1, 1]


def test_save_safetensors_is_deterministic(tmp_path):
    for name in ('a', 'b'):
        safetensors_file.save_safetensors(network('paper'), tmp_path / name)
    assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a', 'b']


def test_open_weights_finds_a_flipped_bit(tmp_path):
    path = tmp_path / 'w.safetensors'
    safetensors_file.save_safetensors(network('paper'), path)
    data = bytearray(path.read_bytes())
    for place in (len(data) // 3, len(data) - 5):  # a weight, the mean image
        data[place] ^= 1
        path.write_bytes(data)
        with pytest.raises(InputError, match=r'is damaged: its weights do not have the hash'):
            open_weights(path)
        data[place] ^= 1


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        ({'alexnet_jax': 'weights 2'}, "holds 'weights 2', and this version reads 'weights 1'"),
        ({'variant': 'vgg'}, 'a network that this version does not know: vgg'),
        ({'width': '1e9'}, 'is damaged: width'),
        ({'width': '0.125'}, 'does not hold the weights of paper, width 0.125: conv1/bias is'),
        ({'variant': 'caffenet'}, 'wants crops of 224 over'),
        ({'classes': '["a"]'}, '1 classes for 3 outputs'),
        ({'classes': '[1, 2, 3]'}, 'its metadata cannot be read'),
        ({'about': '[' * 100_000}, 'its metadata cannot be read'),
        ({'mean_rgb': '[1, 2, NaN]'}, 'is damaged: width 0.0625, mean_rgb'),
    ],
)
def test_parse_metadata_refuses_contradictions_in_one_line(tmp_path, change, says):
    path = tmp_path / 'w.safetensors'
    safetensors_file.save_safetensors(network('paper'), path)
    arrays, metadata = safetensors_file.read_safetensors(path)
    safetensors_file.write_safetensors(arrays, metadata | change, path)
    with pytest.raises(InputError) as refused:
        open_weights(path)
    assert says in str(refused.value) and len(str(refused.value).splitlines()) == 1


def test_open_weights_takes_an_earlier_file_of_11pct_as_its_draft(tmp_path):
    path = tmp_path / 'w.safetensors'
    safetensors_file.save_safetensors(network('cifar10_11pct_draft'), path)
    arrays, metadata = safetensors_file.read_safetensors(path)
    assert metadata.pop('mean_at') == 'centre'
    safetensors_file.write_safetensors(arrays, metadata | {'variant': 'cifar10_11pct'}, path)
    assert open_weights(path).name.variant == 'cifar10_11pct_draft'


def test_open_weights_knows_what_squares_they_were_trained_on(tmp_path):
    """Of files of earlier versions: a run's were made in one way, those of others by their own programs."""
    path = tmp_path / 'w.safetensors'
    for saved, then in ((network('caffenet'), 'paper'), (dataclasses.replace(network('caffenet'), about={}), 'caffe')):
        for preprocessing in ('torchvision', 'paper'):
            safetensors_file.save_safetensors(dataclasses.replace(saved, preprocessing=preprocessing), path)
            assert open_weights(path).preprocessing == preprocessing
        arrays, metadata = safetensors_file.read_safetensors(path)
        assert metadata['resize'] == 'shorter side to 256, bicubic with antialiasing; centre 256x256'
        del metadata['preprocessing']
        safetensors_file.write_safetensors(arrays, metadata, path)
        assert open_weights(path).preprocessing == then


def test_save_safetensors_keeps_a_mean_image_as_large_as_records(tmp_path):
    saved, path = network('caffenet'), tmp_path / 'w.safetensors'
    mean = np.random.default_rng(0).uniform(90, 130, (256, 256, 3)).astype(np.float32)
    safetensors_file.save_safetensors(dataclasses.replace(saved, mean_image=mean), path)
    assert safetensors_file.read_safetensors(path)[1]['mean_at'] == 'crop'
    np.testing.assert_array_equal(open_weights(path).mean_image, mean)


def test_check_params_refuses_non_finite_values(tmp_path):
    damaged = network('paper')
    damaged.params['conv3']['kernel'][0, 0, 0, 0] = np.nan
    safetensors_file.save_safetensors(damaged, tmp_path / 'w.safetensors')
    with pytest.raises(InputError, match='conv3/kernel holds non-finite values'):
        open_weights(tmp_path / 'w.safetensors')


def test_open_weights_refuses_what_is_no_file_of_weights(tmp_path):
    (tmp_path / 'notes.txt').write_text('conv1 is the first layer\n')
    (tmp_path / 'empty').write_bytes(b'')
    for name, says in [
        ('notes.txt', 'is no file of weights'),
        ('empty', 'it is empty'),
        ('none', 'No such file'),
        ('.', 'folder'),
    ]:
        with pytest.raises(InputError, match=says):
            open_weights(tmp_path / name)
    safetensors_file.save_safetensors(network('paper'), tmp_path / 'w')
    with pytest.raises(InputError, match='holds paper, not --variant=released'):
        open_weights(tmp_path / 'w', variant='released')
    with pytest.raises(InputError, match='--variant=vgg: there is no such network'):
        open_weights(tmp_path / 'w', variant='vgg')


def test_save_safetensors_leaves_nothing_of_a_failure(tmp_path):
    with pytest.raises(InputError, match='cannot write'):
        safetensors_file.save_safetensors(network('paper'), tmp_path / 'nowhere' / 'w')
    odd = network('paper')
    odd = dataclasses.replace(odd, params=odd.params | {'conv1': {'kernel': np.zeros(1), 'bias': np.zeros(1)}})
    with pytest.raises(TypeError):
        safetensors_file.save_safetensors(odd, tmp_path / 'w')
    assert list(tmp_path.iterdir()) == []


def test_save_arrays_writes_what_loadmat_gives(tmp_path):
    """The command of the messages, run: MATLAB's arrays, and those of a transposition, lie in another order."""
    arrays = {
        'features.0.weight': np.asfortranarray(np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)),
        'classifier.1.weight': np.arange(6.0, dtype=np.float32).reshape(2, 3).T,
    }
    expected = {name: array.tolist() for name, array in arrays.items()}
    eval(SAVE_ARRAYS, {'safetensors': safetensors, 'numpy': np, 'arrays': arrays, 'FILE': tmp_path / 'w'})
    found = safetensors.numpy.load_file(tmp_path / 'w')
    assert {name: array.tolist() for name, array in found.items()} == expected
