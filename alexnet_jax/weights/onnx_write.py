"""Writes any network as an ONNX graph that takes crops as they come: RGB pixels of 0..255.

Source of the operators: onnx/onnx docs/Operators.md at opset 17. Its LRN divides alpha by the size and knows no towers;
what follows from that is in `GraphBuilder.add_channel_norm`.
"""

import pathlib
from typing import Any

import numpy as np

from alexnet_jax.errors import InputError
from alexnet_jax.files import write_file
from alexnet_jax.model import spec
from alexnet_jax.model.network import Network
from alexnet_jax.weights.layout import convert_to_channels_first
from alexnet_jax.weights.metadata import make_metadata
from alexnet_jax.weights.proto_messages import make_message_classes

INPUT, LOGITS, PROBABILITIES = 'images', 'logits', 'probabilities'
BATCH = 'batch'  # the name of the size that is left open
MEAN = 'mean_image'
MAX_BYTES = 2**31 - 2**20  # of the tensors: protobuf reads no message above 2 GiB
IR_VERSION, OPSET = 8, 17  # ONNX 1.12, of 2022
FLOAT, INT64 = 1, 7  # TensorProto.DataType
EXTERNAL = 1  # TensorProto.DataLocation
_ATTRIBUTE_FIELDS = {float: ('f', 1), int: ('i', 2), list: ('ints', 7)}  # and their AttributeProto.AttributeType

# onnx/onnx onnx/onnx.proto, by the fields that are read or written here; its enums are int64, the same on the wire.
ONNX = make_message_classes(
    'alexnet_jax.onnx',
    {
        'ModelProto': {
            'ir_version': (1, 'int64'),
            'producer_name': (2, 'string'),
            'doc_string': (6, 'string'),
            'graph': (7, 'GraphProto'),
            'opset_import': (8, ['OperatorSetIdProto']),
            'metadata_props': (14, ['StringStringEntryProto']),
        },
        'OperatorSetIdProto': {'version': (2, 'int64')},
        'StringStringEntryProto': {'key': (1, 'string'), 'value': (2, 'string')},
        'GraphProto': {
            'node': (1, ['NodeProto']),
            'name': (2, 'string'),
            'initializer': (5, ['TensorProto']),
            'input': (11, ['ValueInfoProto']),
            'output': (12, ['ValueInfoProto']),
        },
        'NodeProto': {
            'input': (1, ['string']),
            'output': (2, ['string']),
            'name': (3, 'string'),
            'op_type': (4, 'string'),
            'domain': (7, 'string'),
            'attribute': (5, ['AttributeProto']),
        },
        'AttributeProto': {
            'name': (1, 'string'),
            'f': (2, 'float'),
            'i': (3, 'int64'),
            's': (4, 'bytes'),
            't': (5, 'TensorProto'),
            'ints': (8, ['int64']),
            'type': (20, 'int64'),
        },
        'TensorProto': {
            'dims': (1, ['int64']),
            'data_type': (2, 'int64'),
            'float_data': (4, ['float']),
            'int64_data': (7, ['int64']),
            'name': (8, 'string'),
            'raw_data': (9, 'bytes'),
            'double_data': (10, ['double']),
            'external_data': (13, ['StringStringEntryProto']),
            'data_location': (14, 'int64'),
        },
        'ValueInfoProto': {'name': (1, 'string'), 'type': (2, 'TypeProto')},
        'TypeProto': {'tensor_type': (1, 'TensorTypeProto')},
        'TensorTypeProto': {'elem_type': (1, 'int64'), 'shape': (2, 'TensorShapeProto')},
        'TensorShapeProto': {'dim': (1, ['Dimension'])},
        'Dimension': {'dim_value': (1, 'int64'), 'dim_param': (2, 'string')},
    },
)


def save_onnx(network: Network, path: pathlib.Path) -> None:
    """Writes FILE.onnx: 'images' float32 (batch, 3, size, size) in, 'logits' and 'probabilities' (batch, classes) out.

    The mean, the division by pixel_std and what dropout leaves to testing are in the graph; the metadata (metadata.py)
    are its metadata_props. The weights are named as here, with their axes in ONNX's order.

    Raises:
      InputError: the file cannot be written or would be too large, or ONNX has no operator for a layer.
    """
    network = network.with_centre_mean()
    variant, size, classes = network.variant, network.variant.input_size, len(network.classes)
    if local := [conv.name for conv in variant.convs if not conv.shared]:
        raise InputError(f'ONNX has no locally connected layer, such as {local[0]}: use --to=stablehlo')
    if any(_divides_by_window(operation) for conv in variant.convs for operation in conv.then):
        raise InputError('ONNX divides what a window at the edge sums up by its pixels alone: use --to=stablehlo')
    builder = GraphBuilder(variant, convert_to_channels_first(network.name, network.params))
    builder.tensors[MEAN] = np.asarray(network.mean_image, np.float32).transpose(2, 0, 1)[None]
    builder.add_network()
    if sum(array.nbytes for array in builder.tensors.values()) > MAX_BYTES:
        raise InputError(f'{path} would be too large for ONNX, which ends at 2 GiB: use --to=safetensors')
    model, graph = builder.model, builder.model.graph
    model.ir_version, model.producer_name = IR_VERSION, 'alexnet_jax'
    model.doc_string = f'{INPUT}: centre crops of {size}x{size}, RGB, 0..255, channels first, nothing subtracted'
    model.opset_import.add(version=OPSET)
    for key, value in make_metadata(network).items():
        model.metadata_props.add(key=key, value=value)
    graph.name = 'alexnet'
    graph.input.append(_make_value(INPUT, (BATCH, 3, size, size)))
    graph.output.extend(_make_value(name, (BATCH, classes)) for name in (LOGITS, PROBABILITIES))
    for name, array in builder.tensors.items():
        data = array.astype('<f4', copy=False).tobytes()
        graph.initializer.add(name=name, data_type=FLOAT, dims=array.shape, raw_data=data)
    write_file(path, model.SerializeToString())


def _divides_by_window(operation: spec.Operation) -> bool:
    return isinstance(operation, spec.AveragePool) and operation.partial and operation.divides_by == 'window'


def _make_value(name: str, dims: tuple[int | str, ...]) -> Any:
    """Makes a ValueInfoProto of float32; a text is the name of a size that is left open."""
    sizes = [{'dim_value' if isinstance(size, int) else 'dim_param': size} for size in dims]
    return ONNX.ValueInfoProto(name=name, type={'tensor_type': {'elem_type': FLOAT, 'shape': {'dim': sizes}}})


class GraphBuilder:
    """A model while it is built: `model.graph` holds the operators, `tensors` the constants by name."""

    def __init__(self, variant: spec.Variant, tensors: dict[str, np.ndarray]) -> None:
        self.variant = variant
        self.tensors = dict(tensors)
        self.model = ONNX.ModelProto()

    def add_network(self) -> None:
        """Adds all operators, from INPUT to LOGITS and PROBABILITIES."""
        variant = self.variant
        x = self.add('Sub', [INPUT, MEAN])
        if set(variant.pixel_std) != {1.0}:
            x = self.add('Div', [x, self.add_constant('pixel_std', np.reshape(variant.pixel_std, (1, 3, 1, 1)))])
        for conv in variant.convs:
            x = self.add_convolution(conv, x)
            for operation in conv.then:
                x = self.add_operation(operation, x)
        x = self.add('Flatten', [x], axis=1)
        *hidden, classifier = variant.dense
        for layer in hidden:
            x = self.add_operation(variant.activation, self.add_dense(layer, x))
            if variant.drops == 'outputs' and variant.dropout_rate and not variant.inverted_dropout:
                x = self.add('Mul', [x, self.add_constant('kept', 1 - variant.dropout_rate)])
        self.add_dense(classifier, x, output=LOGITS)
        self.add('Softmax', [LOGITS], PROBABILITIES, axis=1)

    def add(self, kind: str, inputs: list[str], *outputs: str, name: str | None = None, **attributes: Any) -> str:
        """Adds an operator, named like its first output; returns that name. Attributes are float, int or [int]."""
        outputs = outputs or (f'{kind.lower()}_{len(self.model.graph.node)}',)
        node = self.model.graph.node.add(input=inputs, output=outputs, name=name or outputs[0], op_type=kind)
        for key, value in attributes.items():
            field, number = _ATTRIBUTE_FIELDS[type(value)]
            node.attribute.add(name=key, type=number, **{field: value})
        return outputs[0]

    def add_constant(self, name: str, value: float | np.ndarray) -> str:
        """Adds a float32 constant, once; returns its name."""
        self.tensors[name] = np.asarray(value, np.float32)
        return name

    def split_towers(self, x: str, *, axis: int) -> list[str]:
        """Adds a Split of x into the towers' halves along an axis; returns their names."""
        outputs = [f'{x}_tower{tower}' for tower in range(2)]
        self.add('Split', [x], *outputs, name=f'{x}_towers', axis=axis)
        return outputs

    def add_convolution(self, conv: spec.Conv, x: str) -> str:
        """Adds a convolution; its padding may be uneven, as conv1's is."""
        (top, bottom), (left, right) = conv.padding
        return self.add(
            'Conv',
            [x, f'{conv.name}/kernel', f'{conv.name}/bias'],
            conv.name,
            kernel_shape=[conv.kernel] * 2,
            strides=[conv.stride] * 2,
            pads=[top, left, bottom, right],
            group=self.variant.towers if conv.reads == 'tower' else 1,
        )

    def add_dense(self, layer: spec.Dense, x: str, *, output: str | None = None) -> str:
        """Adds a fully connected layer; tower by tower where a tower's units read their own alone."""
        weights = [f'{layer.name}/kernel', f'{layer.name}/bias']
        if layer.reads == 'both' or self.variant.towers == 1:
            return self.add('Gemm', [x, *weights], output or layer.name, transB=1)
        # Flattened channels first, a tower's features are the one or the other half.
        halves = [self.split_towers(x, axis=1), *(self.split_towers(name, axis=0) for name in weights)]
        towers = [self.add('Gemm', [*part], transB=1) for part in zip(*halves, strict=True)]
        return self.add('Concat', towers, layer.name, axis=1)

    def add_operation(self, operation: spec.Operation, x: str) -> str:
        """Adds what follows a layer."""
        match operation:
            case spec.Relu() | spec.Tanh() | spec.Sigmoid():
                return self.add(type(operation).__name__, [x])
            case spec.MaxPool(window, stride, partial) | spec.AveragePool(window, stride, partial):
                # As ONNX has them, without padding of either.
                sizes: dict[str, Any] = {'kernel_shape': [window] * 2, 'strides': [stride] * 2}
                return self.add(type(operation).__name__, [x], **sizes | ({'ceil_mode': 1} if partial else {}))
            case spec.ChannelNorm():
                return self.add_channel_norm(operation, x)
            case spec.SpatialNorm():
                return self.add_spatial_norm(operation, x)

    def add_channel_norm(self, norm: spec.ChannelNorm, x: str) -> str:
        """Adds an LRN of each tower's channels, or of all.

        ONNX: y = x / (bias + alpha / size * sum)^beta, so alpha is size times ours, and of an even size the window
        leans to the other side, which no variant has.
        """
        assert norm.size % 2 == 1, norm
        alpha, beta, bias = float(norm.alpha * norm.size), float(norm.beta), float(norm.k)
        whole = norm.across_towers or self.variant.towers == 1
        parts = [x] if whole else self.split_towers(x, axis=1)
        parts = [self.add('LRN', [part], size=norm.size, alpha=alpha, beta=beta, bias=bias) for part in parts]
        return parts[0] if whole else self.add('Concat', parts, axis=1)

    def add_spatial_norm(self, norm: spec.SpatialNorm, x: str) -> str:
        """Adds x / (k + alpha * sum of x^2 over the window)^beta, the sum as the mean, zeros counted, times places."""
        before, after = norm.size // 2, norm.size - 1 - norm.size // 2
        mean = self.add(
            'AveragePool',
            [self.add('Mul', [x, x])],
            kernel_shape=[norm.size] * 2,
            pads=[before, before, after, after],
            count_include_pad=1,
        )
        scaled = self.add('Mul', [mean, self.add_constant('spatial/alpha', norm.alpha * norm.size**2)])
        base = self.add('Add', [scaled, self.add_constant('spatial/k', norm.k)])
        return self.add('Div', [x, self.add('Pow', [base, self.add_constant('spatial/beta', norm.beta)])])
