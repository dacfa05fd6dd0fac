"""ONNX's messages, by the fields that are read or written here. Source: onnx/onnx onnx/onnx.proto."""

from __future__ import annotations

from alexnet_jax.weights.proto_messages import make_message_classes

IR_VERSION, OPSET = 8, 17  # ONNX 1.12, of 2022
FLOAT, INT64 = 1, 7  # TensorProto.DataType
EXTERNAL = 1  # TensorProto.DataLocation

# Enums are declared as int64, which is the same on the wire.
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
            'attribute': (5, ['AttributeProto']),
        },
        'AttributeProto': {
            'name': (1, 'string'),
            'f': (2, 'float'),
            'i': (3, 'int64'),
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
            'data_location': (14, 'int64'),
        },
        'ValueInfoProto': {'name': (1, 'string'), 'type': (2, 'TypeProto')},
        'TypeProto': {'tensor_type': (1, 'TensorTypeProto')},
        'TensorTypeProto': {'elem_type': (1, 'int64'), 'shape': (2, 'TensorShapeProto')},
        'TensorShapeProto': {'dim': (1, ['Dimension'])},
        'Dimension': {'dim_value': (1, 'int64'), 'dim_param': (2, 'string')},
    },
)
