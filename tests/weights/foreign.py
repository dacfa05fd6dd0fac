"""Files as other programs write them, from the formats' public descriptions and without this project's code."""

import struct
import zipfile

import numpy as np

CAFFE_LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8')
V1_NUMBERS = {'Convolution': 4, 'InnerProduct': 14, 'LRN': 15, 'Pooling': 17}


# Protocol buffers (protobuf.dev/programming-guides/encoding)


def varint(number):
    groups = []
    number %= 2**64
    while True:
        number, group = divmod(number, 128)
        groups.append(group + 128 * (number > 0))
        if not number:
            return bytes(groups)


def field(number, value):
    """One field: an int as varint, bytes with their length."""
    if isinstance(value, int):
        return varint(number * 8) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number * 8 + 2) + varint(len(value)) + value


# Caffe (BVLC/caffe src/caffe/proto/caffe.proto)


def blob(array, *, legacy=False, packed=True, double=False):
    """BlobProto: shape 7 or num, channels, height, width 1 to 4; data 5 or double_data 8."""
    if legacy:
        sizes = (1,) * (4 - array.ndim) + array.shape
        head = b''.join(field(number, size) for number, size in enumerate(sizes, 1))
    else:
        head = field(7, field(1, b''.join(map(varint, array.shape))))
    numbers = array.astype('<f8' if double else '<f4').ravel()
    number, kind = (8, 1) if double else (5, 5)
    if packed:
        return field(number, numbers.tobytes()) + head
    return head + b''.join(varint(number * 8 + kind) + one.tobytes() for one in numbers)


def caffemodel(weights, *, name='AlexNet', v1=False, norm_first=True, order=True, **options):
    """NetParameter: {'conv1': (kernel, bias)} with Caffe's axes; if `order`, the layers between them that have none."""

    def layer(title, kind, *arrays):
        blobs = [blob(array, **options) for array in arrays]
        if v1:  # V1LayerParameter: name 4, type 5, blobs 6
            return field(2, field(4, title) + field(5, V1_NUMBERS[kind]) + b''.join(field(6, b) for b in blobs))
        return field(100, field(1, title) + field(2, kind) + b''.join(field(7, b) for b in blobs))

    layers = []
    for title in CAFFE_LAYERS:
        layers.append(layer(title, 'Convolution' if title < 'd' else 'InnerProduct', *weights[title]))
        if order and title in ('conv1', 'conv2'):
            both = [layer('norm', 'LRN'), layer('pool', 'Pooling')]
            layers += both if norm_first else both[::-1]
    return field(1, name) + b''.join(layers)


def caffe_weights(params):
    """This project's parameters in Caffe's axes and order BGR, in loops over layers: conv (o, i, h, w), fc (o, i)."""
    weights = {}
    for title, layer in params.items():
        kernel = layer['kernel']
        if kernel.ndim == 4:
            kernel = np.moveaxis(kernel, (3, 2), (0, 1))
            kernel = kernel[:, ::-1] if title == 'conv1' else kernel
        else:
            kernel = kernel.T
            if title == 'fc6':  # channel, row, column
                channels = kernel.shape[1] // 36
                rows = [
                    kernel[:, (i * 6 + j) * channels + c] for c in range(channels) for i in range(6) for j in range(6)
                ]
                kernel = np.stack(rows, axis=1)
        weights[title] = np.ascontiguousarray(kernel), layer['bias']
    return weights


# ONNX (onnx/onnx onnx/onnx.proto)


def graph(*parts):
    return field(1, 8) + field(7, b''.join(parts))


def node(kind, inputs, output, *attributes):
    names = b''.join(field(1, name) for name in inputs) + field(2, output)
    return field(1, names + field(4, kind) + b''.join(field(5, attribute) for attribute in attributes))


def filled(name, sizes):
    """A ConstantOfShape of so many sizes, and the initializer that it reads them from."""
    dims = field(1, len(sizes)) + field(2, 7) + field(8, f'{name}_shape')
    return field(5, dims + field(7, b''.join(map(varint, sizes)))) + node('ConstantOfShape', [f'{name}_shape'], name)


def attribute(name, value):
    """AttributeProto: FLOAT 1, INT 2, INTS 7."""
    if isinstance(value, float):
        return field(1, name) + b'\x15' + struct.pack('<f', value) + field(20, 1)
    if isinstance(value, int):
        return field(1, name) + field(3, value) + field(20, 2)
    return field(1, name) + b''.join(field(8, number) for number in value) + field(20, 7)


def bvlc_onnx(weights):
    """bvlc_alexnet as Caffe2 writes it, of caffe_weights(...): what is looked at of onnx's light_bvlc_alexnet."""
    parts, x = [], 'data_0'
    for title, (kernel, bias) in weights.items():
        for name, array in ((f'{title}_w', kernel), (f'{title}_b', bias)):
            dims = b''.join(field(1, size) for size in array.shape)
            parts.append(field(5, dims + field(2, 1) + field(8, name) + field(9, array.astype('<f4').tobytes())))
        inputs = [x, f'{title}_w', f'{title}_b']
        if title > 'd':
            parts.append(node('Gemm', inputs, title, attribute('transB', 1)))
        else:
            pad, stride = {'conv1': (0, 4), 'conv2': (2, 1)}.get(title, (1, 1))
            how = {
                'pads': [pad] * 4,
                'strides': [stride] * 2,
                'group': 2 if title in ('conv2', 'conv4', 'conv5') else 1,
            }
            parts.append(node('Conv', inputs, title, *(attribute(*item) for item in how.items())))
        x = title
        if title in ('conv1', 'conv2'):
            how = {'size': 5, 'alpha': 1e-4, 'beta': 0.75, 'bias': 1.0}
            parts.append(node('LRN', [x], f'{title}_n', *(attribute(*item) for item in how.items())))
            x = f'{title}_n'
        if title in ('conv1', 'conv2', 'conv5'):
            how = {'kernel_shape': [3, 3], 'strides': [2, 2]}
            parts.append(node('MaxPool', [x], f'{title}_p', *(attribute(*item) for item in how.items())))
            x = f'{title}_p'
    return graph(*parts, field(11, field(1, 'data_0')))


# PyTorch (torch/serialization.py; the pickle's instructions from the standard library's pickletools)


def text(value):
    data = value.encode()
    return b'X' + struct.pack('<I', len(data)) + data


def number(value):
    return b'J' + struct.pack('<i', value)


def numbers(values):
    return b'(' + b''.join(map(number, values)) + b't'


def torch_tensor(key, array, *, kind='FloatStorage', offset=0, size=None, stride=None, count=None):
    """What builds a tensor: _rebuild_tensor_v2(storage `key`, offset, size, stride, False, OrderedDict())."""
    size = array.shape if size is None else size
    stride = [step // array.itemsize for step in array.strides] if stride is None else stride
    storage = [text('storage'), b'ctorch\n' + kind.encode() + b'\n', text(key), text('cpu')]
    storage = b'(' + b''.join(storage) + number(array.size if count is None else count) + b'tQ'
    empty = b'ccollections\nOrderedDict\n)R'
    arguments = storage + number(offset) + numbers(size) + numbers(stride) + b'\x89' + empty
    return b'ctorch._utils\n_rebuild_tensor_v2\n(' + arguments + b'tR'


def state_dict_program(tensors):
    """data.pkl of an OrderedDict of tensors, as torch.save writes it but for its memo."""
    items = b''.join(text(name) + build for name, build in tensors.items())
    return b'\x80\x02ccollections\nOrderedDict\n)R(' + items + b'u.'


def write_torch_file(path, program, storages, *, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, 'w', compression) as archive:
        archive.writestr('net/data.pkl', program)
        archive.writestr('net/byteorder', b'little')
        for key, data in storages.items():
            archive.writestr(f'net/data/{key}', data)
        archive.writestr('net/version', b'3\n')


TORCHVISION = {
    'conv1': 'features.0',
    'conv2': 'features.3',
    'conv3': 'features.6',
    'conv4': 'features.8',
    'conv5': 'features.10',
    'fc6': 'classifier.1',
    'fc7': 'classifier.4',
    'fc8': 'classifier.6',
}


def torchvision_tensors(params):
    """{'features.0.weight': array ...} with PyTorch's axes, in RGB."""
    tensors = {}
    for title, (kernel, bias) in caffe_weights(params).items():
        kernel = kernel[:, ::-1] if title == 'conv1' else kernel  # caffe_weights turned it to BGR
        tensors[f'{TORCHVISION[title]}.weight'] = np.ascontiguousarray(kernel)
        tensors[f'{TORCHVISION[title]}.bias'] = bias
    return tensors


def save_torch(path, tensors):
    """A .pth of the state dict."""
    builds = {name: torch_tensor(str(key), array) for key, (name, array) in enumerate(tensors.items())}
    storages = {str(key): array.tobytes() for key, array in enumerate(tensors.values())}
    write_torch_file(path, state_dict_program(builds), storages)
