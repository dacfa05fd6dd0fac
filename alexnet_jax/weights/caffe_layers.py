"""The messages of a .caffemodel, and its layers in the terms in which they are compared with a network's.

Source: BVLC/caffe src/caffe/proto/caffe.proto, whose field numbers and defaults are below.
"""

from collections.abc import Sequence
from typing import Any

from alexnet_jax.weights.layer_sequence import Layer
from alexnet_jax.weights.proto_messages import MalformedError, make_message_classes

_PARAMETERS = {  # of a layer: (number in LayerParameter, in V1LayerParameter, message)
    'convolution_param': (106, 10, 'ConvolutionParameter'),
    'inner_product_param': (117, 17, 'InnerProductParameter'),
    'lrn_param': (118, 18, 'LRNParameter'),
    'pooling_param': (121, 19, 'PoolingParameter'),
    'relu_param': (123, 30, 'ReLUParameter'),
    'transform_param': (100, 36, 'TransformationParameter'),
}
_Fields = dict[str, tuple[int, str | list[str]]]
_NEW: _Fields = {name: (number, message) for name, (number, _, message) in _PARAMETERS.items()}
_V1: _Fields = {name: (number, message) for name, (_, number, message) in _PARAMETERS.items()}
# A NetParameter has its layers in one of two forms, and a BlobProto its shape: `shape`, or four sizes before that was.
CAFFE = make_message_classes(
    'alexnet_jax.caffe',
    {
        'NetParameter': {
            'name': (1, 'string'),
            'layers': (2, ['V1LayerParameter']),
            'layer': (100, ['LayerParameter']),
        },
        'LayerParameter': _NEW
        | {
            'name': (1, 'string'),
            'type': (2, 'string'),
            'bottom': (3, ['string']),
            'top': (4, ['string']),
            'blobs': (7, ['BlobProto']),
        },
        'V1LayerParameter': _V1
        | {
            'bottom': (2, ['string']),
            'top': (3, ['string']),
            'name': (4, 'string'),
            'type': (5, 'int64'),
            'blobs': (6, ['BlobProto']),
        },
        'ConvolutionParameter': {
            'pad': (3, ['int64']),
            'group': (5, 'int64'),
            'stride': (6, ['int64']),
            'pad_h': (9, 'int64'),
            'pad_w': (10, 'int64'),
            'stride_h': (13, 'int64'),
            'stride_w': (14, 'int64'),
            'dilation': (18, ['int64']),
        },
        'InnerProductParameter': {'transpose': (6, 'int64')},
        'LRNParameter': {
            'local_size': (1, 'int64'),
            'alpha': (2, 'float'),
            'beta': (3, 'float'),
            'norm_region': (4, 'int64'),
            'k': (5, 'float'),
        },
        'PoolingParameter': {
            'pool': (1, 'int64'),
            'kernel_size': (2, 'int64'),
            'stride': (3, 'int64'),
            'pad': (4, 'int64'),
            'kernel_h': (5, 'int64'),
            'kernel_w': (6, 'int64'),
            'stride_h': (7, 'int64'),
            'stride_w': (8, 'int64'),
            'pad_h': (9, 'int64'),
            'pad_w': (10, 'int64'),
            'global_pooling': (12, 'int64'),
        },
        'TransformationParameter': {'scale': (1, 'float')},
        'ReLUParameter': {'negative_slope': (1, 'float')},
        'BlobProto': {
            'num': (1, 'int64'),
            'channels': (2, 'int64'),
            'height': (3, 'int64'),
            'width': (4, 'int64'),
            'data': (5, ['float']),
            'shape': (7, 'BlobShape'),
            'double_data': (8, ['double']),
        },
        'BlobShape': {'dim': (1, ['int64'])},
    },
)
_V1_TYPES = (  # V1LayerParameter.LayerType, from 0
    *('None', 'Accuracy', 'BNLL', 'Concat', 'Convolution', 'Data', 'Dropout', 'EuclideanLoss', 'Flatten', 'HDF5Data'),
    *('HDF5Output', 'Im2col', 'ImageData', 'InfogainLoss', 'InnerProduct', 'LRN', 'MultinomialLogisticLoss', 'Pooling'),
    *('ReLU', 'Sigmoid', 'Softmax', 'SoftmaxWithLoss', 'Split', 'TanH', 'WindowData', 'Eltwise', 'Power'),
    *('SigmoidCrossEntropyLoss', 'HingeLoss', 'MemoryData', 'ArgMax', 'Threshold', 'DummyData', 'Slice', 'MVN'),
    *('AbsVal', 'Silence', 'ContrastiveLoss', 'Exp', 'Deconvolution'),
)
_KINDS = {'Convolution': 'Conv', 'InnerProduct': 'Gemm', 'ReLU': 'Relu', 'Pooling': 'MaxPool', 'LRN': 'LRN'}
_BEFORE = ('Data', 'Input', 'ImageData', 'HDF5Data', 'MemoryData', 'DummyData', 'WindowData', 'Python')
_BEHIND = ('Softmax', 'SoftmaxWithLoss', 'Accuracy', 'MultinomialLogisticLoss', 'Silence', 'ArgMax')


def _get_type(layer: Any) -> str:
    """Returns the type of a LayerParameter or V1LayerParameter, by today's names."""
    if isinstance(layer.type, int):
        return _V1_TYPES[layer.type] if 0 <= layer.type < len(_V1_TYPES) else f'number {layer.type}'
    return str(layer.type)


def list_layers(layers: Sequence[Any]) -> list[Layer]:
    """Lists the layers of a net from conv1 to fc8; only those with weights where the file has no others.

    Passed over is what changes no number of a trained network: data, Dropout, Split, and behind fc8 Softmax and losses.

    Raises:
      MalformedError: a layer is of a type that is not known, in that place, or reads from elsewhere; it is named.
    """
    found: list[Layer] = []
    current: set[str] = set()  # names of the value so far; none where the file does not say
    for layer in layers:
        kind, title = _get_type(layer), str(layer.name)
        if kind == 'None':
            raise MalformedError("it is of Caffe's oldest form: upgrade it with Caffe's upgrade_net_proto_binary")
        if layer.transform_param.HasField('scale') and layer.transform_param.scale != 1:
            scale = layer.transform_param.scale
            raise MalformedError(f'its layer {title[:60]} multiplies pixels by {scale:g}, and its kind reads 0..255')
        bottoms, tops = set(layer.bottom), set(layer.top)
        if (kind in _BEFORE and not found) or (kind in _BEHIND and found and found[-1].kind == 'Gemm'):
            continue
        if kind == 'Split' and bottoms.isdisjoint(current):
            continue  # of the labels
        if kind in ('Dropout', 'Split'):
            current |= tops
            continue
        if kind == 'Flatten':
            current |= tops
        elif kind in _BEHIND and found:
            current = tops  # `check_layers` names it, or what differs before it
        elif kind not in _KINDS:
            raise MalformedError(
                f'its layer {title[:60]} is {kind[:40]}, which is none that is known there in an AlexNet'
            )
        else:
            if found and current and bottoms and bottoms.isdisjoint(current):
                raise MalformedError(f'its layer {title[:60]} does not read what the one before it gives')
            current = tops
        kind = _KINDS.get(kind, kind)
        if kind == 'Gemm' and 'Flatten' not in [one.kind for one in found]:
            found.append(Layer('Flatten', title, {}))  # which an InnerProduct does by itself
        found.append(Layer(_find_special(layer) or kind, title, _get_attributes(kind, layer)))
    return found


def _find_special(layer: Any) -> str:
    """Names what a parameter makes of a layer that no network here has; '' where there is none."""
    special = {
        'a pooling of averages or samples': layer.pooling_param.pool,
        'a pooling of whole channels': layer.pooling_param.global_pooling,
        'a leaky ReLU': layer.relu_param.negative_slope,
        'an LRN within channels': layer.lrn_param.norm_region,
        'a transposed InnerProduct': layer.inner_product_param.transpose,
    }
    return next((name for name, value in special.items() if value), '')


def _get_attributes(kind: str, layer: Any) -> dict[str, tuple[float, ...]]:
    """Returns what a layer's parameters say, or Caffe takes where they do not, as ONNX says it."""
    name = {'Conv': 'convolution_param', 'MaxPool': 'pooling_param', 'LRN': 'lrn_param'}.get(kind)
    if name is None:
        return {}
    stated = getattr(layer, name)
    if kind == 'LRN':
        fields = {'size': ('local_size', 5), 'alpha': ('alpha', 1), 'beta': ('beta', 0.75), 'bias': ('k', 1)}
        return {ours: (_get(stated, field, default),) for ours, (field, default) in fields.items()}
    pads, strides = _get_pair(stated, 'pad', 0), _get_pair(stated, 'stride', 1)
    if kind == 'MaxPool':
        sizes = _get_pair(stated, 'kernel_size', 0, single='kernel')
        return {'kernel_shape': sizes, 'strides': strides, 'pads': pads * 2}
    dilations = _get_pair(stated, 'dilation', 1)
    return {'strides': strides, 'pads': pads * 2, 'dilations': dilations, 'group': (_get(stated, 'group', 1),)}


def _get(message: Any, field: str, default: float) -> float:
    return float(getattr(message, field)) if message.HasField(field) else float(default)


def _get_pair(message: Any, field: str, default: int, *, single: str | None = None) -> tuple[float, float]:
    """Returns (rows, columns) of a size that is given once, twice, or as FIELD_h and FIELD_w."""
    names = [f'{single or field}_{axis}' for axis in 'hw']
    if all(name in message.DESCRIPTOR.fields_by_name and message.HasField(name) for name in names):
        return _get(message, names[0], default), _get(message, names[1], default)
    value = getattr(message, field)
    if message.DESCRIPTOR.fields_by_name[field].is_repeated:
        given = [float(number) for number in value] or [float(default)]
        return given[0], given[-1]
    both = _get(message, field, default)
    return both, both
