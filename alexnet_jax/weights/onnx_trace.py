"""Follows a foreign ONNX graph from its input, operator by operator, and lists the layers on the way.

Every operator must be one that is known here and read what the one before it gives. Passed over is only what changes
no number of a trained network: Identity, Dropout, pools of one place, casts between floating types.
"""

from typing import Any

from alexnet_jax.weights.layer_sequence import COMPARED, Layer, find_attribute, get_attribute
from alexnet_jax.weights.proto_messages import MalformedError

_FLOATS = (1, 10, 11, 16)  # TensorProto.DataType: float32, 16, 64, bfloat16


def trace_layers(model: Any) -> list[tuple[Layer, Any]]:
    """Lists the layers of an onnx_read.Model, up to the logits, each with its NodeProto.

    Raises:
      MalformedError: the graph has an operator that is not known, or one that reads from elsewhere; it is named.
    """
    layers: list[tuple[Layer, Any]] = []
    current: set[str] = set(model.inputs[:1])  # names of the value so far
    shapes: set[str] = set()  # names of numbers that are computed from shapes alone
    softmax = ''
    for node in model.nodes:
        kind, title = str(node.op_type), str(node.output[0])
        computed = [name for name in node.input if name and not model.is_constant(name)]
        if node.domain not in ('', 'ai.onnx'):
            raise MalformedError(f'its operator {kind} {title[:60]} is of {node.domain[:40]}, and ONNX has none such')
        if all(model.is_constant(name) for name in node.output[:1]):
            continue
        if (kind == 'Shape' and computed[:1] and computed[0] not in shapes) or (
            computed and shapes.issuperset(computed)
        ):
            shapes.update(node.output)
            continue
        if kind == 'Reshape':
            # To two axes, as the Gemm behind it demands, whatever numbers that is said with.
            kind, computed = 'Flatten', [name for name in computed if name not in shapes]
        passed = _changes_nothing(kind, node)
        if not passed and kind != 'Softmax' and kind not in COMPARED:
            raise MalformedError(f'its operator {kind} {title[:60]} is none that is known in an AlexNet')
        if softmax and not passed:
            raise MalformedError(f'its operator {kind} {title[:60]} follows the Softmax {softmax[:60]}')
        if len(computed) != 1 or node.input[0] not in current:
            raise MalformedError(f'its operator {kind} {title[:60]} does not read what the one before it gives')
        if passed or (kind == 'Flatten' and layers and layers[-1][0].kind == 'Flatten'):
            current.add(node.output[0])
            continue
        current = {node.output[0]}
        if kind == 'Softmax':
            if get_attribute(node, 'axis', (1.0,))[0] not in (1, -1):
                raise MalformedError(f'its Softmax {title[:60]} is not over classes')
            softmax = title
            continue
        stated = {name: get_attribute(node, name, default) for name, default in COMPARED[kind].items()}
        padding = find_attribute(node, 'auto_pad')
        if padding is not None and padding.s not in (b'', b'NOTSET', b'VALID'):
            raise MalformedError(
                f'its operator {kind} {title[:60]} has auto_pad {padding.s[:20].decode("ascii", "replace")}'
            )
        layers.append((Layer(kind, title, stated), node))
    if model.outputs and not current.intersection(model.outputs):
        raise MalformedError('what its last operator gives is not its output')
    if softmax and layers[-1][0].kind != 'Gemm':  # some there are: a graph without a Conv is not followed
        raise MalformedError(f'its Softmax {softmax[:60]} does not follow a Gemm')
    return layers


def _changes_nothing(kind: str, node: Any) -> bool:
    match kind:
        case 'Identity' | 'Dropout':
            return True
        case 'Cast':
            return get_attribute(node, 'to', (0.0,))[0] in _FLOATS
        case 'AveragePool' | 'MaxPool':  # what PyTorch makes of AdaptiveAvgPool2d((6, 6)) where 6x6 come in
            wanted = {'kernel_shape': (1, 1), 'strides': (1, 1), 'pads': (0, 0, 0, 0)}
            found = {name: get_attribute(node, name, (1, 1)) for name in ('kernel_shape', 'strides')}
            return found | {'pads': get_attribute(node, 'pads', (0, 0, 0, 0))} == wanted and (
                find_attribute(node, 'kernel_shape') is not None
            )
    return False
