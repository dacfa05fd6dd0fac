#!/usr/bin/env bash
# onnxruntime 1.32.0 (and onnx.reference 1.23.2, OpenCV 5.0.0, OpenVINO 2026.4.1): MaxPool loses NaN that NumPy and PyTorch keep, so
# an exported network gives finite scores where the trained one gave NaN; GlobalMaxPool loses what stood before the NaN as well.
#
# Guess: NaN spreads through an exported network as through the one it was made from, to the scores, where isnan finds it; Relu,
#        Clip, Max and Softmax of onnxruntime do spread it.
# Seen: the maximum of NaN and a number is whichever comes second, so what is left depends on NaN's place in the window. Of 9 windows
#       of a 3x3 pooling with stride 2 that hold NaN, 4 are left in onnxruntime, onnx.reference and OpenCV, and none in OpenVINO,
#       where a window of NaN alone is -3.4e38 and where Relu makes 0 of NaN already. GlobalMaxPool of onnxruntime begins anew
#       behind NaN: of 64 numbers, a 9, a NaN in the middle and the rest below 1, it gives 0.997, and ReduceMax 9. So an image with
#       0 / 0 in its preprocessing, or a layer that overflows, comes out with a class and a confidence, and a test of parity between
#       the trained and the exported network, on finite images, does not see it.
# What to do: test the input for NaN before an exported network; look at activations before the pooling, not at scores.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 \
    opencv-python-headless==5.0.0.93 openvino==2026.4.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import cv2
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def run(operator, x, runtime='onnxruntime', **attributes):
    """Returns what one runtime makes of a graph of one operator."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (('x', x.shape), ('y', None))]
    graph = helper.make_graph([helper.make_node(operator, ['x'], ['y'], **attributes)], 'one', value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    if runtime == 'onnxruntime':
        return onnxruntime.InferenceSession(data, providers=['CPUExecutionProvider']).run(None, {'x': x})[0]
    if runtime == 'onnx.reference':
        return ReferenceEvaluator(model).run(None, {'x': x})[0]
    if runtime == 'OpenCV':
        network = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
        network.setInput(x)
        return network.forward()
    core = openvino.Core()
    return core.compile_model(core.read_model(data), 'CPU')([x])[0]


x = np.maximum(np.random.default_rng(0).normal(size=(1, 1, 13, 13)), 0).astype(np.float32)  # conv5 of AlexNet after ReLU
x[0, 0, 4:7, 4:7] = np.nan
windows = np.lib.stride_tricks.sliding_window_view(x[0, 0], (3, 3))[::2, ::2]
truth = windows.max((2, 3))
assert np.isnan(truth).sum() == 9
for runtime in ('onnxruntime', 'onnx.reference', 'OpenCV', 'OpenVINO'):
    found = run('MaxPool', x, runtime, kernel_shape=[3, 3], strides=[2, 2])[0, 0]
    finite = np.isfinite(truth)
    np.testing.assert_array_equal(found[finite], truth[finite])
    print(f'{runtime}: {np.isnan(found).sum()} of 9 windows are NaN; the window of NaN alone is {found[2, 2]}')
    assert np.isnan(found).sum() <= 4

row = np.random.default_rng(0).random((1, 1, 1, 64)).astype(np.float32)
row[..., 0], row[..., 32] = 9, np.nan
for operator, least, most in (('GlobalMaxPool', 0.9, 1), ('ReduceMax', 9, 9)):
    found = run(operator, row).item()
    print(f'onnxruntime, {operator} of a 9, a NaN and numbers below 1: {found:.4f}')
    assert least <= found <= most
for runtime in ('onnxruntime', 'OpenVINO'):
    found = run('Relu', x, runtime)
    print(f'{runtime}, Relu: {np.isnan(found).sum()} of 9 elements are NaN')
    assert np.isnan(found).sum() == (9 if runtime == 'onnxruntime' else 0)
PYTHON
echo 'unchanged: max pooling of onnxruntime 1.32.0 loses NaN'
