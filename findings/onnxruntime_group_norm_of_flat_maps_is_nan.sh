#!/usr/bin/env bash
# onnxruntime 1.32.0: GroupNormalization (opset 21, the CPU) of a map that has one value all over is NaN for about half of the values
# past 5; maps with a large mean are off in the first digit. InstanceNormalization and LayerNormalization are right.
#
# Guess: a flat map has variance 0, epsilon is there for it, and the result is the bias; normalisation layers of one runtime take
#        their variance in the same way.
# Seen: GroupNormalization has no kernel, and is run as the function in ONNX's own definition of the operator, whose variance is
#       mean(x^2) - mean(x)^2. Rounding makes that less than -epsilon, and its root is NaN. A blank image, padding, a saturated
#       or dead layer behind a bias make such maps; one of them is enough for all scores of that image, and a trained
#       network's PyTorch or Flax original has no NaN there. With a mean of 1,000 standard deviations the error is 5
#       standard deviations. onnx.reference 1.23.2 does it too; OpenVINO 2026.4.1 is right.
# What to do: export as InstanceNormalization of (images, groups, -1) with scale and bias after it; try a blank image after export.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

GROUPS = 2


def make_model(operator, shape, channels, **attributes):
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in 'xy']
    constants = [
        numpy_helper.from_array(np.full(channels, number, np.float32), name) for name, number in (('scale', 1), ('bias', 0))
    ]
    node = helper.make_node(operator, ['x', 'scale', 'bias'], ['y'], **attributes)
    graph = helper.make_graph([node], 'norm', value[:1], value[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def evaluate(model, x):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider']).run(None, {'x': x})[0]


def normalize(x, runtime=evaluate):
    """Returns (group normalisation of a runtime, the same as instance normalisation, the truth in float64) of (n, c, h, w)."""
    model = make_model('GroupNormalization', x.shape, x.shape[1], num_groups=GROUPS)
    grouped = x.reshape(len(x), GROUPS, -1)
    instances = make_model('InstanceNormalization', grouped.shape, GROUPS)
    exact = grouped.astype(np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-5)
    return runtime(model, x), evaluate(instances, grouped).reshape(x.shape), exact.reshape(x.shape)


values = np.linspace(5, 255, 250, dtype=np.float32)
flat = np.broadcast_to(values[:, None, None, None], (250, 4, 14, 14)).copy()
for name, runtime in (
    ('onnxruntime', evaluate),
    ('onnx.reference', lambda model, x: ReferenceEvaluator(model).run(None, {'x': x})[0]),
):
    group, instance, _ = normalize(flat, runtime)
    share = float(np.isnan(group).any((1, 2, 3)).mean())
    print(f'{name}: {share:.0%} of flat maps of 5 to 255 are NaN; as InstanceNormalization none, at most {abs(instance).max():.3f}')
    assert share > 0.1 and np.isfinite(instance).all() and abs(instance).max() < 0.1

noise = np.random.default_rng(0).normal(size=(8, 32, 28, 28))
for mean in (0, 1000):
    group, instance, exact = normalize((mean + noise).astype(np.float32))
    errors = [float(np.nanmax(abs(found - exact))) for found in (group, instance)]
    print(f'mean {mean}, standard deviation 1: off by {errors[0]:.4f}, as InstanceNormalization by {errors[1]:.4f}')
    assert errors[1] < 0.01 and (errors[0] > 0.3 if mean else errors[0] < 1e-4)
PYTHON
echo 'unchanged: GroupNormalization of onnxruntime 1.32.0 makes NaN of flat maps'
