"""The layers of a Keras config, written down here as Keras 2 and 3 write it; tests/extras has files of Keras itself."""

import pytest

from alexnet_jax.weights.keras_layers import list_layers
from alexnet_jax.weights.proto_messages import MalformedError

CONV = {'strides': [4, 4], 'padding': 'valid', 'dilation_rate': [1, 1], 'activation': 'relu', 'kernel_size': [11, 11]}
POOL = {'pool_size': [3, 3], 'strides': [2, 2], 'padding': 'valid'}


def keras2(name):
    return [[[name, 0, 0, {}]]]


def keras3(name):
    history = {'class_name': '__keras_tensor__', 'config': {'shape': [None, 3], 'keras_history': [name, 0, 0]}}
    return [{'args': [history], 'kwargs': {}}]


def chain(read, *, pool_reads='c'):
    layers = [
        ('InputLayer', 'x', {}, []),
        ('ZeroPadding2D', 'z', {'padding': [[2, 1], [0, 3]]}, read('x')),
        ('Conv2D', 'c', CONV, read('z')),
        ('MaxPooling2D', 'p', POOL, read(pool_reads)),
        ('Flatten', 'f', {}, read('p')),
        ('Dense', 'd', {'activation': 'softmax'}, read('f')),
    ]
    keys = ('class_name', 'name', 'config', 'inbound_nodes')
    return {'class_name': 'Functional', 'config': {'layers': [dict(zip(keys, one, strict=True)) for one in layers]}}


@pytest.mark.parametrize('read', [keras2, keras3])
def test_list_layers_lists_a_chain(read):
    found = list_layers(chain(read))
    assert [layer.kind for layer in found] == ['Conv', 'Relu', 'MaxPool', 'Flatten', 'Gemm']
    assert found[0].attributes == {'strides': (4, 4), 'pads': (2, 0, 1, 3), 'dilations': (1, 1), 'group': (1,)}
    assert found[2].attributes == {'kernel_shape': (3, 3), 'strides': (2, 2), 'pads': (0, 0, 0, 0)}


@pytest.mark.parametrize('read', [keras2, keras3])
def test_list_layers_refuses_branches(read):
    with pytest.raises(MalformedError, match='its layer p does not read what the one before it gives'):
        list_layers(chain(read, pool_reads='z'))


@pytest.mark.parametrize(
    ('config', 'says'),
    [
        ({'class_name': 'MyModel', 'config': {}}, 'of the class MyModel, and its layers are not in the file'),
        ({'class_name': 'Sequential', 'config': {'layers': [3]}}, r'its config is none of Keras \(AttributeError\)'),
        ([], r'its config is none of Keras \(TypeError\)'),
        (
            {'class_name': 'Sequential', 'config': {'layers': [{'class_name': 'Lambda', 'config': {'name': 'l'}}]}},
            r"its layer l is Lambda, .*model\.save_weights\('FILE\.weights\.h5'\), and --variant",
        ),
    ],
)
def test_list_layers_refuses_other_configs(config, says):
    with pytest.raises(MalformedError, match=says):
        list_layers(config)
