"""MatConvNet's .mat files, as scipy.io.savemat writes them, give the numbers of MatConvNet's own formulas."""

import struct

import numpy as np
import pytest
import scipy.io
from weights.matlab import matconvnet_layers, matlab_cell
from weights.networks import assert_same_params, compute_logits, network

from alexnet_jax.errors import InputError
from alexnet_jax.weights.mat_file import read_mat
from alexnet_jax.weights.open_weights import open_weights
from alexnet_jax.weights.proto_messages import MalformedError

RANDOM = np.random.default_rng(0)
CLASSES = ['tench, Tinca tinca', 'goldfish, Carassius auratus', 'great white shark']
SYNSETS = ['n01440764', 'n01443537', 'n01484850']


def layers_of(params, **options):
    return matconvnet_layers({title: (x['kernel'], x['bias']) for title, x in params.items()}, **options)


def save(path, net, **options):
    scipy.io.savemat(path, net | {'layers': matlab_cell(net['layers'])} if 'layers' in net else net, **options)
    return path


def windows(x, sizes, stride, pad, fill):
    """(rows, columns, channels, height, width) of x (h, w, channels)."""
    top, bottom, left, right = np.broadcast_to(np.ravel(pad), 4).astype(int)
    x = np.pad(x, ((top, bottom), (left, right), (0, 0)), constant_values=fill)
    step = int(np.ravel(stride)[0])
    return np.lib.stride_tricks.sliding_window_view(x, sizes, (0, 1))[::step, ::step]


def simulate(layers, x):
    """vl_simplenn's formulas, vl_nnconv, vl_nnpool, vl_nnnormalize, in float64 on x (h, w, 3), up to the loss."""
    for layer in layers:
        match layer['type']:
            case 'conv':
                kernel, bias = layer['weights'][0] if 'weights' in layer else (layer['filters'], layer['biases'])
                groups = x.shape[2] // kernel.shape[2]
                parts = zip(np.split(x, groups, 2), np.split(np.float64(kernel), groups, 3), strict=True)
                seen = [(windows(a, k.shape[:2], layer['stride'], layer['pad'], 0), k) for a, k in parts]
                x = np.concatenate([np.einsum('ijchw,hwco->ijo', a, k) for a, k in seen], 2) + bias.ravel()
            case 'relu':
                x = np.maximum(x, 0)
            case 'pool':
                x = windows(x, layer['pool'], layer['stride'], layer['pad'], -np.inf).max((3, 4))
            case 'normalize' | 'lrn':
                size, kappa, alpha, beta = layer['param']
                near = [(x[:, :, max(0, c - size // 2) : c + size // 2 + 1] ** 2).sum(2) for c in range(x.shape[2])]
                x = x / (kappa + alpha * np.stack(near, 2)) ** beta
    return x.ravel()


@pytest.mark.parametrize('old', [False, True])
def test_load_matconvnet_gives_the_logits_of_the_struct(tmp_path, old):
    variant = 'caffe_alexnet' if old else 'caffenet'
    layers = layers_of(network(variant).params, norm_first=old, old=old)
    image = RANDOM.uniform(90, 130, (227, 227, 3)).astype('f4')
    more = {
        'normalization': {'averageImage': image if old else image[:1, :1], 'imageSize': [227, 227, 3]},
        'classes': {'name': matlab_cell(SYNSETS), 'description': matlab_cell(CLASSES)},
    }
    net = {'layers': layers} | more
    if not old:
        net = {'net': {'layers': matlab_cell(layers), 'meta': more}, 'stats': {'train': np.zeros((3, 3))}}
    found = open_weights(save(tmp_path / 'w', net, do_compression=not old, oned_as='column'))
    assert (found.name.variant, found.name.width, found.preprocessing) == (variant, 0.0625, 'caffe')
    assert found.classes == tuple(f'{s} {c}' for s, c in zip(SYNSETS, CLASSES, strict=True))
    crop = RANDOM.integers(0, 256, (227, 227, 3)).astype('f4')
    expected = simulate(layers, np.float64(crop - more['normalization']['averageImage']))
    difference = np.abs(compute_logits(found, crop[None])[0] - expected).max() / np.abs(expected).max()
    assert np.ptp(expected) > 0.1 and difference < 1e-5, difference


def test_load_matconvnet_knows_dropped_axes_of_one_and_takes_caffes_mean(tmp_path):
    expected = network('caffe_alexnet', classes=('only',))
    layers = layers_of(expected.params)
    kernel, bias = layers[-2]['weights'][0]
    layers[-2]['weights'] = matlab_cell([kernel[..., 0], bias])  # as MATLAB drops them
    found = open_weights(save(tmp_path / 'w', {'layers': layers}))
    assert_same_params(found.params, expected.params)
    assert found.classes == ('0',)
    assert found.mean_image[3, 5].tolist() == [123, 117, 104]


def change(title, **values):
    return lambda layers: [layer | values if layer['name'] == title else layer for layer in layers]


@pytest.mark.parametrize(
    ('how', 'says'),
    [
        (change('norm1', param=[5, 2, 2e-5, 0.75]), 'LRN norm1 has bias 2.0, and caffe_alexnet 1.0'),
        (change('norm1', param=[5, 1, 1e-4, 0.75]), 'LRN norm1 has alpha 0.0005'),
        (change('conv2', pad=[1, 2, 2, 2]), r'Conv conv2 has pads \(1.0, 2.0, 2.0, 2.0\)'),
        (change('conv1', stride=2), 'Conv conv1 has strides'),
        (change('fc7', pad=1), 'fc7 is no dense layer over 1x1 places'),
        (change('fc6', weights=matlab_cell([np.zeros((4, 9, 16, 256)), np.zeros(256)])), 'no dense layer over 6x6'),
        (change('conv3', weights=matlab_cell([np.zeros((3, 3, 8, 24)), np.zeros(24)])), 'Conv conv3 has group 2.0'),
        (change('conv3', weights=matlab_cell([np.zeros((3, 3, 16, 24)), []])), 'conv3 has no kernel and bias'),
        (change('relu1', leak=0.1), 'layer relu1 is relu, which is none'),
        (change('pool1', method='avg'), 'layer pool1 is pool, which is none'),
        (change('relu2', type='bnorm'), 'layer relu2 is bnorm, which is none'),
        (change('conv1', block='dagnn.Conv'), 'DagNN is not read'),
        (lambda layers: layers[:1] + layers[2:], 'it has LRN norm1 where caffe_alexnet has Relu'),
        (lambda layers: layers[:-2], 'it ends where caffe_alexnet has Gemm'),
        (lambda layers: [*layers, layers[0]], 'has conv1 besides the eight layers'),
    ],
)
def test_load_matconvnet_refuses_other_networks(tmp_path, how, says):
    save(tmp_path / 'w', {'layers': how(layers_of(network('caffe_alexnet').params))})
    with pytest.raises(InputError, match=says) as refused:
        open_weights(tmp_path / 'w')
    assert 'numpy.ascontiguousarray' in str(refused.value) and '\n' not in str(refused.value)


def test_load_matconvnet_refuses_what_holds_no_network(tmp_path):
    save(tmp_path / 'w', {'x': np.zeros(3)})
    with pytest.raises(InputError, match='it has x, and no layers'):
        open_weights(tmp_path / 'w')
    for image, says in ((np.zeros((224, 224, 3)), r'\(224, 224, 3\), not 227x227x3'), ([1, np.nan, 3], 'no pixels')):
        mean = {'normalization': {'averageImage': image}}
        save(tmp_path / 'w', {'layers': layers_of(network('caffe_alexnet').params), 'meta': mean})
        with pytest.raises(InputError, match=f'its averageImage .*{says}'):
            open_weights(tmp_path / 'w')


VALUES = {
    'a': RANDOM.normal(size=(2, 3, 4)),
    'small': np.array([[7]], 'u1'),
    'whole': np.arange(6.0).reshape(2, 3),
    'text': 'grüße',
    'cell': matlab_cell([np.arange(3, dtype='i8')[None], 'x', matlab_cell(['deep'])]),
    'one': {'field': 'x', 'a_longer_field': np.float32([[1.5]])},
    'none': {},  # which MATLAB's struct() is
    'many': np.array([[('x', 1.0), ('y', 2.0)]], [('s', object), ('n', object)]),
    'sparse': scipy.sparse.csc_matrix(np.eye(3)),
}


@pytest.mark.parametrize('compressed', [False, True])
def test_read_mat_reads_what_scipy_writes(tmp_path, compressed):
    scipy.io.savemat(tmp_path / 'w', VALUES, do_compression=compressed)
    found = read_mat(memoryview((tmp_path / 'w').read_bytes()))
    for name in ('a', 'small', 'whole'):
        np.testing.assert_array_equal(found[name], VALUES[name])
    assert found['text'] == 'grüße' and found['sparse'] is None
    assert (found['cell'][0].tolist(), found['cell'][1:]) == ([[0, 1, 2]], ['x', ['deep']])
    assert (found['one']['field'], found['one']['a_longer_field'].tolist()) == ('x', [[1.5]])
    assert found['none'] == {}
    assert [(x['s'], x['n'].item()) for x in found['many']] == [('x', 1), ('y', 2)]


def test_read_mat_refuses_what_is_deep_large_or_cut(tmp_path):
    deep = matlab_cell(['x'])
    for _ in range(9):
        deep = matlab_cell([deep])
    for values, says in (({'a': deep}, 'more than 8 deep'), ({'a': np.zeros(400_000)}, 'unpacks to more than')):
        scipy.io.savemat(tmp_path / 'w', values, do_compression=True)
        with pytest.raises(MalformedError, match=says):
            read_mat(memoryview((tmp_path / 'w').read_bytes()))
    scipy.io.savemat(tmp_path / 'w', {'none': {}, 'neither': {}})
    content, tag = (tmp_path / 'w').read_bytes(), struct.pack('<2I', 5, 8)  # of two sizes
    for side, count in ((2**20, 2**40), (2**8, 2**16)):  # the latter are too many together
        forged = content.replace(tag + struct.pack('<2I', 1, 1), tag + struct.pack('<2I', side, side))
        with pytest.raises(MalformedError, match=f'a struct of {count:,}'):
            read_mat(memoryview(forged))
    scipy.io.savemat(tmp_path / 'w', VALUES)
    content = (tmp_path / 'w').read_bytes()
    with pytest.raises(MalformedError, match='cut short'):
        read_mat(memoryview(content[:-9]))
