"""Says what a file is that people take for weights and that is not read here, and how to come from it."""

import pathlib

from alexnet_jax.weights.safetensors_file import SAVE_ARRAYS

KNOWN = (
    "safetensors, ONNX, .caffemodel, MatConvNet's .mat, bvlc_alexnet.npy, Keras's .keras and .h5, state dicts as .pth "
    'and the .npz of `alexnet checkpoint export` are read'
)
_FILES = ('.safetensors', '.pth', '.pt', '.onnx', '.caffemodel', '.mat', '.npy', '.npz', '.keras', '.h5')
_AS_TORCHVISION = (
    "give its arrays torchvision's names and axes (features.0.weight, (out, in, height, width), ...) and write them "
    f'with {SAVE_ARRAYS}'
)
_UNPACK = 'unpack it and give the file of weights that is in it'
# What files begin with: (place, bytes, what it is, what to do).
_STARTS = (
    (
        0,
        b'MATLAB 7.3 MAT-file',
        'a MATLAB file of version 7.3',
        "write it again in MATLAB: net = load('FILE.mat'); save('FILE-v7.mat', '-struct', 'net', '-v7')",
    ),
    (0, b'MATLAB 5.0 MAT-file', 'the beginning of a MATLAB file', 'copy it again'),
    (0, b'(dp', 'a pickle of protocol 0', 'write it again with pickle.dump(value, file, protocol=2)'),
    (0, b'}q\x00', 'a pickle of protocol 1', 'write it again with pickle.dump(value, file, protocol=2)'),
    (4, b'TFL3', 'a TensorFlow Lite model', 'give the weights that it was made of'),
    (0, b'GGUF', 'a GGUF file, of language models', 'give a file of an AlexNet'),
    (0, b'\x1f\x8b', 'compressed (gzip)', _UNPACK),
    (0, b'BZh', 'compressed (bzip2)', _UNPACK),
    (0, b'\xfd7zXZ\x00', 'compressed (xz)', _UNPACK),
    (0, b'(\xb5/\xfd', 'compressed (zstd)', _UNPACK),
    (0, b"7z\xbc\xaf'\x1c", 'a 7z archive', _UNPACK),
    (0, b'Rar!', 'a RAR archive', _UNPACK),
    (257, b'ustar', 'a tar archive', _UNPACK),
    (0, b'%PDF', 'no file of weights but a PDF', 'give another'),
    (0, b'\x89PNG', 'no file of weights but a picture', 'give another'),
    (0, b'\xff\xd8\xff', 'no file of weights but a picture', 'give another'),
    (0, b'version https://git-lfs.github.com', 'a pointer of Git LFS, without the content', 'fetch it: git lfs pull'),
    (0, b'version https://hawser', 'a pointer of Git LFS, without the content', 'fetch it: git lfs pull'),
)


def describe_file(path: pathlib.Path, content: memoryview) -> str:
    """Describes a file that no reader takes, and what to do."""
    start = bytes(content[:512])
    for place, signature, kind, remedy in _STARTS:
        if start[place : place + len(signature)] == signature:
            return f'is {kind}, which is not read: {remedy}'
    if path.suffix == '.data' and path.with_suffix('').exists():
        return f'belongs to an ONNX file beside it: give --weights={path.with_suffix("")}'
    text = start.lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    if text.startswith((b'<!doctype', b'<html', b'<?xml', b'<error')):
        return 'is a page of text (HTML or XML), such as a server sends in place of a file: download it again'
    if path.name.endswith('.index.json') or b'"weight_map"' in start:
        return "is the list of a model's files: give the .safetensors file beside it"
    if text.startswith((b'{', b'[')):
        return 'is JSON, which holds no weights here: give the file of weights that belongs to it'
    if b'layer' in text and b'name:' in text:
        return "is a .prototxt, Caffe's description of a network: give the .caffemodel that belongs to it"
    if '.data-0' in path.name or path.name.endswith('.index') or path.name in ('checkpoint', 'saved_model.pb'):
        return f'is of a TensorFlow checkpoint or model, which is not read: load it with TensorFlow, {_AS_TORCHVISION}'
    if path.suffix in ('.msgpack', '.flax'):
        return f'is a Flax msgpack file, which is not read: load it with flax.serialization, {_AS_TORCHVISION}'
    return f'is no file of weights that is known here: {KNOWN}'


def describe_archive(path: pathlib.Path, names: list[str]) -> str:
    """Describes a zip archive that neither torch.save nor `alexnet checkpoint export` wrote, and what to do."""
    if names and all(name.endswith('.npy') for name in names):
        return (
            'is a NumPy archive (.npz) that `alexnet checkpoint export` did not write: load it with numpy.load, '
            f'{_AS_TORCHVISION}'
        )
    if any(name.endswith(('saved_model.pb', '.pdmodel', '.mlmodel')) for name in names):
        return f'is a zipped model of another program, which is not read: load it there, {_AS_TORCHVISION}'
    if any('/models/' in f'/{name}' and name.endswith(('.json', '.pt2')) for name in names):
        return (
            'is a program of torch.export (.pt2), which is not read: save its state dict, '
            f'torch.save(torch.export.load({str(path)!r}).state_dict, FILE)'
        )
    return f'is a zip archive without a data.pkl of torch.save: {_UNPACK}'


def describe_folder(path: pathlib.Path) -> str:
    """Describes a folder that was given in place of a file, and what to do."""
    names = {child.name for child in path.iterdir()}
    if 'saved_model.pb' in names:
        return f'is a TensorFlow SavedModel, which is not read: load it with TensorFlow, {_AS_TORCHVISION}'
    files = sorted(name for name in names if name.endswith(_FILES))
    if '.metadata' in names and any(name.endswith('.distcp') for name in names):
        return (
            'is a checkpoint of torch.distributed.checkpoint: write one file of it, torch.distributed.checkpoint.'
            f'format_utils.dcp_to_torch_save({str(path)!r}, FILE)'
        )
    if files:
        return f'is a folder: give a file of it, such as --weights={path / files[0]}'
    if 'config.json' in names or 'checkpoints' in names:
        return f'is a folder: a run is given as --workdir={path}, weights as a file'
    return f'is a folder: a run is given as --workdir=runs/NAME, weights as a file; {KNOWN}'
