"""Caffe's files, written by the tests' own encoder, come back as the networks that they are."""

import numpy as np
import pytest
from weights.foreign import blob, caffe_weights, caffemodel, field
from weights.networks import assert_same_params, network

from alexnet_jax.errors import InputError
from alexnet_jax.weights.open_weights import open_weights

FORMS = {
    'as Caffe writes today': {},
    'before BlobShape': {'legacy': True, 'v1': True},
    'unpacked': {'packed': False},
    'unpacked doubles before BlobShape': {'packed': False, 'double': True, 'legacy': True},
    'doubles': {'double': True},
}


@pytest.mark.parametrize('form', FORMS)
def test_load_caffe_reads_every_form_exactly(tmp_path, form):
    original = network('caffe_alexnet', classes=('a', 'b', 'c'))
    (tmp_path / 'm').write_bytes(caffemodel(caffe_weights(original.params), **FORMS[form]))
    found = open_weights(tmp_path / 'm')
    assert found.name == original.name
    assert found.classes == ('0', '1', '2')
    assert_same_params(found.params, original.params)


@pytest.mark.parametrize('v1', [False, True])
@pytest.mark.parametrize(('norm_first', 'variant'), [(True, 'caffe_alexnet'), (False, 'caffenet')])
def test_load_caffe_infers_the_variant_from_the_layers(tmp_path, norm_first, variant, v1):
    weights = caffe_weights(network('caffenet').params)
    (tmp_path / 'm').write_bytes(caffemodel(weights, name='mine', norm_first=norm_first, v1=v1))
    assert open_weights(tmp_path / 'm').name.variant == variant
    other = {'caffenet': 'caffe_alexnet', 'caffe_alexnet': 'caffenet'}[variant]
    with pytest.raises(InputError, match=f'says that it is {variant}, not --variant={other}'):
        open_weights(tmp_path / 'm', variant=other)


def test_load_caffe_takes_the_variant_from_name_or_user(tmp_path):
    weights = caffe_weights(network('caffenet').params)
    (tmp_path / 'm').write_bytes(caffemodel(weights, name='CaffeNet', order=False))
    assert open_weights(tmp_path / 'm').name.variant == 'caffenet'
    (tmp_path / 'm').write_bytes(caffemodel(weights, name='mine', order=False))
    assert open_weights(tmp_path / 'm', variant='caffe_alexnet').name.variant == 'caffe_alexnet'
    words = (
        'does not say which network it is: .* --variant=caffe_alexnet --to=safetensors --output=.* --variant=caffenet'
    )
    with pytest.raises(InputError, match=words):
        open_weights(tmp_path / 'm')
    with pytest.raises(InputError, match='it may be --variant=caffe_alexnet or caffenet'):
        open_weights(tmp_path / 'm', variant='paper')


def test_parse_mean_reads_colours_and_binaryproto(tmp_path):
    (tmp_path / 'm').write_bytes(caffemodel(caffe_weights(network('caffenet').params)))
    assert open_weights(tmp_path / 'm').preprocessing == 'caffe'
    usual = open_weights(tmp_path / 'm').mean_image
    assert usual.shape == (227, 227, 3) and usual.dtype == np.float32
    np.testing.assert_array_equal(usual, np.broadcast_to([123, 117, 104], usual.shape))
    given = open_weights(tmp_path / 'm', mean='10,20.5,30').mean_image
    np.testing.assert_array_equal(given, np.broadcast_to([10, 20.5, 30], given.shape))
    rgb = np.random.default_rng(0).uniform(0, 255, (256, 256, 3)).astype(np.float32)
    (tmp_path / 'mean').write_bytes(blob(rgb[..., ::-1].transpose(2, 0, 1)[None], legacy=True))
    image = open_weights(tmp_path / 'm', mean=str(tmp_path / 'mean')).mean_image
    np.testing.assert_array_equal(image, rgb)  # whole: each crop has its own part of it


@pytest.mark.parametrize(
    ('mean', 'says'),
    [
        ('1,2', 'cannot be read: No such file'),
        ('1,2,300', 'pixels are 0..255'),
        ('1.1.1,2,3', 'three numbers of 0..255'),
        ('SMALL', r'is an image of \(3, 10, 10\)'),
        ('LARGE', 'holds values that are no pixels'),
        ('OTHER', 'is no .binaryproto of Caffe'),
    ],
)
def test_parse_mean_refuses_what_is_no_mean(tmp_path, mean, says):
    (tmp_path / 'm').write_bytes(caffemodel(caffe_weights(network('caffenet').params)))
    (tmp_path / 'SMALL').write_bytes(blob(np.ones((1, 3, 10, 10))))
    (tmp_path / 'LARGE').write_bytes(blob(np.full((1, 3, 227, 227), 256.0)))
    (tmp_path / 'OTHER').write_bytes(b'a file of text')
    with pytest.raises(InputError, match=says):
        open_weights(tmp_path / 'm', mean=str(tmp_path / mean) if mean.isupper() else mean)


def changed(weights, **layers):
    return caffemodel(weights | layers)


def test_load_caffe_refuses_other_networks_in_one_line(tmp_path):
    weights = caffe_weights(network('caffenet').params)
    kernel, bias = weights['conv2']
    ungrouped = np.concatenate([kernel, kernel], axis=1)
    lying = field(100, field(2, 'Convolution') + field(7, field(7, field(1, b'\x05')) + field(5, b'\0' * 8)))
    for data, says in [
        (changed(weights, conv2=(ungrouped, bias)), r'conv2/kernel is \(5, 5, 6, 16\), not \(5, 5, 3, 16\)'),
        (changed(weights, conv2=(kernel, bias[:-1])), r'conv2/bias is \(15,\)'),
        (changed(weights, fc8=(weights['fc8'][0],)), 'not 8 with a kernel and a bias each'),
        (changed(weights, fc6=(weights['fc6'][0] * np.inf, weights['fc6'][1])), 'fc6/kernel holds non-finite values'),
        (lying, r'an array of \(5,\) with 2 numbers'),
        (caffemodel(weights)[:-1000], 'of weights that is known here'),
    ]:
        (tmp_path / 'm').write_bytes(data)
        with pytest.raises(InputError, match=says) as refused:
            open_weights(tmp_path / 'm')
        assert len(str(refused.value).splitlines()) == 1


def replace(title, **given):
    """Changes the layer of that name: its type, its parameters."""

    def change(layers):
        return [
            [name, given.get('kind', kind), given.get('parameters', parameters), arrays] if name == title else layer
            for layer in layers
            for name, kind, parameters, arrays in [layer]
        ]

    return change


def insert(after, layer):
    return lambda layers: [one for found in layers for one in ([found, layer] if found[0] == after else [found])]


@pytest.mark.parametrize('v1', [False, True])
@pytest.mark.parametrize(
    ('change', 'says'),
    [
        (replace('relu3', kind='Sigmoid'), 'its layer relu3 is Sigmoid, which is none that is known there'),
        (replace('relu7', kind='TanH'), 'its layer relu7 is TanH'),
        (
            replace('pool2', parameters=field(1, 1) + field(2, 3) + field(3, 2)),
            'a pooling of averages or samples pool2',
        ),
        (replace('conv2', parameters=field(3, 2) + field(4, 5)), r'Conv conv2 has group 1\.0, and caffe_alexnet 2\.0'),
        (replace('conv1', parameters=field(4, 11) + field(6, 2)), r'Conv conv1 has strides \(2\.0, 2\.0\)'),
        (replace('norm1', parameters=field(1, 5)), r'LRN norm1 has alpha 1\.0'),
        (insert('fc8', ['late', 'ReLU', b'', ()]), 'it has Relu late where caffe_alexnet has nothing more'),
        (
            lambda layers: [layer for layer in layers if layer[0] != 'relu4'],
            'has Conv conv5 where caffe_alexnet has Relu',
        ),
        (
            lambda layers: [layer for layer in layers if layer[0] != 'pool5'],
            'has Flatten fc6 where caffe_alexnet has MaxP',
        ),
    ],
)
def test_load_caffe_refuses_another_layer_by_name(tmp_path, change, says, v1):
    weights = caffe_weights(network('caffe_alexnet', width=0.03125).params)
    (tmp_path / 'm').write_bytes(caffemodel(weights, change=change, v1=v1))
    with pytest.raises(InputError, match=f'{says}.*Read are bvlc_alexnet and'):
        open_weights(tmp_path / 'm')


def test_load_caffe_says_how_to_upgrade_its_oldest_form(tmp_path):
    """V0: the layer is in a message of its own, field 1 of V1LayerParameter."""
    (tmp_path / 'm').write_bytes(field(1, 'CaffeNet') + field(2, field(1, field(1, 'conv1') + field(2, 'conv'))))
    with pytest.raises(InputError, match=r"upgrade it with Caffe's upgrade_net_proto_binary"):
        open_weights(tmp_path / 'm')


def test_load_caffe_refuses_scaled_pixels(tmp_path):
    weights = caffe_weights(network('caffe_alexnet', width=0.03125).params)
    scaled = field(100, b'\x0d' + np.float32(1 / 256).tobytes())  # transform_param { scale }
    data = field(100, scaled + field(1, 'data') + field(2, 'Data') + field(4, 'data'))
    (tmp_path / 'm').write_bytes(caffemodel(weights, change=lambda layers: layers[1:]) + data)
    with pytest.raises(InputError, match=r'its layer data multiplies pixels by 0\.00390625'):
        open_weights(tmp_path / 'm')
