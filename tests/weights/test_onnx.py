"""ONNX files without the onnx package: what is written here, is read back. Oracles: tests/extras/test_onnx.py."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from weights.foreign import attribute, bvlc_onnx, caffe_weights, field, filled, graph, node
from weights.networks import assert_same, assert_same_params, network

from alexnet_jax.errors import InputError
from alexnet_jax.files import map_file
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.weights import onnx_write
from alexnet_jax.weights.onnx_read import Model, parse_tensor
from alexnet_jax.weights.onnx_write import ONNX
from alexnet_jax.weights.open_weights import open_weights
from alexnet_jax.weights.proto_messages import MalformedError, parse_message


@pytest.mark.parametrize(
    ('variant', 'without'),
    [
        *((variant, ()) for variant in (*VARIANTS, 'cifar10_18pct', 'deep5')),
        ('paper', ('conv3_exchange', 'dropout')),
        ('caffenet', ('towers',)),
    ],
)
def test_save_onnx_comes_back_bit_for_bit(tmp_path, variant, without):
    saved = network(variant, without=without)
    onnx_write.save_onnx(saved, tmp_path / 'w.onnx')
    assert_same(open_weights(tmp_path / 'w.onnx'), saved)


def test_save_onnx_comes_back_with_its_units(tmp_path):
    saved = network('released', activation='sigmoid')
    onnx_write.save_onnx(saved, tmp_path / 'w.onnx')
    assert_same(open_weights(tmp_path / 'w.onnx'), saved)


def test_save_onnx_keeps_the_centre_of_a_record_s_mean(tmp_path):
    saved = network('caffenet')
    mean = np.random.default_rng(0).uniform(90, 130, (256, 256, 3)).astype(np.float32)
    onnx_write.save_onnx(dataclasses.replace(saved, mean_image=mean), tmp_path / 'w.onnx')
    assert_same(open_weights(tmp_path / 'w.onnx'), dataclasses.replace(saved, mean_image=mean[14:241, 14:241]))


def test_save_onnx_refuses_locally_connected_layers(tmp_path):
    with pytest.raises(InputError, match='ONNX has no locally connected layer, such as local3: use --to=stablehlo'):
        onnx_write.save_onnx(network('cifar10_13pct'), tmp_path / 'w.onnx')
    with pytest.raises(InputError, match='at the edge sums up by its pixels alone: use --to=stablehlo'):
        onnx_write.save_onnx(network('cifar10_80sec_published'), tmp_path / 'w.onnx')
    assert not [*tmp_path.iterdir()]


def test_save_onnx_refuses_what_protobuf_cannot_read(tmp_path, monkeypatch):
    saved = network('paper')
    numbers = sum(x.size for x in jax.tree.leaves(saved.params)) + saved.mean_image.size + 1  # and what dropout keeps
    monkeypatch.setattr(onnx_write, 'MAX_BYTES', 4 * numbers)
    onnx_write.save_onnx(saved, tmp_path / 'w.onnx')
    monkeypatch.setattr(onnx_write, 'MAX_BYTES', 4 * numbers - 1)
    with pytest.raises(InputError, match='too large for ONNX, which ends at 2 GiB: use --to=safetensors'):
        onnx_write.save_onnx(saved, tmp_path / 'other')
    assert [path.name for path in tmp_path.iterdir()] == ['w.onnx']


def test_save_onnx_writes_metadata(tmp_path):
    onnx_write.save_onnx(network('one_weird_trick'), tmp_path / 'w.onnx')
    model = Model(map_file(tmp_path / 'w.onnx'))
    assert model.metadata['variant'] == 'one_weird_trick'
    assert json.loads(model.metadata['classes']) == ['blue', 'green', 'red']
    assert json.loads(model.metadata['pixel_std']) == pytest.approx([58.395, 57.12, 57.375])
    assert (model.inputs, model.sizes) == (['images'], (0, 3, 224, 224))
    assert [node.op_type for node in model.nodes[:3]] == ['Sub', 'Div', 'Conv']


def test_load_onnx_reads_caffes_graph_exactly(tmp_path):
    original = network('caffe_alexnet')
    (tmp_path / 'w').write_bytes(bvlc_onnx(caffe_weights(original.params)))
    found = open_weights(tmp_path / 'w')
    assert found.name == original.name
    assert_same_params(found.params, original.params)
    assert found.mean_image[0, 0].tolist() == [123, 117, 104]


def test_load_onnx_finds_a_flipped_bit(tmp_path):
    path = tmp_path / 'w.onnx'
    onnx_write.save_onnx(network('paper'), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match='do not have the hash that it names'):
        open_weights(path)


def bvlc(*constants):
    conv = [node('Conv', ['x', f'w{i}', f'b{i}'], f'y{i}') for i in range(5)]
    gemm = [node('Gemm', ['x', f'w{i}', f'b{i}'], f'y{i}') for i in range(5, 8)]
    return graph(*constants, *conv, *gemm, field(11, field(1, 'x')))


@pytest.mark.parametrize(
    ('data', 'says'),
    [
        (graph(node('Conv', ['x'], 'y')), '1 Conv and Gemm, not five and three'),
        (graph(field(1, field(4, 'Conv'))), 'an operator without a result'),
        (bvlc(), 'its operator Conv y0 does not read what the one before it gives'),
        (graph(filled('w', [2, 2]), filled('w_shape', [2])), 'a constant whose shape is filled itself'),
        (graph(field(5, b'\x0a\x05')), 'of 5 bytes where 0 are left'),
    ],
)
def test_load_onnx_refuses_other_graphs(tmp_path, data, says):
    (tmp_path / 'w').write_bytes(data)
    with pytest.raises(InputError, match=says) as refused:
        open_weights(tmp_path / 'w')
    assert len(str(refused.value).splitlines()) == 1


def test_get_array_fills_a_shape_without_memory():
    model = Model(memoryview(graph(filled('w', [2**19, 2**20]))))
    assert model.get_array('w').shape == (2**19, 2**20)
    for sizes, says in [([2**62, 2], 'a constant of'), ([0, 3], 'a constant of'), ([1] * 9, 'more than|a constant')]:
        with pytest.raises(MalformedError, match=says):
            Model(memoryview(graph(filled('w', sizes)))).get_array('w')


@pytest.mark.parametrize(
    ('tensor', 'says'),
    [
        (field(1, 3) + field(2, 1) + field(9, b'\0' * 8), r'a tensor of \(3,\) with 2 numbers'),
        (field(1, 2) + field(2, 6) + field(9, b'\0' * 8), 'a tensor of data type 6'),
        (field(1, 2) + field(2, 1) + field(14, 1), 'which is no file beside it'),
        (field(1, 2**63) + field(1, 2) + field(2, 1), 'a tensor of'),
    ],
)
def test_parse_tensor_refuses_contradictions(tensor, says):
    with pytest.raises(MalformedError, match=says):
        parse_tensor(parse_message(ONNX.TensorProto, memoryview(tensor)))


OTHERS = ['Sigmoid', 'Tanh', 'LeakyRelu', 'BatchNormalization', 'Clip', 'Elu']


@pytest.mark.parametrize(
    ('place', 'kind'), [('conv1', kind) for kind in OTHERS] + [('fc7', 'Sigmoid'), ('conv4', 'LRN')]
)
def test_load_onnx_refuses_another_operator_by_name(tmp_path, place, kind):
    weights = caffe_weights(network('caffe_alexnet', width=0.03125).params)
    (tmp_path / 'w').write_bytes(bvlc_onnx(weights, change={place: kind}))
    with pytest.raises(InputError, match=rf'{kind} {place}_r.*Read are the graphs of'):
        open_weights(tmp_path / 'w')


@pytest.mark.parametrize(
    ('more', 'says'),
    [
        ([node('Mul', ['fc8', 'fc8_b'], 'y')], 'its operator Mul y is none'),
        ([node('Softmax', ['fc8'], 'y'), node('Softmax', ['y'], 'z')], 'its operator Softmax z follows the Softmax y'),
        ([node('Softmax', ['fc8'], 'y', attribute('axis', 0))], 'its Softmax y is not over classes'),
        ([node('Relu', ['fc8'], 'y')], 'it has Relu y where caffe_alexnet has nothing more'),
        ([node('Relu', ['fc7'], 'y')], 'its operator Relu y does not read'),
        (
            [node('Softmax', ['fc8'], 'y'), field(12, field(1, 'fc7_r'))],
            'what its last operator gives is not its output',
        ),
        ([node('Add', ['fc8', 'conv1'], 'y')], 'its operator Add y is none'),
        ([field(1, field(1, 'fc8') + field(2, 'y') + field(4, 'Identity') + field(7, 'mine'))], 'is of mine, and ONNX'),
    ],
)
def test_load_onnx_refuses_what_follows_the_logits(tmp_path, more, says):
    weights = caffe_weights(network('caffe_alexnet', width=0.03125).params)
    (tmp_path / 'w').write_bytes(bvlc_onnx(weights, more=more))
    with pytest.raises(InputError, match=says):
        open_weights(tmp_path / 'w')


def test_load_onnx_passes_over_what_changes_nothing(tmp_path):
    original = network('caffe_alexnet', width=0.03125)
    more = [node('Dropout', ['fc8'], 'a'), node('Identity', ['a'], 'b'), node('Cast', ['b'], 'c', attribute('to', 1))]
    more += [node('AveragePool', ['c'], 'd', attribute('kernel_shape', [1, 1])), node('Softmax', ['d'], 'e')]
    (tmp_path / 'w').write_bytes(bvlc_onnx(caffe_weights(original.params), more=[*more, field(12, field(1, 'e'))]))
    assert_same_params(open_weights(tmp_path / 'w').params, original.params)


def test_load_onnx_refuses_a_changed_graph_of_its_own(tmp_path):
    """Weights and hashes are as they were, and the logits are another operator's."""
    saved = network('one_weird_trick', width=0.03125)
    onnx_write.save_onnx(saved, tmp_path / 'w')
    whole = ONNX.ModelProto.FromString((tmp_path / 'w').read_bytes())
    for change, says in [
        (
            lambda graph: graph.node.add(op_type='Mul', input=['logits', 'fc8/bias'], output=['y']),
            'it has 23 operators',
        ),
        (lambda graph: setattr(graph.node[3], 'op_type', 'Sigmoid'), 'it has Sigmoid relu_3 where Relu was written'),
    ]:
        model = ONNX.ModelProto.FromString(whole.SerializeToString())
        change(model.graph)
        (tmp_path / 'w').write_bytes(model.SerializeToString())
        with pytest.raises(InputError, match=f'it was changed: {says}'):
            open_weights(tmp_path / 'w')


def test_load_onnx_reads_weights_in_a_file_beside_it(tmp_path):
    """What torch.onnx.export writes since PyTorch 2.9: onnx/onnx docs/ExternalData.md."""
    saved = network('one_weird_trick', width=0.03125)
    onnx_write.save_onnx(saved, tmp_path / 'w.onnx')
    model, data = ONNX.ModelProto.FromString((tmp_path / 'w.onnx').read_bytes()), b''
    for tensor in model.graph.initializer:
        for key, value in (('location', 'w.onnx.data'), ('offset', len(data)), ('length', len(tensor.raw_data))):
            tensor.external_data.add(key=key, value=str(value))
        data += tensor.raw_data + b'\0' * 5
        tensor.ClearField('raw_data')
        tensor.data_location = 1
    (tmp_path / 'w.onnx').write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r'w\.onnx\.data is missing: .*put it beside it under that name'):
        open_weights(tmp_path / 'w.onnx')
    (tmp_path / 'w.onnx.data').write_bytes(data)
    assert_same(open_weights(tmp_path / 'w.onnx'), saved)
    (tmp_path / 'w.onnx.data').write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r'w\.onnx\.data is too short: .*copy both files again'):
        open_weights(tmp_path / 'w.onnx')
    (tmp_path / 'w.onnx.data').write_bytes(data)
    for place in ('../w.onnx.data', '/etc/hostname', ''):
        model.graph.initializer[0].external_data[0].value = place
        (tmp_path / 'w.onnx').write_bytes(model.SerializeToString())
        with pytest.raises(InputError, match='which is no file beside it'):
            open_weights(tmp_path / 'w.onnx')
