"""Files as other programs write them, from the formats' public descriptions and without this project's code."""

import struct
import zipfile

import numpy as np

CAFFE_LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8')
V1_NUMBERS = {'Convolution': 4, 'Data': 5, 'Dropout': 6, 'InnerProduct': 14, 'LRN': 15, 'Pooling': 17, 'ReLU': 18}
V1_NUMBERS |= {'Sigmoid': 19, 'SoftmaxWithLoss': 21, 'TanH': 23}


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


CAFFE_PARAMETERS = {  # of train_val.prototxt: number in LayerParameter, in V1LayerParameter, and the message
    'conv1': (106, 10, field(4, 11) + field(6, 4)),
    'conv2': (106, 10, field(3, 2) + field(4, 5) + field(5, 2)),
    'conv3': (106, 10, field(3, 1) + field(4, 3)),
    'conv4': (106, 10, field(3, 1) + field(4, 3) + field(5, 2)),
    'conv5': (106, 10, field(3, 1) + field(4, 3) + field(5, 2)),
    'norm': (118, 18, field(1, 5) + b'\x15' + struct.pack('<f', 1e-4) + b'\x1d' + struct.pack('<f', 0.75)),
    'pool': (121, 19, field(1, 0) + field(2, 3) + field(3, 2)),
}


def caffemodel(
    weights, *, name='AlexNet', v1=False, norm_first=True, order=True, change=lambda layers: layers, **options
):
    """NetParameter of {'conv1': (kernel, bias)} with Caffe's axes, with all layers of train_val.prototxt if `order`.

    `change` gets and gives a list of [title, type, parameters, arrays]; each layer reads what the one before it gives.
    """
    layers = [['data', 'Data', b'', ()]]
    for title in CAFFE_LAYERS:
        kind = 'Convolution' if title < 'd' else 'InnerProduct'
        layers.append([title, kind, CAFFE_PARAMETERS.get(title, (0, 0, b''))[2], weights[title]])
        if title != 'fc8':
            layers.append([f'relu{title[-1]}', 'ReLU', b'', ()])
        both = [[f'norm{title[-1]}', 'LRN', CAFFE_PARAMETERS['norm'][2], ()]] * (title in ('conv1', 'conv2'))
        both += [[f'pool{title[-1]}', 'Pooling', CAFFE_PARAMETERS['pool'][2], ()]] * (
            title in ('conv1', 'conv2', 'conv5')
        )
        layers += both if norm_first else both[::-1]
        if title in ('fc6', 'fc7'):
            layers.append([f'drop{title[-1]}', 'Dropout', b'', ()])
    layers = change([*layers, ['loss', 'SoftmaxWithLoss', b'', ()]])
    parts, read = [], 'data'
    for title, kind, parameters, arrays in layers:
        if not order and not arrays:
            continue
        blobs = [blob(array, **options) for array in arrays]
        given = read if kind in ('ReLU', 'Dropout') else title  # those two are in place
        key = {'Convolution': 'conv1', 'LRN': 'norm', 'Pooling': 'pool'}.get(kind)
        number = CAFFE_PARAMETERS[key][v1] if key else 30 if v1 else 123
        about = field(number, parameters) if parameters else b''
        if v1:  # V1LayerParameter: bottom 2, top 3, name 4, type 5, blobs 6
            about += field(2, read) + field(3, given) + field(4, title) + field(5, V1_NUMBERS[kind])
            parts.append(field(2, about + b''.join(field(6, b) for b in blobs)))
        else:  # LayerParameter: name 1, type 2, bottom 3, top 4, blobs 7
            about += field(1, title) + field(2, kind) + field(3, read) + field(4, given)
            parts.append(field(100, about + b''.join(field(7, b) for b in blobs)))
        read = given
    return field(1, name) + b''.join(parts)


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


def bvlc_onnx(weights, *, change={}, more=()):  # noqa: B006 - only read
    """bvlc_alexnet as Caffe2 writes it, of caffe_weights(...): what is looked at of onnx's light_bvlc_alexnet.

    `change`: {'conv1': operator in place of the Relu behind it}; `more`: nodes behind fc8.
    """
    parts, x = [], 'data_0'
    for title, (kernel, bias) in weights.items():
        for name, array in ((f'{title}_w', kernel), (f'{title}_b', bias)):
            dims = b''.join(field(1, size) for size in array.shape)
            parts.append(field(5, dims + field(2, 1) + field(8, name) + field(9, array.astype('<f4').tobytes())))
        inputs = [x, f'{title}_w', f'{title}_b']
        if title == 'fc6':
            parts.append(node('Flatten', [x], 'flat'))
            inputs[0] = 'flat'
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
        if title != 'fc8':
            parts.append(node(change.get(title, 'Relu'), [x], f'{title}_r'))
            x = f'{title}_r'
        if title in ('conv1', 'conv2'):
            how = {'size': 5, 'alpha': 1e-4, 'beta': 0.75, 'bias': 1.0}
            parts.append(node('LRN', [x], f'{title}_n', *(attribute(*item) for item in how.items())))
            x = f'{title}_n'
        if title in ('conv1', 'conv2', 'conv5'):
            how = {'kernel_shape': [3, 3], 'strides': [2, 2]}
            parts.append(node('MaxPool', [x], f'{title}_p', *(attribute(*item) for item in how.items())))
            x = f'{title}_p'
    return graph(*parts, *more, field(11, field(1, 'data_0')))


# PyTorch (torch/serialization.py; the pickle's instructions from the standard library's pickletools)


def text(value):
    data = value.encode()
    return b'X' + struct.pack('<I', len(data)) + data


def number(value):
    return b'J' + struct.pack('<i', value)


def numbers(values):
    return b'(' + b''.join(map(number, values)) + b't'


def torch_tensor(key, array, *, kind='FloatStorage', offset=0, size=None, stride=None, count=None, legacy=False):
    """What builds a tensor: _rebuild_tensor_v2(storage `key`, offset, size, stride, False, OrderedDict())."""
    size = array.shape if size is None else size
    more = b'N' if legacy else b''  # no view of another storage
    stride = [step // array.itemsize for step in array.strides] if stride is None else stride
    storage = [text('storage'), b'ctorch\n' + kind.encode() + b'\n', text(key), text('cpu')]
    storage = b'(' + b''.join(storage) + number(array.size if count is None else count) + more + b'tQ'
    empty = b'ccollections\nOrderedDict\n)R'
    arguments = storage + number(offset) + numbers(size) + numbers(stride) + b'\x89' + empty
    return b'ctorch._utils\n_rebuild_tensor_v2\n(' + arguments + b'tR'


def state_dict_program(tensors):
    """data.pkl of an OrderedDict of tensors, as torch.save writes it but for its memo."""
    items = b''.join(text(name) + build for name, build in tensors.items())
    return b'\x80\x02ccollections\nOrderedDict\n)R(' + items + b'u.'


def items(values):
    """A dictionary of what builds its values."""
    return b'}(' + b''.join(text(name) + build for name, build in values.items()) + b'u'


def write_legacy_file(path, build, storages):
    """What torch.save wrote before the zip: `build` without its PROTO and STOP; {key: array} of the storages."""
    magic = b'\x8a\x0a' + 0x1950A86A20F9469CFC6C.to_bytes(10, 'little')
    keys = b']' + b''.join(text(key) + b'a' for key in storages)
    parts = [magic, number(1001), items({'little_endian': b'\x88', 'protocol_version': number(1001)}), build, keys]
    data = b''.join(struct.pack('<q', array.size) + array.tobytes() for array in storages.values())
    path.write_bytes(b''.join(b'\x80\x02' + part + b'.' for part in parts) + data)


def write_torch_file(path, program, storages, *, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, 'w', compression) as archive:
        archive.writestr('net/data.pkl', program)
        archive.writestr('net/byteorder', b'little')
        for key, data in storages.items():
            archive.writestr(f'net/data/{key}', data)
        archive.writestr('net/version', b'3\n')


def write_torch_tensors(path, tensors, *, legacy=False):
    """What torch.save writes of a dictionary of float32 arrays, in either form."""
    built = {name: torch_tensor(str(key), array, legacy=legacy) for key, (name, array) in enumerate(tensors.items())}
    storages = {str(key): array for key, array in enumerate(tensors.values())}
    if legacy:
        write_legacy_file(path, items(built), storages)
    else:
        write_torch_file(path, b'\x80\x02' + items(built) + b'.', {key: x.tobytes() for key, x in storages.items()})


def lpips_tensors(layers, *, place=1):
    """{'lin0.model.1.weight': (1, channels, 1, 1) ...} of arrays (channels,), as the package lpips has them."""
    return {f'lin{i}.model.{place}.weight': layer.reshape(1, -1, 1, 1) for i, layer in enumerate(layers)}


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
