"""ONNX by others: the package's checker and reference evaluator, onnxruntime, and the grouped graph of its wheel."""

import pathlib

import jax
import numpy as np
import pytest
from extras.conftest import extra
from weights.networks import WIDTH, compute_logits, network

from alexnet_jax.errors import InputError
from alexnet_jax.model.ablations import ABLATIONS
from alexnet_jax.model.zoo import VARIANTS
from alexnet_jax.weights import onnx_write
from alexnet_jax.weights.open_weights import open_weights

onnx = extra('onnx')
onnxruntime = extra('onnxruntime')
reference = extra('onnx.reference')
OpRun = extra('onnx.reference.op_run').OpRun

LIGHT = pathlib.Path(onnx.__file__).parent / 'backend/test/data/light'
CASES = [(variant, ()) for variant in (*VARIANTS, 'cifar10_80sec', 'cifar10_18pct', 'deep5')]
CASES += [('released', (part,)) for part in ABLATIONS]


class LRN(OpRun):
    """docs/Operators.md, LRN. The evaluator's own goes over images where it means channels, to onnx 1.23 (#7805)."""

    def _run(self, x, alpha=None, beta=None, bias=None, size=None):
        y = np.empty_like(x)
        for c in range(x.shape[1]):
            near = x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1].astype(np.float64)
            y[:, c] = x[:, c] / (bias + alpha / size * (near**2).sum(axis=1)) ** beta
        return (y,)


def evaluate(model, inputs):
    """The first output of a model by the reference evaluator."""
    return reference.ReferenceEvaluator(model, new_ops=[LRN]).run(None, inputs)[0]


def make_crops(size, rows=2):
    return np.random.default_rng(3).integers(0, 256, (rows, size, size, 3)).astype(np.float32)


def get_relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(('variant', 'without'), CASES)
def test_save_onnx_gives_jax_logits_in_onnxruntime(tmp_path, variant, without):
    net = network(variant, without=without)
    onnx_write.save_onnx(net, tmp_path / 'w.onnx')
    onnx.checker.check_model(str(tmp_path / 'w.onnx'), full_check=True)
    session = onnxruntime.InferenceSession(str(tmp_path / 'w.onnx'), providers=['CPUExecutionProvider'])
    assert session.get_inputs()[0].shape == ['batch', 3, net.variant.input_size, net.variant.input_size]
    for rows in (1, 3):
        crops = make_crops(net.variant.input_size, rows)
        logits, probabilities = session.run(None, {'images': crops.transpose(0, 3, 1, 2).copy()})
        assert get_relative_error(logits, compute_logits(net, crops)) < 1e-5
        powers = np.exp(np.float64(logits) - logits.max(axis=1, keepdims=True))
        np.testing.assert_allclose(probabilities, powers / powers.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-7)
    assert session.get_modelmeta().custom_metadata_map['variant'] == variant


def test_save_onnx_gives_jax_logits_of_sigmoids_in_onnxruntime(tmp_path):
    net = network('released', activation='sigmoid', scale=4.0)
    onnx_write.save_onnx(net, tmp_path / 'w.onnx')
    onnx.checker.check_model(str(tmp_path / 'w.onnx'), full_check=True)
    session = onnxruntime.InferenceSession(str(tmp_path / 'w.onnx'), providers=['CPUExecutionProvider'])
    crops = make_crops(224)
    (logits,) = session.run(['logits'], {'images': crops.transpose(0, 3, 1, 2).copy()})
    assert get_relative_error(logits, compute_logits(net, crops)) < 1e-5
    assert np.ptp(logits, axis=0).max() > 1e-2  # the images are told apart
    kinds = {node.op_type for node in onnx.load(str(tmp_path / 'w.onnx')).graph.node}
    assert 'Sigmoid' in kinds and not kinds & {'Relu', 'Tanh'}


def test_save_onnx_gives_jax_logits_in_the_reference_evaluator(tmp_path):
    """The released network has all that is written by hand: norms within a tower, across space, uneven padding."""
    net = network('released')
    onnx_write.save_onnx(net, tmp_path / 'w.onnx')
    crops = make_crops(224, 1)
    logits = evaluate(str(tmp_path / 'w.onnx'), {'images': crops.transpose(0, 3, 1, 2).copy()})
    assert get_relative_error(logits, compute_logits(net, crops)) < 1e-5


def bvlc(width, seed=0):
    """The wheel's light_bvlc_alexnet at a width, with random initialisers for its constants of 0.02."""
    model = onnx.load(LIGHT / 'light_bvlc_alexnet.onnx')
    random = np.random.default_rng(seed)
    shapes = {x.name: onnx.numpy_helper.to_array(x) for x in model.graph.initializer}
    constants = [node for node in model.graph.node if node.op_type == 'ConstantOfShape']
    for node in constants:
        shape = shapes[node.input[0]].copy()
        narrow = {'w': [0, 1], 'b': [0]}[node.output[0].split('_')[1]]
        for axis in narrow:
            keep = (node.output[0].startswith('conv1') and axis == 1) or (
                node.output[0].startswith('fc8') and axis == 0
            )
            if not keep:
                shape[axis] = round(shape[axis] * width)
        std = 0.1 if len(shape) == 1 else (2 / np.prod(shape[1:])) ** 0.5
        values = random.normal(0, std, shape).astype(np.float32)
        model.graph.node.remove(node)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, node.output[0]))
    softmax = model.graph.node.pop()  # of random weights one class takes it all
    model.graph.output[0].name = softmax.input[0]
    reshape = next(x for x in model.graph.initializer if x.name == 'OC2_DUMMY_1')
    reshape.CopyFrom(onnx.numpy_helper.from_array(np.array([1, round(9216 * width)]), 'OC2_DUMMY_1'))
    return model


def caffes_input(net, crops):
    """What Caffe feeds its network: BGR, channels first, the mean subtracted."""
    return (crops - net.mean_image)[..., ::-1].transpose(0, 3, 1, 2).copy()


def test_load_onnx_gives_the_logits_of_the_grouped_graph(tmp_path):
    """On crops of 227, which Caffe trained on and on which the graph's operators run as well as on its 224."""
    model = bvlc(WIDTH)
    onnx.save(model, tmp_path / 'w.onnx')
    net = open_weights(tmp_path / 'w.onnx')
    assert (net.name.variant, net.name.width, len(net.classes)) == ('caffe_alexnet', WIDTH, 1000)
    assert 'a graph for crops of 224x224; its weights were trained on 227' in net.source
    crops = make_crops(227, 1)
    expected = evaluate(model, {'data_0': caffes_input(net, crops)})
    assert np.ptp(expected) > 1
    assert get_relative_error(compute_logits(net, crops), expected) < 1e-4


def test_load_onnx_reads_the_light_graph():
    """Its weights are 0.02 everywhere, stored as shapes alone, so every class is as likely as the next."""
    net = open_weights(LIGHT / 'light_bvlc_alexnet.onnx')
    assert net.name.variant == 'caffe_alexnet' and net.name.width == 1
    assert {float(x.min()) for x in jax.tree.leaves(net.params)} == {np.float32(0.02)}
    assert sum(x.size for x in jax.tree.leaves(net.params)) == 60_965_224
    tensor = onnx.TensorProto.FromString((LIGHT / 'light_bvlc_alexnet_output_0.pb').read_bytes())
    expected = onnx.numpy_helper.to_array(tensor)
    found = jax.nn.softmax(compute_logits(net, make_crops(227, 1)))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ('kind', 'attribute', 'value', 'says'),
    [
        ('LRN', 'alpha', 2e-5, 'LRN r2 has alpha'),
        ('LRN', 'bias', 2.0, 'LRN r2 has bias 2.0, and caffe_alexnet 1.0'),
        ('Conv', 'strides', [2, 2], r'Conv r0 has strides \(2, 2\)'),
        ('Conv', 'pads', [1, 1, 1, 1], r'Conv r0 has pads \(1, 1, 1, 1\)'),
        ('Conv', 'group', 3, 'Conv r0 has group 3.0'),
        ('MaxPool', 'kernel_shape', [2, 2], 'MaxPool r3 has kernel_shape'),
        ('MaxPool', 'pads', [1, 1, 0, 0], 'MaxPool r3 has pads'),
        ('Gemm', 'alpha', 2.0, 'Gemm r16 has alpha 2.0'),
    ],
)
def test_load_onnx_refuses_another_constant(tmp_path, kind, attribute, value, says):
    model = bvlc(WIDTH)
    node = next(node for node in model.graph.node if node.op_type == kind)
    for old in [old for old in node.attribute if old.name == attribute]:
        node.attribute.remove(old)
    node.attribute.append(onnx.helper.make_attribute(attribute, value))
    onnx.save(model, tmp_path / 'w.onnx')
    with pytest.raises(InputError, match=says):
        open_weights(tmp_path / 'w.onnx')


def test_load_onnx_refuses_other_graphs():
    with pytest.raises(InputError, match='Conv and Gemm, not five and three'):
        open_weights(LIGHT / 'light_squeezenet.onnx')
    with pytest.raises(InputError, match='Conv and Gemm, not five and three'):
        open_weights(LIGHT / 'light_vgg19.onnx')


def test_load_onnx_reads_external_weights_as_it_reads_them_inside(tmp_path):
    onnx.save(bvlc(WIDTH), tmp_path / 'whole.onnx')
    onnx.save(bvlc(WIDTH), tmp_path / 'w.onnx', save_as_external_data=True, location='w.data', size_threshold=0)
    found, expected = (open_weights(tmp_path / name).params for name in ('w.onnx', 'whole.onnx'))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
