#!/usr/bin/env bash
# onnx 1.23.2: the reference evaluator's LRN runs over as many channels as the batch has images; the others are not normalised.
#
# Guess: onnx.reference is the operator's definition in NumPy, so it is what a runtime's response normalisation is held against.
# Seen: of one image with 96 channels (AlexNet's conv1) only channel 0 is normalised, the others are divided by bias^beta alone;
#       of two images channels 0 and 1. A batch of more images than channels raises IndexError. Where images and channels are
#       equally many all is right, which is how ONNX's own test vectors are made (5x5x5x5). onnxruntime 1.32.0 agrees with
#       the formula throughout.
# What to do: take NumPy from the formula, or onnxruntime, as the oracle of a network with LRN (AlexNet, CaffeNet, GoogLeNet).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, checker, helper
from onnx.reference import ReferenceEvaluator

SIZE, ALPHA, BETA, BIAS = 5, 5e-4, 0.75, 2.0  # the paper's, in ONNX's form, which divides alpha by the size


def make_model(shape):
    value = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in 'xy'}
    node = helper.make_node('LRN', ['x'], ['y'], size=SIZE, alpha=ALPHA, beta=BETA, bias=BIAS)
    graph = helper.make_graph([node], 'lrn', [value['x']], [value['y']])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=9)
    checker.check_model(model, full_check=True)
    return model


def normalize(x):
    """Returns x / (bias + alpha / size * sum of the squares of the five nearest channels)^beta, in float64."""
    squares = np.pad(np.square(x, dtype=np.float64), ((0, 0), (2, 2), (0, 0), (0, 0)))
    near = sum(squares[:, shift : shift + x.shape[1]] for shift in range(SIZE))
    return x / (BIAS + ALPHA / SIZE * near) ** BETA


for images in (1, 2, 96):
    x = (200 * np.random.default_rng(0).random((images, 96, 3, 3))).astype(np.float32)
    model, expected = make_model(x.shape), normalize(x)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    np.testing.assert_allclose(session.run(None, {'x': x})[0], expected, rtol=1e-5)
    (found,) = ReferenceEvaluator(model).run(None, {'x': x})
    right = [c for c in range(96) if np.allclose(found[:, c], expected[:, c], rtol=1e-5)]
    only_scaled = [c for c in range(96) if np.allclose(found[:, c], x[:, c] / BIAS**BETA, rtol=1e-5)]
    largest = float((np.abs(found - expected) / expected).max())
    print(f'{images} images: {len(right)} of 96 channels right, {len(only_scaled)} not normalised; off by up to {largest:.0%}')
    assert right == list(range(images)) and only_scaled == list(range(images, 96))

x = np.ones((97, 96, 3, 3), np.float32)
try:
    ReferenceEvaluator(make_model(x.shape)).run(None, {'x': x})
except IndexError as error:
    print('97 images:', error)
else:
    raise SystemExit('97 images are normalised now')
PYTHON
echo "unchanged: onnx 1.23.2's reference LRN goes by the number of images"
