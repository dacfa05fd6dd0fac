"""bvlc_alexnet.npy, in every form that Python has pickled it, gives Caffe's network; nothing of it is run."""

import io
import os
import pickle
import struct

import numpy as np
import pytest
from weights.foreign import caffe_weights
from weights.networks import assert_same_params, network

from alexnet_jax.errors import InputError
from alexnet_jax.weights.convert import convert
from alexnet_jax.weights.open_weights import open_weights


class Python2Pickler(pickle._Pickler):
    """Texts and bytes as Python 2's protocol 2 wrote its one kind of string."""

    def save_string(self, value):
        data = value.encode('latin1') if isinstance(value, str) else value
        size = struct.pack('<B' if len(data) < 256 else '<i', len(data))
        self.write((b'U' if len(data) < 256 else b'T') + size + data)
        self.memoize(value)

    dispatch = pickle._Pickler.dispatch | {str: save_string, bytes: save_string}


def pickle_python2(value):
    data = io.BytesIO()
    Python2Pickler(data, 2).dump(value)
    return data.getvalue().replace(b'numpy._core', b'numpy.core')


def make_dictionary(params, *, named):
    """As caffe-tensorflow's DataReshaper makes it of Caffe's arrays: all transposed, and fc6 reordered."""
    found = {}
    for title, (kernel, bias) in caffe_weights(params).items():
        if title == 'fc6':
            kernel = kernel.reshape(len(kernel), -1, 6, 6).transpose(2, 3, 1, 0).reshape(-1, len(kernel))
        else:
            kernel = kernel.transpose((2, 3, 1, 0) if kernel.ndim == 4 else (1, 0))
        found[title] = {'weights': kernel, 'biases': bias} if named else [kernel, bias]
    return found


def save_npy(path, value, pickled, *, descr="'|O'"):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (), }}".ljust(117) + '\n'
    path.write_bytes(b'\x93NUMPY\x01\0' + struct.pack('<H', len(header)) + header.encode() + pickled(value))


WRITERS = {
    'numpy.save': lambda path, value: np.save(path.open('wb'), value),
    'numpy.save of Python 2': lambda path, value: save_npy(path, np.array(value), pickle_python2),
    'pickle.dump': lambda path, value: path.write_bytes(pickle.dumps(value, 4)),
    'pickle.dump, protocol 5': lambda path, value: path.write_bytes(pickle.dumps(value, 5)),
    'pickle.dump, protocol 2': lambda path, value: path.write_bytes(pickle.dumps(value, 2)),
    'pickle.dump of Python 2': lambda path, value: path.write_bytes(pickle_python2(value)),
}


@pytest.mark.parametrize('writer', WRITERS)
def test_load_dictionary_gives_caffes_network(tmp_path, writer):
    net = network('caffe_alexnet', width=0.03125)
    WRITERS[writer](tmp_path / 'w', make_dictionary(net.params, named='2' in writer))
    with pytest.raises(
        InputError, match=r'--variant=caffe_alexnet --to=safetensors .*or --variant=caffenet'
    ) as refused:
        open_weights(tmp_path / 'w')
    assert '\n' not in str(refused.value)
    found = open_weights(tmp_path / 'w', variant='caffe_alexnet')
    assert_same_params(found.params, net.params)
    assert (found.name, found.preprocessing, found.classes) == (net.name, 'caffe', ('0', '1', '2'))
    assert found.mean_image[3, 5].tolist() == [123, 117, 104]


def test_save_dictionary_writes_what_ports_load(tmp_path):
    net, path = network('caffenet', width=0.03125), tmp_path / 'w.npy'
    text = convert(net, to='npy', output=path)
    assert text.splitlines()[-1].endswith(f'BGR, 0..255, minus {", ".join(mean_colour(net)[::-1])}')
    found = np.load(path, allow_pickle=True, encoding='latin1').item()
    for title, arrays in make_dictionary(net.params, named=False).items():
        for one, other in zip(found[title], arrays, strict=True):
            np.testing.assert_array_equal(one, other)
    assert_same_params(open_weights(path, variant='caffenet').params, net.params)
    for other in (network('released', width=0.03125), network('caffenet', width=0.03125, without=('norm2',))):
        with pytest.raises(InputError, match=r'compute caffe_alexnet or caffenet, and this is .* --to=onnx'):
            convert(other, to='npy', output=tmp_path / 'no')
    assert [file.name for file in tmp_path.iterdir()] == ['w.npy']


def mean_colour(net):
    return [f'{value:.1f}' for value in np.float64(net.mean_image).mean((0, 1))]


class Hostile:
    def __reduce__(self):
        return os.mkdir, ('ran',)


@pytest.mark.parametrize(
    ('value', 'says'),
    [
        (Hostile(), 'a Unread where an array belongs'),
        ({'conv1': [np.zeros(3), Hostile()]}, 'a Unread where an array belongs'),
        ({'conv1_1': [np.zeros((3, 3)), np.zeros(3)]}, 'it has conv1_1/0, conv1_1/1'),
        ({}, 'it has no arrays'),
        ([[[{'a': [np.zeros(1)] * 200}] * 9] * 9] * 9, 'more than 10,000 arrays'),
    ],
)
def test_load_dictionary_refuses_anything_else_and_runs_nothing(tmp_path, monkeypatch, value, says):
    monkeypatch.chdir(tmp_path)
    for content in (value, np.array(value, object) if isinstance(value, dict) else value):
        (tmp_path / 'w').write_bytes(pickle.dumps(content, 4))
        with pytest.raises(InputError, match=says) as refused:
            open_weights(tmp_path / 'w')
        assert 'numpy.ascontiguousarray' in str(refused.value) and '\n' not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ['w']


def test_load_dictionary_refuses_other_shapes_and_damage(tmp_path):
    arrays = make_dictionary(network('caffe_alexnet', width=0.03125).params, named=False)
    arrays['conv2'][0] = np.concatenate([arrays['conv2'][0]] * 2, 2)  # not in two groups
    np.save((tmp_path / 'w').open('wb'), arrays)
    with pytest.raises(InputError, match=r'conv2/kernel is \(5, 5, 4, 8\), not \(5, 5, 2, 8\)'):
        open_weights(tmp_path / 'w', variant='caffenet')
    (tmp_path / 'w').write_bytes((tmp_path / 'w').read_bytes()[:-99])
    with pytest.raises(InputError, match='its pickle is damaged'):
        open_weights(tmp_path / 'w', variant='caffenet')
